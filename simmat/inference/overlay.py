"""Found objects or a class map drawn over the display picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from simmat.drawing.found import draw_classes, draw_objects
from simmat.inference.result import ImageResult


def draw_result(result: ImageResult, *, words: bool = True) -> Image.Image:
    """Draw what was found over the picture, in the colours of its classes; an object without a class has its own.

    `words` names the classes in a legend below.
    """
    names = result.class_names if words else None
    if result.classes is not None:
        return draw_classes(result.picture(), result.classes, result.ignored_values, names)
    return draw_objects(result.picture(), [found.instance for found in result.ranked], result.size_hw, names)


def write_overlay(result: ImageResult, folder: Path) -> str:
    """Write `NAME_overlay.png`, unless that of another result of the image is there; return the file's name."""
    name = f"{result.name}_overlay.png"
    if not (folder / name).exists():
        draw_result(result).save(folder / name, compress_level=1)  # 10 % larger, in a quarter of the time
    return name

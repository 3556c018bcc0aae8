"""The file formats of results, also those of plugins: choose the formats of a call, and write results in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simmat.drawing.found import draw_classes, draw_objects
from simmat.drawing.overlay import MASK, class_colour, draw_overlay
from simmat.errors import ConfigError, DataError
from simmat.inference.result import BAND_ROWS, ImageResult, PromptResult, Result, label_bands, label_type
from simmat.io.files import output_errors
from simmat.io.images import write_image
from simmat.plugin_specs import ResultFormat, ResultKind, import_from_string
from simmat.plugins.registry import Registry

if TYPE_CHECKING:
    from simmat.types import ImageReader


AUTO = "auto"
"""Stands for the formats that suit an image."""
UNCERTAINTY = "uncertainty"
"""The format for which the uncertainty of masks is computed."""


@dataclass(frozen=True)
class ChosenFormats:
    """The formats of a call.

    Attributes:
        named: those the user named.
        automatic: those that "auto" may stand for; empty if the user did not write it.
    """

    named: tuple[ResultFormat, ...]
    automatic: tuple[ResultFormat, ...] = ()

    def endings(self, kinds: Collection[ResultKind]) -> tuple[str, ...]:
        """Return what the names of an image's files may end with."""
        found: list[str] = []
        for kind in kinds:
            for one in (*self.named, *self.automatic):
                if kind in one.kinds and not one.one_file:
                    found += [ending.format(kind=kind) for ending in one.endings]
        return tuple(dict.fromkeys(found))

    def for_call(self, kinds: Collection[ResultKind]) -> tuple[ResultFormat, ...]:
        """Return the formats that are one file for all images."""
        formats = dict.fromkeys((*self.named, *self.automatic))
        return tuple(one for one in formats if one.one_file and _holds(one, kinds))

    def for_image(self, kind: ResultKind, image: ImageReader) -> tuple[ResultFormat, ...]:
        """Return the formats of an image's files in the order in which they are written.

        Raises:
            DataError: a format that the user named cannot hold an image of this size or place.
        """
        chosen = [one for one in self.named if kind in one.kinds]
        for one in chosen:
            _check_image(one, image)
        places: set[str] = {kind}
        if image.georeference is not None:
            places.add(f"georeferenced {kind}")
        automatic = [one for one in self.automatic if not places.isdisjoint(one.auto) and _can_hold(one, image)]
        replaced = {one.replaces for one in automatic}
        for one in automatic:
            if one.name not in replaced and one not in chosen:
                chosen.append(one)
        return tuple(one for one in _in_order(chosen) if not one.one_file)


def choose_formats(
    names: Collection[str], kinds: Collection[ResultKind], registry: Registry, *, of_prompts: bool = False
) -> ChosenFormats:
    """Find formats by name; "auto" stands for those that suit each image.

    Args:
        names: what `--format` lists.
        kinds: what is looked for in the images.
        registry: has the formats.
        of_prompts: "auto" stands for formats with the pixels of prompted objects: formats of prompts, and of class
            maps.

    Raises:
        ConfigError: a format can hold nothing of what is looked for.
        UnknownNameError: no installed package brings a format.
    """
    every: list[ResultFormat] = registry.all("result format")
    named = []
    for name in sorted(set(names) - {AUTO}):
        one: ResultFormat = registry.get("result format", name)
        if not _holds(one, kinds):
            others = [other.name for other in every if _holds(other, kinds)]
            raise ConfigError(
                f"format {name} holds {' and '.join(one.kinds)}, not {' and '.join(kinds)}; use {', '.join(others)}"
            )
        named.append(one)
    automatic = []
    if AUTO in names:
        for one in every:
            shows_pixels = any(place.endswith(("prompts", "classes")) for place in one.auto)
            if one.auto and (shows_pixels if of_prompts else _holds(one, kinds)):
                automatic.append(one)
    return ChosenFormats(_in_order(named), _in_order(automatic))


def kinds_of_prompts(names: Collection[str] | None, registry: Registry) -> tuple[ResultKind, ...]:
    """Return what formats hold of prompted objects: each object separately, or all objects of an image.

    Args:
        names: what `--format` lists; None writes the files of each object.
        registry: has the formats.
    """
    if names is None:
        return ("prompts",)
    for one in registry.all("result format"):
        if one.name in names and "prompts" in one.kinds and "objects" not in one.kinds:
            return ("prompts",)
    return ("objects",)


def write_result(result: Result, formats: Iterable[ResultFormat], folder: Path) -> list[str]:
    """Write what was found in an image, or for a prompt; return the names of the files.

    `folder` exists, such as one of `staged_files`, from which files are moved when all are whole.
    """
    written: list[str] = []
    with output_errors(folder):
        for one in formats:
            written.append(import_from_string(one.write)(result, folder))
    return list(dict.fromkeys(written))  # a GeoPackage holds both objects and classes


def write_for_call(
    one: ResultFormat, images: Iterable[tuple[str, Mapping[str, Any]]], class_names: Mapping[int, str], folder: Path
) -> str:
    """Write the file that holds the results of all images, given by name and json; return a line to print."""
    file = folder / one.endings[0]
    written: int = import_from_string(one.write)(images, class_names, file)
    return f"{file}  {written} image{'' if written == 1 else 's'}"


def _holds(one: ResultFormat, kinds: Collection[ResultKind]) -> bool:
    """Return whether a format can hold one of these kinds of results."""
    return not set(kinds).isdisjoint(one.kinds)


def _check_image(one: ResultFormat, image: ImageReader) -> None:
    """Raise DataError if a format cannot hold an image."""
    if one.needs_georeference and image.georeference is None:
        raise DataError(
            f"{image.origin}: has no coordinate reference system, which format {one.name} needs; use --format labels, "
            "or give the image a georeference (gdal_edit)"
        )
    if one.check:
        import_from_string(one.check)(image)


def _can_hold(one: ResultFormat, image: ImageReader) -> bool:
    try:
        _check_image(one, image)
    except DataError:
        return False
    return True


def _in_order(formats: Iterable[ResultFormat]) -> tuple[ResultFormat, ...]:
    """Sort by name, formats that need a georeference last: their file replaces one of the same name."""
    return tuple(sorted(formats, key=lambda one: (one.needs_georeference, one.name)))


def write_mask(result: PromptResult, folder: Path) -> str:
    """Write `NAME_mask.png`, 255 on the object; return the file's name."""
    name = f"{result.name}_mask.png"
    Image.fromarray(result.mask.astype(np.uint8) * 255).save(folder / name)
    return name


def write_uncertainty(result: PromptResult, folder: Path) -> str:
    """Write `NAME_uncertainty.tif`, mean and standard deviation as two float32 pages; return the file's name."""
    import tifffile

    assert result.uncertainty is not None  # a request for this format has it
    name = f"{result.name}_uncertainty.tif"
    with tifffile.TiffWriter(folder / name) as tiff:
        for plane in (result.uncertainty.mean, result.uncertainty.std):
            tiff.write(plane, photometric="minisblack", compression="zlib", metadata=None, software=False)
    return name


def draw_result(result: ImageResult) -> Image.Image:
    """Draw what was found over the picture, in the colours of its classes, which a legend names.

    An object without a class has a colour of its own.
    """
    names = result.class_names
    if result.class_map is not None:
        return draw_classes(result.picture(), result.class_map, result.ignored_values, names)
    return draw_objects(result.picture(), [found.instance for found in result.ranked], result.size_hw, names)


def draw_prompt(result: PromptResult) -> Image.Image:
    """Draw a mask and its prompt over the picture, in the colour of the object's class."""
    colour = MASK if result.class_id is None else class_colour(result.class_id)
    return draw_overlay(result.picture(), result.mask, result.prompt, colour=colour)


def write_overlay(result: Result, folder: Path) -> str:
    """Write `NAME_overlay.png`, unless that of another result of the image is there; return the file's name."""
    name = f"{result.name}_overlay.png"
    if isinstance(result, PromptResult):
        draw_prompt(result).save(folder / name)
    elif not (folder / name).exists():
        draw_result(result).save(folder / name, compress_level=1)  # 10 % larger, in a quarter of the time
    return name


MAX_PNG_SIDE = 8192
"""Longest side of a PNG in pixels; what is larger becomes a TIFF, of which a viewer reads only a part."""


def write_labels(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.png` or `NAME_classes.png`, as .tif if a PNG cannot hold them; return the file's name.

    Instance ids run from 1 by falling score; of overlapping objects, the one with the higher score is in front.
    """
    dtype = label_type(result)
    if dtype in (np.uint8, np.uint16) and max(result.size_hw) <= MAX_PNG_SIDE:
        plane = np.concatenate([band.astype(dtype) for _, band in label_bands(result)])
        name = f"{result.name}_{result.kind}.png"
        write_image(folder / name, plane[None])
        return name
    import tifffile

    name = f"{result.name}_{result.kind}.tif"
    tifffile.imwrite(
        folder / name,
        _tiles(result, dtype),
        shape=result.size_hw,
        dtype=dtype,
        tile=(BAND_ROWS, BAND_ROWS),
        photometric="minisblack",
        compression="zlib",
        metadata=None,  # with `software`: no date and version, so equal results give equal bytes
        software=False,
    )
    return name


def _tiles(result: ImageResult, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of a TIFF row by row; those at the right and bottom are filled up with 0."""
    for _, band in label_bands(result):
        for x0 in range(0, band.shape[1], BAND_ROWS):
            part = band[:, x0 : x0 + BAND_ROWS]
            tile = np.zeros((BAND_ROWS, BAND_ROWS), dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile

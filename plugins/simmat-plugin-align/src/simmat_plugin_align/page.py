"""A page with pictures of some pairs before and after their alignment."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from simmat.drawing.display import display_rgb
from simmat.io.files import atomic_write_text
from simmat.sensors.warp import Warp
from simmat.types import SensorImage, Window
from simmat_plugin_align.align import Aligned
from simmat_plugin_align.features import Matrix

_MAX_SIDE = 720
_TILES = 8
"""Fields of the checkerboard along the longer side."""
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 1500px; margin: 2rem auto; padding: 0 1rem; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; display: block; image-rendering: pixelated; }
.blink { position: relative; }
.blink img + img { position: absolute; inset: 0; animation: blink 1.6s steps(1) infinite; }
@keyframes blink { 0%, 100% { opacity: 0; } 50% { opacity: 1; } }
.blink:hover img + img { animation-play-state: paused; }
pre { overflow-x: auto; }
"""


def write_page(out: Path, results: Sequence[Aligned]) -> Path:
    """Write one HTML file that holds its pictures.

    Raises:
        OutputError: the file cannot be written.
    """
    parts = []
    for result in results:
        parts.append(
            f"<h2>{escape(result.source)}</h2><pre>{escape(result.text())}</pre>"
        )
        for name, first, second in result.shown:
            parts.append(f"<h3>{escape(name)}</h3>{_row(result, name, first, second)}")
    title = f"Alignment of {escape(str(results[0].rig.root))}"
    atomic_write_text(
        out,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>Blinking pictures change between both sensors; a pointer on one stops it. In the "
        f"checkerboards, edges must go on from field to field.</p>{''.join(parts)}</html>",
    )
    return out


def _row(result: Aligned, name: str, first: SensorImage, second: SensorImage) -> str:
    """Return the pictures of a pair."""
    height, width = first.size_hw
    below = max(1.0, max(height, width) / _MAX_SIDE)
    shown_hw = round(height / below), round(width / below)
    # from pixels of the picture to those of the first image
    to_first = np.diag([width / shown_hw[1], height / shown_hw[0], 1.0])
    to_first[:2, 2] = [(to_first[0, 0] - 1) / 2, (to_first[1, 1] - 1) / 2]
    before = np.diag([second.size_hw[1] / width, second.size_hw[0] / height, 1.0])
    before[:2, 2] = [(before[0, 0] - 1) / 2, (before[1, 1] - 1) / 2]
    own = _picture(first, to_first, shown_hw)
    figures = []
    for title, matrix in (("before", before), ("after", result.matrices[name])):
        other = _picture(second, matrix @ to_first, shown_hw)
        figures.append(
            f'<figure><div class="blink">{_img(own, "first sensor")}{_img(other, "second sensor")}</div>'
            f"<figcaption>{title}, blinking</figcaption></figure>"
        )
        board = _img(_checkerboard(own, other), "checkerboard of both")
        figures.append(
            f"<figure>{board}<figcaption>{title}, checkerboard</figcaption></figure>"
        )
    return f'<div class="row">{"".join(figures)}</div>'


def _picture(
    image: SensorImage, matrix: Matrix, shape: tuple[int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return (H, W, 3) of an image on the grid of the picture."""
    warp = Warp(matrix, image.size_hw)
    placed = warp(
        replace(image, georeference=None),
        Window(0, 0, *shape),
        Window(0, 0, *image.size_hw),
        [True] * len(image.channels),
    )
    return np.asarray(display_rgb(placed), np.uint8)


def _checkerboard(
    first: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    second: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return fields of both pictures in turn."""
    side = max(max(first.shape[:2]) // _TILES, 1)
    rows, columns = np.indices(first.shape[:2]) // side
    return np.where(((rows + columns) % 2 == 0)[..., None], first, second)


def _img(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], alt: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=85)
    content = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{content}">'

"""The rgb-regions set in memory: photographs, region masks, and what may be asked about each."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

WHOLE_WEIGHT = 2.0
"""How much likelier the whole of a photograph's parts is asked for than one part, where there is such a whole."""

_COLUMNS = ("id", "split", "image", "mask", "source", "zero_means")

_FORMATS = ("JPEG", "PNG")
_PARTS_OF_ONE = frozenset({"ccp"})
"""Sources whose regions are parts (clothes, skin, hair) of one thing: their union is an object too."""


@dataclass(frozen=True)
class Photo:
    """One photograph with every segmentation of it.

    Attributes:
        ids: one per segmentation, as in the manifest.
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) uint8 each; a value is a region, 0 is what the manifest's `zero_means` says.
        source: the set it is from.
        zero_is_region: whether value 0 is a region like any other.
    """

    ids: tuple[str, ...]
    image: np.ndarray
    masks: tuple[np.ndarray, ...]
    source: str
    zero_is_region: bool

    @property
    def parts_of_one(self) -> bool:
        """Whether the union of all regions is itself an object."""
        return self.source in _PARTS_OF_ONE


def read_photos(folder: Path, split: str) -> list[Photo]:
    """Read and decode every photograph of a split.

    Raises:
        ValueError: the manifest lacks columns or the split, or a mask does not fit its image.
    """
    with (folder / "manifest.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if missing := [column for column in _COLUMNS if column not in (reader.fieldnames or ())]:
        raise ValueError(f"{folder / 'manifest.csv'} lacks the columns {missing}; it needs {', '.join(_COLUMNS)}")
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["split"] == split:
            groups[row["image"]].append(row)
    if not groups:
        known = sorted({row["split"] for row in rows})
        raise ValueError(f"no split {split!r} in {folder / 'manifest.csv'}; it has {known}")
    return [_read_photo(folder, name, group) for name, group in groups.items()]


def _read_photo(folder: Path, image_name: str, rows: Sequence[dict[str, str]]) -> Photo:
    image = np.asarray(Image.open(folder / image_name, formats=_FORMATS).convert("RGB"))
    masks = tuple(np.asarray(Image.open(folder / row["mask"], formats=_FORMATS)) for row in rows)
    for row, mask in zip(rows, masks, strict=True):
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"mask {row['mask']} is {mask.shape}, its image {image_name} {image.shape[:2]} (H, W); "
                f"make them the same size or drop the row"
            )
    return Photo(
        ids=tuple(row["id"] for row in rows),
        image=image,
        masks=masks,
        source=rows[0]["source"],
        zero_is_region=rows[0]["zero_means"] == "none",
    )


def region_values(mask: np.ndarray, smallest_px: int, zero_is_region: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values of a mask that are regions of at least `smallest_px` pixels, and their areas."""
    areas = np.bincount(mask.ravel())
    if not zero_is_region:
        areas[0] = 0
    values = np.flatnonzero(areas >= max(smallest_px, 1))
    return values, areas[values]

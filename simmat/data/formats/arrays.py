"""Write arrays to a data set folder, so that training and resuming need no special case for them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.data.card import make_card, write_card
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.data.samples import SPLITS
from simmat.errors import ConfigError, OutputError
from simmat.io.files import atomic_folder, atomic_write_text
from simmat.io.images import write_image

Arrays = Sequence[npt.NDArray[np.generic]]


def write_arrays(
    folder: Path,
    images: Arrays,
    masks: Arrays,
    *,
    split: Sequence[str] | Mapping[str, int] | None,
    card: Mapping[str, object],
) -> None:
    """Write images and masks to a data set folder, completely or not at all."""
    names = _splits(split, len(images))
    if not len(images) and not len(masks):
        raise ValueError("expected at least one image and its mask, got none")
    if len(images) != len(masks):
        raise ValueError(f"expected as many masks as images, got {len(masks)} and {len(images)}")
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if image.ndim not in (2, 3) or mask.ndim != 2 or image.shape[-2:] != mask.shape:
            raise ValueError(
                f"image {number} must be (H, W) or (P, H, W) and its mask (H, W), got {image.shape} and {mask.shape}"
            )
        if mask.dtype.kind not in "bui":
            raise ValueError(f"mask {number} must hold whole numbers, got {mask.dtype}")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; choose another folder")
    made = make_card(card, where="card")
    with atomic_folder(folder) as new:
        rows = [["id", "image", "mask", *(["split"] if names else [])]]
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            planes = image if image.ndim == 3 else image[None]  # (P, H, W)
            in_png = (len(planes), str(planes.dtype)) in {(1, "uint8"), (1, "uint16"), (3, "uint8")}
            ending = ".png" if in_png else ".npy"  # every sensor reads PNG; npy holds the rest
            place, label = f"{IMAGES}/{number:06}{ending}", f"{MASKS}/{number:06}.npy"
            for part in (new / place, new / label):
                part.parent.mkdir(exist_ok=True)
            write_image(new / place, planes)
            write_image(new / label, mask[None])
            rows.append([f"{number:06}", place, label, *([names[number]] if names else [])])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        atomic_write_text(new / MANIFEST_FILE, text.getvalue())
        write_card(new, made)


def _splits(split: Sequence[str] | Mapping[str, int] | None, count: int) -> list[str]:
    if split is None:
        return []
    names = [name for name, size in split.items() for _ in range(size)] if isinstance(split, Mapping) else list(split)
    if unknown := sorted(set(names) - set(SPLITS)):
        raise ConfigError(f"unknown split {unknown[0]!r}; splits are {', '.join(SPLITS)}")
    if len(names) != count:
        raise ValueError(f"split names {len(names)} images, expected {count}")
    return names

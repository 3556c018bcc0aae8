"""zju-rgbp of the AIMS benchmark: a folder for each split and angle of the polarizer."""

from __future__ import annotations

from pathlib import Path

from simmat.data.layouts.files import PICTURES, by_name, names_of
from simmat.data.layouts.layout import Found, Layout
from simmat.data.masks import MASK_EXTENSIONS

ANGLES_DEG = (0, 45, 90, 135)
SPLITS = {"train": "train", "val": "test"}
"""Folder -> split: the released `val` is what the benchmark tests on."""


def read(root: Path) -> Found:
    """Join what has one NAME: 0/NAME_0°, 45/NAME_45°, 90/NAME_90°, 135/NAME_135°, label_sam/NAME.

    Archives often spoil the degree sign, so whatever stands behind the angle and is no digit will do.
    """
    found = Found()
    for folder, split in SPLITS.items():
        columns = {
            f"i{angle}": by_name(root / folder / str(angle), rf"(.+)_{angle}(?!\d)[^/]*", PICTURES)
            for angle in ANGLES_DEG
        }
        masks = by_name(root / folder / "label_sam", "(.+)", MASK_EXTENSIONS)
        for name in names_of(columns):
            files = {column: paths.get(name) for column, paths in columns.items()}
            found.add(f"{folder}/{name}", split, files, masks.get(name))
        alone = sorted(set(masks) - set(names_of(columns)))
        found.missing += [f"label {folder}/label_sam/{masks[name].name} has no image" for name in alone]
    found.notes.append("The released val folder is the test split: the benchmark tests on it and has no other.")
    return found


LAYOUT = Layout(
    name="zju-rgbp",
    title="ZJU-RGB-P (zju-rgbp)",
    tree="  {train,val}/0/NAME_0°.png, 45/NAME_45°.png, 90/NAME_90°.png, 135/NAME_135°.png\n"
    "  {train,val}/label_sam/NAME.png",
    needs=tuple(f"{folder}/{inner}/" for folder in SPLITS for inner in (*ANGLES_DEG, "label_sam")),
    read=read,
    card={"regions": "instances", "min_region": 10000},
    modalities=("polarization-aims-angles", "polarization"),
)

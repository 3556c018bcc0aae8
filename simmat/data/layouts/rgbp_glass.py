"""RGBP-Glass (folder pgsnet) of the AIMS benchmark: a folder for each split and kind, names that end in the kind."""

from __future__ import annotations

import re
from pathlib import Path

from simmat.data.layouts.files import PICTURES, by_name, names_of
from simmat.data.layouts.layout import Found, Layout
from simmat.data.masks import MASK_EXTENSIONS

KINDS = {"rgb": "image", "aolp": "aolp", "dolp": "dolp"}
"""Manifest column, and what a file's name ends in -> folder."""

BROKEN = ("20210808013065", "20210811002205")
"""Ids that the benchmark leaves out."""


def read(root: Path) -> Found:
    """Join what has one NAME: image/NAME_rgb, aolp/NAME_aolp, dolp/NAME_dolp, instance_mask/NAME_instance_mask."""
    found = Found()
    for split in ("train", "test"):
        columns = {kind: by_name(root / split / folder, f"(.+)_{kind}", PICTURES) for kind, folder in KINDS.items()}
        masks = by_name(root / split / "instance_mask", "(.+)_instance_mask", MASK_EXTENSIONS)
        for name in names_of({**columns, "mask": masks}):
            if set(re.split(r"[^0-9]+", name)) & set(BROKEN):
                found.excluded.append(f"{split}/{name} (broken in the release)")
                continue
            files = {column: paths.get(name) for column, paths in columns.items()}
            found.add(f"{split}/{name}", split, files, masks.get(name))
    return found


LAYOUT = Layout(
    name="rgbp-glass",
    aliases=("pgsnet",),
    title="RGBP-Glass (pgsnet)",
    tree="  {train,test}/image/NAME_rgb.tiff\n"
    "  {train,test}/aolp/NAME_aolp.tiff\n"
    "  {train,test}/dolp/NAME_dolp.tiff\n"
    "  {train,test}/instance_mask/NAME_instance_mask.png",
    needs=tuple(f"{split}/{folder}/" for split in ("train", "test") for folder in (*KINDS.values(), "instance_mask")),
    read=read,
    card={"regions": "instances", "min_region": 100},
    modalities=(
        "polarization-aims",
        "rgb+polarization-aims",
        "polarization-aolp-dolp",
        "rgb+polarization-aolp-dolp",
    ),
)

"""IVRG_RGBNIR of the AIMS benchmark: two csv files, and pictures below Outdoor_dataset."""

from __future__ import annotations

from pathlib import Path

from simmat.data.layouts.files import PICTURES
from simmat.data.layouts.layout import Found, Layout
from simmat.data.layouts.tables import MASK_ROLE, Role, read_tables

ROLES = (
    Role("rgb", ("rgb", "visible", "vis", "color", "colour"), PICTURES),
    Role("nir", ("nir", "infrared", "ir"), (*PICTURES, ".npy")),
    MASK_ROLE,
)
_TABLE = "IVRG-nir_{}_GroundTruth.csv"
SHARE = 1000 / 1024**2
"""Regions of 1000 px at 1024 x 1024, as a part of the image."""


def read(root: Path) -> Found:
    """Take the rows of both tables; their files lie below the folder."""
    return read_tables(root, _TABLE, ROLES)


LAYOUT = Layout(
    name="ivrg-nir",
    title="IVRG_RGBNIR",
    tree="  IVRG-nir_train_GroundTruth.csv, IVRG-nir_test_GroundTruth.csv   columns of pictures and masks\n"
    "  Outdoor_dataset/…",
    needs=(_TABLE.format("train"), _TABLE.format("test"), "Outdoor_dataset/"),
    read=read,
    card={"regions": "instances", "min_region_share": SHARE},
    modalities=("nir", "rgb+nir"),
)

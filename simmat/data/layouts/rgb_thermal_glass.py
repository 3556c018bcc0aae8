"""RGB-Thermal-Glass of the AIMS benchmark: two csv files, thermal arrays, pictures and masks below the folder."""

from __future__ import annotations

from pathlib import Path

from simmat.data.layouts.files import PICTURES
from simmat.data.layouts.layout import Found, Layout
from simmat.data.layouts.tables import MASK_ROLE, Role, read_tables

ROLES = (
    Role("rgb", ("rgb", "visible", "vis", "color", "colour"), PICTURES),
    Role("thermal", ("thermal", "temperature", "infrared", "ir", "t"), (".npy",)),
    MASK_ROLE,
)
_TABLE = "RGB_T_Glass_{}_GroundTruth.csv"


def read(root: Path) -> Found:
    """Take the rows of both tables; their files lie below the folder."""
    return read_tables(root, _TABLE, ROLES)


LAYOUT = Layout(
    name="rgb-thermal-glass",
    title="RGB-Thermal-Glass",
    tree="  RGB_T_Glass_train_GroundTruth.csv, RGB_T_Glass_test_GroundTruth.csv   columns of .npy files and masks\n"
    "  the files they name, below this folder",
    needs=(_TABLE.format("train"), _TABLE.format("test")),
    read=read,
    card={"regions": "instances"},
    modalities=("thermal", "thermal-minmax", "rgb+thermal", "rgb+thermal-minmax"),
)

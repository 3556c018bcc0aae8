"""The unit of a depth file: given by the file or the user, else by the convention of RGB-D data sets."""

from __future__ import annotations

from typing import Literal

import numpy as np

from simmat.errors import DataError
from simmat.io.images import ImageFile, Unit, stated_unit

DepthUnit = Literal["m", "cm", "mm", "tum", "kitti"]

METRE = Unit("m")
CENTIMETRE = Unit("cm", 100.0)
MILLIMETRE = Unit("mm", 1000.0)
TUM = Unit("1/5000 m", 5000.0)
KITTI = Unit("1/256 m", 256.0)
KNOWN = {unit.name: unit for unit in (METRE, CENTIMETRE, MILLIMETRE)}


UNITS: dict[DepthUnit, Unit] = {"m": METRE, "cm": CENTIMETRE, "mm": MILLIMETRE, "tum": TUM, "kitti": KITTI}
"""Values of the option `unit`."""
UNIT_WORDS = (
    "Unit of the files; tum is 1/5000 m (TUM RGB-D data sets), kitti 1/256 m (KITTI depth maps). The default is the "
    "unit in the file, else mm for 16-bit integers and m for floats."
)


def unit_of(image: ImageFile, option: DepthUnit | None = None) -> Unit:
    """Return the unit of a file: given by the user or the file, else metres for floats and mm for 16-bit integers.

    Args:
        image: the file.
        option: the unit given by the user.

    Raises:
        DataError: the unit in the file is unknown or contradicts the option, or its type has no conventional unit.
    """
    stated = stated_unit(image, KNOWN, option=UNITS[option] if option else None)
    if stated is not None:
        return stated
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return METRE
    if dtype in (np.uint16, np.int16):
        return MILLIMETRE
    raise DataError(
        f"{image.path}: {dtype} values have no conventional unit (16-bit integers are millimetres, floats metres); "
        f"if you know it, give it with --modality-option unit={', '.join(UNITS)}; for a depth picture without a "
        "unit, use --modality gray"
    )

"""Which unit a depth file is in: what the file or the user says, else what RGB-D data sets agree on."""

from __future__ import annotations

import numpy as np

from simmat.errors import DataError
from simmat.imageio import ImageFile, Unit, stated_unit

METRE = Unit("m")
CENTIMETRE = Unit("cm", 100.0)
MILLIMETRE = Unit("mm", 1000.0)
TUM = Unit("1/5000 m", 5000.0)
KITTI = Unit("1/256 m", 256.0)
KNOWN = {unit.name: unit for unit in (METRE, CENTIMETRE, MILLIMETRE)}


def unit_of(image: ImageFile) -> Unit:
    """Return the unit of a file's numbers: the one it states, else metres for floats and mm for 16-bit integers.

    Raises:
        DataError: it states a unit that is not known, or its type has no unit by convention.
    """
    said = stated_unit(image, KNOWN)
    if said is not None:
        return said
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return METRE
    if dtype in (np.uint16, np.int16):
        return MILLIMETRE
    raise DataError(
        f"{image.path}: {dtype} numbers have no unit by convention (16-bit integers are millimetres, floats metres); "
        "if you know it, use --modality depth-m, depth-cm or depth-mm; for a picture of depth without a unit, "
        "--modality gray"
    )

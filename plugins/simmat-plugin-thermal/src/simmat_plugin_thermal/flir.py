"""Radiometric FLIR JPEG through flyr, a library that is installed with the extra `flir`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simmat.errors import DataError
from simmat.types import FloatArray


def read_flir(path: Path) -> FloatArray:
    """Return the (H, W) temperatures in kelvin that the camera's own settings give (emissivity, distance, air).

    Raises:
        DataError: flyr is not installed, or it cannot read the records.
    """
    try:
        import flyr
    except ImportError:
        raise DataError(
            f"{path}: a radiometric FLIR JPEG; to read its temperatures: pip install 'simmat-plugin-thermal[flir]'. "
            "To use the picture it shows instead: --modality gray, rgb or raster"
        ) from None
    try:
        with path.open("rb") as stream:
            kelvin = np.asarray(flyr.unpack(stream).kelvin, dtype=np.float32)
    except Exception as error:  # flyr has no error tree: damaged records end in whatever Python raises
        raise DataError(f"{path}: flyr cannot read its FLIR records ({type(error).__name__}: {error})") from error
    if kelvin.ndim != 2 or 0 in kelvin.shape:
        raise DataError(f"{path}: its FLIR records hold no image, got shape {kelvin.shape}")
    return kelvin

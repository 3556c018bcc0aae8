"""The size of a pixel that a TIFF states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from simmat_plugin_measure.pixel_size import stated_pixel_size


def tiff(path: Path, **arguments: Any) -> Path:
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), **arguments)
    return path


@pytest.mark.parametrize(
    ("unit", "size"), [("µm", 0.65), ("nm", 650.0), ("mm", 0.00065)]
)
def test_ome_states_size_and_unit(tmp_path: Path, unit: str, size: float) -> None:
    """Every unit of length of the same size."""
    metadata = {"axes": "YX"}
    for axis in "XY":
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    file = tiff(tmp_path / "a.ome.tif", metadata=metadata)
    assert stated_pixel_size(file) == pytest.approx((0.65, 0.65))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"resolution": (72, 72), "resolutionunit": "INCH"},
        {"resolution": (10_000, 10_000), "resolutionunit": "CENTIMETER"},
        {"imagej": True, "resolution": (2, 2), "metadata": {"unit": "pixel"}},
        {"description": "<OME><Pixels PhysicalSizeX='1'/></OME>"},
        {"description": "<OME><Pixels PhysicalSizeX='1' PhysicalSizeY='-1'/></OME>"},
        {"description": "<OME><Pixels PhysicalSizeX='x' PhysicalSizeY='1'/></OME>"},
        {"description": "<OME "},
    ],
)
def test_what_is_not_certain_is_no_size(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """72 dpi is what programs write where nobody knows."""
    assert stated_pixel_size(tiff(tmp_path / "a.tif", **arguments)) is None


def test_other_files_state_none(tmp_path: Path) -> None:
    """They are opened by the sensor, whose message says what is wrong with them."""
    assert stated_pixel_size(tmp_path / "missing.tif") is None
    assert stated_pixel_size(Path("array")) is None
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(b"II*\0not a TIFF")
    assert stated_pixel_size(damaged) is None

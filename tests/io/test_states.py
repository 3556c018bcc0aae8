"""A key of what was read before holds every file that a reader opens or looks at, there or not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from simmat.errors import DataError
from simmat.inference import files_key
from simmat.io.states import file_times, files_of


@pytest.mark.parametrize("ending", [".msk", ".aux.xml"])
@pytest.mark.parametrize("frame", ["", "0001"])
def test_a_file_beside_a_tiff_changes_its_keys(
    tmp_path: Path, ending: str, frame: str
) -> None:
    """GDAL takes values from it, so a TIFF that was read before it came is refused from then on."""
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    status = file.stat()
    path = file / frame

    def keys() -> tuple[bytes, str]:
        return file_times([str(path)]).tobytes(), repr(files_key({"raster": path}))

    before = keys()
    known = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    assert file_times([str(path)]).tolist() == [known]
    beside = Path(f"{file}{ending}")
    beside.touch()
    os.utime(beside, (0, 0))
    assert all(one != other for one, other in zip(before, keys(), strict=True))
    beside.unlink()
    assert keys() == before


@pytest.mark.parametrize("name", ["scene.SAFE", "cells.ome.zarr"])
def test_an_empty_folder_that_is_named_as_an_image_is_refused(
    tmp_path: Path, name: str
) -> None:
    """A download that was stopped leaves one."""
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="without any file"):
        files_of(str(tmp_path / name))

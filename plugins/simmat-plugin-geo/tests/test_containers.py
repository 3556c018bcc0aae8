"""NetCDF files and Zarr stores that refer to other files are refused, and so are groups without an end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from simmat_plugin_geo.rasters import read_raster

from simmat.errors import DataError

SECRET = np.arange(2000, dtype="<u2").reshape(40, 50)


def write_netcdf(folder: Path, add: Callable[[Any], None], name: str = "a.nc") -> Path:
    """Write a variable on a grid, and what `add` adds."""
    path = folder / name
    with h5py.File(path, "w") as file:
        for axis, length in (("y", 40), ("x", 50)):
            file[axis] = np.arange(length, dtype="f4")
            file[axis].make_scale(axis)
        file["band"] = np.full((40, 50), 7, "u2")
        file.create_group("group")
        add(file)
        for variable in ("band", "stolen"):
            if isinstance(file.get(variable, getlink=True), h5py.HardLink):
                file[variable].dims[0].attach_scale(file["y"])
                file[variable].dims[1].attach_scale(file["x"])
    return path


def set_link(file: Any, target: str) -> None:
    """Add a link to a variable of the file itself."""
    file["group/again"] = h5py.SoftLink(target)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of the folder of the images, as numbers and as HDF5."""
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["band"] = SECRET
    (tmp_path / "images").mkdir()
    return tmp_path / "secret"


def test_a_netcdf_file_is_read_with_its_own_variables(secret: Path) -> None:
    """Also with a link to a variable of the file itself."""
    folder = secret.parent / "images"
    path = write_netcdf(folder, lambda file: file["group"].attrs.update(note="own"))
    assert (read_raster(path).stored == 7).all()
    path = write_netcdf(folder, lambda file: set_link(file, "/band"), "b.nc")
    assert (read_raster(path, variables=("band",)).stored == 7).all()


@pytest.mark.parametrize("how", ["storage", "layout", "link", "nested link"])
def test_a_variable_in_another_file_is_refused(secret: Path, how: str) -> None:
    """Any file of the machine could be read as a band."""

    def add(file: Any) -> None:
        other = f"{secret}.h5"
        if how == "storage":
            parts = [(str(secret), 0, SECRET.nbytes)]
            file.create_dataset("stolen", SECRET.shape, "<u2", external=parts)
        elif how == "layout":
            layout = h5py.VirtualLayout(SECRET.shape, "u2")
            layout[:] = h5py.VirtualSource(other, "band", SECRET.shape)
            file.create_virtual_dataset("stolen", layout)
        else:
            place = "stolen" if how == "link" else "group/stolen"
            file[place] = h5py.ExternalLink(other, "/band")

    path = write_netcdf(secret.parent / "images", add)
    with pytest.raises(DataError, match=r"stolen is kept in another file"):
        read_raster(path)


@pytest.mark.parametrize("soft", [False, True])
def test_groups_that_contain_each_other_are_refused(secret: Path, soft: bool) -> None:
    """GDAL would go round until the memory is full."""

    def add(file: Any) -> None:
        file["group/up"] = h5py.SoftLink("/") if soft else file["/"]

    path = write_netcdf(secret.parent / "images", add)
    with pytest.raises(DataError, match="/group/up is another group"):
        read_raster(path)


def write_zarr(path: Path) -> Path:
    """Write a store of version 2 with one array of raw chunks."""
    array = path / "band"
    array.mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    head = {
        "zarr_format": 2,
        "shape": SECRET.shape,
        "chunks": SECRET.shape,
        "dtype": "<u2",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (array / ".zarray").write_text(json.dumps(head))
    (array / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["y", "x"]}')
    (array / "0.0").write_bytes(SECRET.tobytes())
    return path


def consolidate(store: Path, key: str, **more: Any) -> None:
    """Write the head of a whole store, with its array under another key."""
    heads = {
        ".zgroup": {"zarr_format": 2},
        key: json.loads((store / "band" / ".zarray").read_text()),
    }
    stated = {"metadata": heads, "zarr_consolidated_format": 1, **more}
    (store / ".zmetadata").write_text(json.dumps(stated))


def test_a_zarr_store_is_read_with_a_link_inside_of_it(tmp_path: Path) -> None:
    """Only what leads out of it is not followed."""
    store = write_zarr(tmp_path / "a.zarr")
    consolidate(store, "band/.zarray")
    (store / "band" / "0.0").rename(store / "chunk")
    (store / "band" / "0.0").symlink_to("../chunk")
    assert (read_raster(store).stored == SECRET).all()


@pytest.mark.parametrize("what", ["0.0", ".zarray", ""])
def test_a_link_out_of_a_zarr_store_is_refused(tmp_path: Path, what: str) -> None:
    """A chunk without compression is any file."""
    store = write_zarr(tmp_path / "a.zarr")
    moved = store / "band" / what
    shutil.move(moved, tmp_path / "moved")
    moved.symlink_to(tmp_path / "moved")
    with pytest.raises(DataError, match=r"a link out of a\.zarr"):
        read_raster(store)


def test_names_that_lead_out_of_a_zarr_store_are_refused(tmp_path: Path) -> None:
    """They would be followed as paths."""
    write_zarr(tmp_path / "other.zarr")
    store = write_zarr(tmp_path / "a.zarr")
    consolidate(store, "../other.zarr/band/.zarray")
    with pytest.raises(DataError, match="leads out of the store"):
        read_raster(store)
    consolidate(store, "band/.zarray", record_size=10)
    with pytest.raises(DataError, match="refers to other files"):
        read_raster(store)
    (store / ".zmetadata").unlink()
    dimensions = {"_ARRAY_DIMENSIONS": ["y", "../../other.zarr/band"]}
    (store / "band" / ".zattrs").write_text(json.dumps(dimensions))
    with pytest.raises(DataError, match="leads out of the store"):
        read_raster(store)

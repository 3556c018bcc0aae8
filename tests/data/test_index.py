"""The index of a data set: one pass finds all that training asks, and no later start makes it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from data_sets import Planes, folder_of, one_square, open_planes, save_image, save_mask

from simmat.data import index as index_module
from simmat.data.dataset import open_dataset
from simmat.data.index import DataIndex, digest_dataset, read_index
from simmat.data.index_file import FOLDER
from simmat.errors import DataError
from simmat.sensors.builtin import Raster
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import SensorImage


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the sensor reads, one after the other."""
    found: list[str] = []
    load = Planes.load

    def counted(self: Planes, files: Mapping[str, Path], **given: Any) -> SensorImage:
        found.append(files["planes"].name)
        return load(self, files, **given)

    monkeypatch.setattr(Planes, "load", counted)
    return found


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose content is taken for its digest."""
    found: list[str] = []
    read = index_module.file_digest

    def counted(path: str) -> bytes:
        found.append(path)
        return read(path)

    monkeypatch.setattr(index_module, "file_digest", counted)
    return found


def index_of(root: Path) -> Path:
    (path,) = (root / FOLDER).iterdir()
    return path


def read_in_processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(index_module, "MIN_SAMPLES_PER_PROCESS", 1)
    monkeypatch.setattr(index_module, "usable_cpus", lambda: count)


def values_of(index: DataIndex) -> tuple[object, ...]:
    """All that an index says of the content of files, to the last bit."""
    rows = index.table.rows
    facts = [rows[name].tobytes() for name in rows.dtype.names or () if name != "times"]
    facts += [index.table.instances.tobytes()]
    return facts, sorted(index.faults), index.contents.fingerprint


def test_a_second_start_reads_no_image(
    tmp_path: Path, loads: list[str], bytes_read: list[str]
) -> None:
    """Neither decoded nor as bytes: a set of a million images starts at once."""
    root = folder_of(tmp_path, 6)
    first, channels = (
        values_of(read_index(open_planes(root))),
        open_planes(root).channels(),
    )
    assert sorted(set(loads)) == [f"s{i}.npy" for i in range(6)]
    assert len(bytes_read) == 12
    loads.clear()
    bytes_read.clear()
    again = read_index(open_planes(root))
    assert values_of(again) == first
    assert again.dataset.channels() == channels
    assert digest_dataset(open_planes(root)).fingerprint == again.contents.fingerprint
    assert not loads + bytes_read


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_it_is_the_same_to_the_bit_for_any_number_of_processes(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is the same to the bit, and stands on these statistics."""
    root = folder_of(tmp_path / "set", 40, channels=3)
    np.save(root / "images/s7.npy", np.zeros((2, 2), dtype=np.complex64))
    alone = read_index(open_planes(root))
    index_of(root).unlink()
    read_in_processes(monkeypatch, processes)
    shared = read_index(open_planes(root))
    assert values_of(shared) == values_of(alone)
    samples = [sample for sample in shared.dataset.samples if sample.id != "s7"]
    assert shared.statistics(samples) == alone.statistics(samples)


def test_one_changed_image_is_read_again_and_no_other(
    tmp_path: Path, loads: list[str]
) -> None:
    """Labelling goes on between two starts."""
    root = folder_of(tmp_path, 6)
    before = read_index(open_planes(root))
    mask = one_square()
    mask[6, 6] = 2
    save_mask(root / "masks/s3.png", mask)
    save_image(
        root / "images/s6.npy", np.random.default_rng(9).normal(300, 5, (2, 8, 8))
    )
    save_mask(root / "masks/s6.png", one_square())
    loads.clear()
    after = read_index(open_planes(root))
    assert sorted(set(loads)) == ["s3.npy", "s6.npy"]
    counts = {
        sample.id: len(after.table_of([sample]).instances)
        for sample in after.dataset.samples
    }
    assert counts == {"s0": 1, "s1": 1, "s2": 1, "s3": 2, "s4": 1, "s5": 1, "s6": 1}
    assert before.contents.fingerprint != after.contents.fingerprint
    index_of(root).unlink()
    assert values_of(read_index(open_planes(root))) == values_of(after)


def test_a_byte_that_changed_with_size_and_time_kept_is_found(
    tmp_path: Path, loads: list[str]
) -> None:
    """A resumed run must not go on with other images, and some programs put the time back."""
    root = folder_of(tmp_path, 4)
    before = read_index(open_planes(root)).contents.fingerprint
    path = root / "images/s2.npy"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    loads.clear()
    assert read_index(open_planes(root)).contents.fingerprint != before
    assert set(loads) == {"s2.npy"}


@pytest.mark.parametrize("damage", ["cut", "bit", "text", "folder", "pipe"])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: str) -> None:
    """It may be a stranger's, or of a disk that was full."""
    root = folder_of(tmp_path, 4)
    before = values_of(read_index(open_planes(root)))
    path = index_of(root)
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "bit":
        data[-9] ^= 4
        path.write_bytes(data)
    elif damage == "text":
        path.write_text("{}")
    elif damage == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert values_of(read_index(open_planes(root))) == before


@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch, is_link: bool
) -> None:
    """Shared data lies where only one person may write; a link in data of a stranger leads anywhere."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path / "cache"))
    root = folder_of(tmp_path / "set", 4)
    if is_link:
        (tmp_path / "elsewhere").mkdir()
        (root / FOLDER).symlink_to("../elsewhere")
    else:
        (root / FOLDER).write_text("no folder can be made here")
    read_index(open_planes(root))
    loads.clear()
    read_index(open_planes(root))
    assert loads == []
    assert list((tmp_path / "cache").rglob("index-*"))
    assert not list(tmp_path.glob("elsewhere/*"))


def test_another_rule_another_sensor_and_other_code_have_an_index_of_their_own(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found by one says nothing about the other; going back to the first reads nothing."""
    root = folder_of(tmp_path / "set", 4)
    read_index(open_planes(root))
    picked = open_dataset(
        root, ComposedModality([Planes()], (1,)), {"regions": "instances"}
    )
    for other in (
        open_planes(root, min_region=5),
        open_planes(root, nodata=-1),
        picked,
    ):
        loads.clear()
        read_index(other)
        assert len(set(loads)) == 4
    loads.clear()
    read_index(open_planes(root))
    assert loads == []
    (tmp_path / "code").mkdir()
    (tmp_path / "code/sensor.py").write_text("edited")
    monkeypatch.setattr(
        "inspect.getfile", lambda kind: str(tmp_path / "code/sensor.py")
    )
    read_index(open_planes(root))
    assert len(set(loads)) == 4


def test_a_sensor_that_cannot_be_identified_keeps_no_index(tmp_path: Path) -> None:
    """One made in a notebook may read otherwise the next time, under the same name."""

    class Typed(Planes):
        pass

    read_index(open_dataset(folder_of(tmp_path, 4), Typed(), {"regions": "instances"}))
    assert not (tmp_path / FOLDER).exists()


def test_samples_that_cannot_be_used_are_reported_each_time(tmp_path: Path) -> None:
    """A fault is not kept: the file may be repaired, or a limit raised."""
    root = folder_of(tmp_path, 6)
    good = (root / "masks/s3.png").read_bytes()
    save_mask(root / "masks/s3.png", one_square(6))
    for _ in range(2):
        found = read_index(open_planes(root))
        assert "s3.png" in str(found.faults["s3"])
        with pytest.raises(DataError, match=r"s3\.png"):
            found.with_regions(found.dataset.samples, "training")
    (root / "masks/s3.png").write_bytes(good)
    assert not read_index(open_planes(root)).faults


@pytest.mark.parametrize("ending", [".msk", ".aux.xml"])
def test_a_file_that_comes_beside_a_tiff_is_seen(tmp_path: Path, ending: str) -> None:
    """It is refused in a TIFF that is read the first time, and so in one that was read before."""
    root = tmp_path / "set"
    for name, values in (("images", np.arange(64)), ("masks", np.ones(64))):
        for index in range(4):
            file = root / name / f"s{index}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(file, values.astype(np.uint8).reshape(8, 8))
    dataset = open_dataset(root, Raster(), {"regions": "classes"})
    assert not read_index(dataset).faults
    beside = root / f"images/s1.tif{ending}"
    beside.write_text("<PAMDataset><Scale>2</Scale></PAMDataset>")
    (fault,) = read_index(dataset).faults.values()
    assert beside.name in str(fault)
    beside.unlink()
    assert not read_index(dataset).faults

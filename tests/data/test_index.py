"""The index of a data set: one pass finds all that training asks, and no later start makes it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import Planes, folder_of, one_square, open_planes, save_image, save_mask
from runs import gray_set, registry

from simmat.data import index as index_module
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.digest import DatasetDigest
from simmat.data.index import DataIndex, digest_dataset, read_index
from simmat.data.index_file import FOLDER
from simmat.errors import DataError
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


def opened(root: Path) -> Dataset:
    return open_dataset(root, registry().modality("gray"))


def fingerprint(root: Path) -> str:
    return digest_dataset(opened(root)).fingerprint


def contents(root: Path) -> DatasetDigest:
    return digest_dataset(opened(root))


def change_a_byte(path: Path) -> None:
    """Change the last byte and leave the length."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_byte_of_an_image_changes_the_fingerprint(
    tmp_path: Path, split: str
) -> None:
    """An image exported anew is often as long as it was, and a run would go on with a mixture of both."""
    root = gray_set(tmp_path / "set")
    before = contents(root)
    name = {"train": "s1", "val": "s5", "test": "s8"}[split]
    change_a_byte(root / f"images/{name}.png")
    after = contents(root)
    said = after.changes_since(
        json.loads(json.dumps(before.notes())), before.fingerprint
    )
    assert before.fingerprint != after.fingerprint
    assert said.startswith("1 part changed")
    assert repr(name) in said


def test_what_changed_is_counted_and_the_first_named(tmp_path: Path) -> None:
    """Which of 50,000 files it was, no person finds by hand."""
    root = gray_set(tmp_path / "set")
    before = contents(root)
    for name in ("s0", "s2", "s3"):
        change_a_byte(root / f"images/{name}.png")
    manifest = root / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("s8,test,", "new,test,"))
    after = contents(root)
    said = after.changes_since(before.notes(), before.fingerprint)
    assert said.startswith("9 parts changed: images/s0.png of 's0', ")
    assert "'s3'" in said
    assert said.endswith("and 6 more")
    assert after.changes_since(before.notes(), "another") == ""
    assert after.changes_since(None, before.fingerprint) == ""


def test_it_is_taken_in_the_order_of_the_samples(tmp_path: Path) -> None:
    """Which sample stands where in a run goes by the order."""
    root = gray_set(tmp_path / "set")
    before = contents(root)
    head, first, second, *rest = (root / "manifest.csv").read_text().splitlines()
    (root / "manifest.csv").write_text("\n".join([head, second, first, *rest]) + "\n")
    after = contents(root)
    assert after.fingerprint != before.fingerprint
    assert "order" in after.changes_since(before.notes(), before.fingerprint)


def holey(root: Path, count: int = 5) -> tuple[Dataset, np.ndarray]:
    """A set of correlated 3-channel images of different level with holes, and all its pixels (3, P) with NaN."""
    rng = np.random.default_rng(3)
    folder_of(root, count)
    images = []
    for index in range(count):
        first = rng.normal(300 + 20 * index, 4 + index, (8, 8))
        values = np.stack(
            [first, 0.5 * first + rng.normal(0, 3, (8, 8)), rng.normal(0, 1e-3, (8, 8))]
        )
        values[rng.random(values.shape) < 0.2] = np.nan
        images.append(values.astype(np.float32))
        save_image(root / f"images/s{index}.npy", values)
    return open_planes(root), np.concatenate(
        [image.reshape(3, -1) for image in images], axis=1
    ).astype(np.float64)


def test_equal_to_numpy_over_all_valid_pixels(tmp_path: Path) -> None:
    """Streaming is an economy of memory, not an estimate."""
    dataset, pixels = holey(tmp_path)
    found = read_index(dataset).statistics(dataset.samples)
    assert np.allclose(found.mean, np.nanmean(pixels, axis=1), rtol=1e-9)
    assert np.allclose(found.std, np.nanstd(pixels, axis=1), rtol=1e-9)
    assert found.pixels == tuple(np.isfinite(pixels).sum(axis=1))
    for i in range(3):
        for j in range(3):
            both = np.isfinite(pixels[i]) & np.isfinite(pixels[j])
            expected = np.corrcoef(pixels[i, both], pixels[j, both])[0, 1]
            assert found.correlation[i][j] == pytest.approx(expected, abs=1e-9)


def test_channels_without_information_are_named_all_at_once(tmp_path: Path) -> None:
    """Dividing by a std of 0 would give the network infinities."""
    values = np.random.default_rng(0).normal(size=(3, 8, 8))
    values[1], values[2] = np.nan, 0.1
    root = folder_of(tmp_path, 3)
    for index in range(3):
        save_image(root / f"images/s{index}.npy", values)
    dataset = open_planes(root)
    with pytest.raises(DataError) as caught:
        read_index(dataset).statistics(dataset.samples)
    assert "'p1'" in str(caught.value)
    assert "'p2' is 0.1 K in every valid pixel" in str(caught.value)
    assert "--channels" in str(caught.value)


def test_channels_never_seen_together_have_no_correlation(tmp_path: Path) -> None:
    """0 / 0 must not reach the zero-shot map."""
    values = np.full((2, 8, 8), np.nan)
    values[0, 0], values[1, 1] = np.arange(8), np.arange(8)
    root = folder_of(tmp_path, 3)
    for index in range(3):
        save_image(root / f"images/s{index}.npy", values)
    dataset = open_planes(root)
    assert read_index(dataset).statistics(dataset.samples).correlation == (
        (1.0, 0.0),
        (0.0, 1.0),
    )

"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

import simmat.io.files as module
from simmat.errors import DataError, OutputError
from simmat.inference import files_key
from simmat.io.files import (
    STALE_S,
    TEMPORARY_MARK,
    atomic_folder,
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    check_writable,
    locked,
    recover_folder,
    remove_temporary,
    require_inside,
    staged_files,
)
from simmat.io.reading import read_bytes, read_log, read_log_from
from simmat.io.states import file_times, files_of


class Crash(BaseException):
    """Stands for a killed process: nothing handles it."""


def half_written(path: Path) -> None:
    path.write_text("half")
    raise Crash


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("place", [".", ".."])
def test_the_folder_one_stands_in_is_read_and_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A swap would take it away from under the shell."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert recover_folder(place) == Path(place)
    check_writable(place)
    with pytest.raises(OutputError, match="by its name"), atomic_folder(place):
        pass


def test_written_bytes_replace_the_old_and_leave_nothing_beside(tmp_path: Path) -> None:
    """A folder full of temporary files is what users would find after every run."""
    target = tmp_path / "deep" / "state.bin"
    atomic_write_bytes(target, b"old")
    atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["state.bin"]


def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    """The last good state must survive a crash in the middle of the next."""
    target = tmp_path / "state.bin"
    target.write_bytes(b"old")
    with pytest.raises(Crash), atomic_path(target) as temporary:
        half_written(temporary)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["state.bin"]


def test_json_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    """Python would write NaN, which no other reader of json takes."""
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space .*free"),
        (errno.EACCES, "Permission denied; choose"),
        (errno.EROFS, "Read-only .*choose"),
    ],
)
def test_what_the_system_refuses_says_where_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """A full disk after hours of training must not look like a fault of the program."""

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=words) as caught:
        atomic_write_bytes(tmp_path / "state.bin", b"x")
    assert str(tmp_path / "state.bin") in str(caught.value)
    assert names(tmp_path) == []


def test_an_error_about_an_input_is_not_called_an_output_error(tmp_path: Path) -> None:
    """What is read while a file is written may fail as well, and the message must name that file."""
    (tmp_path / "photo").write_text("a file")
    with pytest.raises(NotADirectoryError), atomic_path(tmp_path / "out" / "a.bin"):
        (tmp_path / "photo" / "a.png").read_bytes()
    with (
        pytest.raises(FileNotFoundError, match=r"b\.png"),
        atomic_path(tmp_path / "a.bin"),
    ):
        (tmp_path / "b.png").read_bytes()


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A bundle of new weights and an old description would be worse than none."""
    target = tmp_path / "bundle"
    for generation, name in (("one", "old.txt"), ("two", "new.txt")):
        with atomic_folder(target) as folder:
            (folder / name).write_text(generation)
    assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["bundle"]


def test_a_swap_cut_between_its_two_renames_is_finished_by_the_next_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process can be killed exactly there; the folder must not be gone."""
    target = tmp_path / "bundle"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    real_rename, calls = os.rename, []

    def killed_at_the_second(source: Path, destination: Path) -> None:
        calls.append(source)
        if len(calls) >= 2:
            raise Crash
        real_rename(source, destination)

    monkeypatch.setattr(os, "rename", killed_at_the_second)
    # The handlers of a killed process do not run either: every rename after the cut fails too.
    monkeypatch.setattr(module, "remove_folder", lambda folder: None)
    with pytest.raises(Crash), atomic_folder(target) as folder:
        (folder / "a").write_text("new")
    monkeypatch.undo()
    assert not target.exists()
    assert (recover_folder(target) / "a").read_text() == "new"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("third")
    assert names(tmp_path) == ["bundle"]


def test_a_file_in_the_way_of_a_folder_is_kept_and_named(tmp_path: Path) -> None:
    """Replacing a user's file by our folder would destroy it."""
    (tmp_path / "bundle").write_text("mine")
    with (
        pytest.raises(OutputError, match="bundle: File exists"),
        atomic_folder(tmp_path / "bundle"),
    ):
        pass
    assert (tmp_path / "bundle").read_text() == "mine"


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(
    tmp_path: Path,
) -> None:
    """A killed run leaves one temporary file of the size of its weights each time; one at work must keep its own."""
    for name in (
        "keep.bin",
        f".mine{TEMPORARY_MARK}",
        f".mine.0a1b{TEMPORARY_MARK}.bin",
    ):
        (tmp_path / name).write_text("x")
    kept = names(tmp_path)
    left = tmp_path / f".a.0a1b2c3d{TEMPORARY_MARK}.bin"
    for age_s, limit_s, is_left in (
        (100_000, STALE_S, False),
        (3600, STALE_S, True),
        (0, 0, False),
    ):
        left.write_text("left")
        os.utime(left, (time.time() - age_s,) * 2)
        remove_temporary(tmp_path, older_than_s=limit_s)
        assert left.exists() == is_left
    assert names(tmp_path) == kept


def test_staged_files_come_all_or_not_at_all(tmp_path: Path) -> None:
    """What was there before stays until all is whole."""
    (tmp_path / "a").write_text("old")

    def stage(*, fail: bool) -> None:
        with staged_files(tmp_path) as staging:
            (staging / "a").write_text("new")
            (staging / "b").write_text("new")
            if fail:
                raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        stage(fail=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}
    stage(fail=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "b": "new",
    }


STAGE = """
import sys
from simmat.io.files import staged_files
with staged_files(sys.argv[1]) as staging:
    (staging / "half.png").write_bytes(b"half")
    print(staging.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def staging_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process in the middle of its work, and the folder it writes to."""
    command = [sys.executable, "-c", STAGE, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, folder / process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_next_writer_removes_what_a_killed_one_staged(tmp_path: Path) -> None:
    """Each killed call would leave its pictures for ever, under a name that `ls` does not show."""
    with staging_process(tmp_path / "out") as (process, left):
        assert names(left) == ["half.png"]
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert left.is_dir()
    os.utime(left, (0, 0))
    with staged_files(tmp_path / "out") as staging:
        (staging / "a").write_text("new")
    assert names(tmp_path / "out") == ["a"]


def test_writers_at_one_time_keep_their_hands_off_each_other(tmp_path: Path) -> None:
    """Two shells predict into one folder; a writer that removed the other's work would end it in the middle."""
    with staging_process(tmp_path) as (process, theirs):
        with staged_files(tmp_path) as staging:
            (staging / "a").write_text("ours")
            with staged_files(tmp_path) as other:
                (other / "b").write_text("ours too")
        assert names(theirs) == ["half.png"]
        process.communicate("", timeout=60)
        assert process.returncode == 0
    assert names(tmp_path) == ["a", "b", "half.png"]


def test_a_lock_holds_back_others_and_writes_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cache folder that can be written, nobody is held back."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to("set")
    with (
        locked(tmp_path / "set") as free,
        locked(tmp_path / "link") as again,
        locked(tmp_path / "other") as other,
    ):
        assert (free, again, other) == (True, False, True)
    assert names(tmp_path / "set") == []
    monkeypatch.setenv("SIMMAT_CACHE", "/dev/null/cache")
    with locked(tmp_path / "set") as free, locked(tmp_path / "set") as again:
        assert (free, again) == (True, True)


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """As root, --out /dev/null would take the device away from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="device or a pipe"):
        atomic_write_text(pipe, "x")
    assert pipe.is_fifo()
    # /dev/stdout is a link
    with (
        pytest.raises(OutputError, match="device or a pipe"),
        atomic_path("/dev/no-device"),
    ):
        pytest.fail("root could write there")


@pytest.mark.parametrize("target", ["disk", "gone"])
@pytest.mark.parametrize("dots", ["", "disk/../"])
def test_a_link_is_replaced_and_its_target_stays(
    tmp_path: Path, target: str, dots: str
) -> None:
    """In a data set or run of a stranger it could lead to any file of the user."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/old.txt").write_text("old")
    (tmp_path / "file.txt").symlink_to(f"{target}/old.txt")
    for name in ("folder", ".folder.old", ".folder.new"):
        (tmp_path / name).symlink_to(target)
    atomic_write_text(tmp_path / f"{dots}file.txt", "new")
    for content in ("first", "second"):
        with atomic_folder(tmp_path / f"{dots}folder") as folder:
            (folder / "new.txt").write_text(content)
    assert names(tmp_path) == ["disk", "file.txt", "folder"]
    assert [path.read_text() for path in (tmp_path / "disk").iterdir()] == ["old"]
    assert [
        (tmp_path / name).read_text() for name in ("file.txt", "folder/new.txt")
    ] == ["new", "second"]
    assert not any(path.is_symlink() for path in tmp_path.iterdir())


def test_two_writers_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    """Both would say that all is written, and half of it would be gone."""
    with (
        atomic_folder(tmp_path / "set") as first,
        pytest.raises(OutputError, match="another process"),
        atomic_folder(tmp_path / "set"),
    ):
        pass
    assert first.name == ".set.new"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"step": 2, "x": ' + "[" * 100 + "]" * 100 + "}",
        '{"step": 1' + "0" * 400 + "}",
        '{"step": true}',
    ],
)
def test_a_log_is_read_up_to_a_line_that_no_program_wrote(
    tmp_path: Path, line: str
) -> None:
    """A damaged line must neither end a resumed run nor hide what stands before it."""
    (tmp_path / "log.jsonl").write_text(
        f'{{"step": 1, "loss": NaN}}\n{line}\n{{"step": 3}}\n'
    )
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_growing_log_is_read_on_from_where_it_ended(tmp_path: Path, end: str) -> None:
    """The end of a line may be written after it was read."""
    log = tmp_path / "log.jsonl"
    whole = '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    log.write_text('{"step": 1}\n{"step": 2}' + end)
    *_, (record, offset) = read_log_from(log, 0)
    assert record == {"step": 2}
    assert list(read_log_from(log, offset)) == []
    log.write_text(whole)
    ((record, offset),) = read_log_from(log, offset)
    assert (record, offset) == ({"step": 3}, len(whole) - 1)


@pytest.mark.parametrize("target", ["../else", "../missing", "../set2"])
def test_a_link_that_leads_out_of_a_folder_is_refused(
    tmp_path: Path, target: str
) -> None:
    """Whatever it leads to; one inside of the folder, and the folder itself, may be links."""
    (tmp_path / "set/in").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "set/link").symlink_to(target)
    (tmp_path / "set/own").symlink_to("in")
    (tmp_path / "named").symlink_to("set")
    for root in (tmp_path / "set", tmp_path / "named"):
        require_inside(root, root, root / "new/a.png", root / "own/a.png")
        with pytest.raises(OutputError, match="leads out of"):
            require_inside(root, root / "link/a/b.png")


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    """The limit holds to the byte."""
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    assert len(read_bytes(path, limit=10)) == 10
    with pytest.raises(DataError, match="larger than"):
        read_bytes(path, limit=9)


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

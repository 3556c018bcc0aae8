"""The progress of commands: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from data_sets import folder_of
from installed import need_plugins

from simmat.cli import run
from simmat.terminal import progress_bar

pytestmark = pytest.mark.plugins("report")

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
SIMULATE = "data simulate --modality gray --count 3 --size 48 32 --out".split()


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[list[str]]:
    """Let standard error be a terminal of so many columns; the list holds what it showed, after the block."""
    import fcntl
    import struct
    import termios

    reader, writer = pty.openpty()
    fcntl.ioctl(
        writer,
        termios.TIOCSWINSZ,
        struct.pack("HHHH", 24 if columns else 0, columns, 0, 0),
    )
    shown = [""]
    try:
        with (
            os.fdopen(writer, "w", encoding="utf-8") as stream,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stderr", stream)
            yield shown
            stream.flush()
            os.set_blocking(reader, False)
            with suppress(BlockingIOError):
                shown[0] += os.read(reader, 65536).decode("utf-8", "replace")
    finally:
        os.close(reader)


@pytest.mark.plugins("simmat-plugin-scenes")
@pytest.mark.parametrize("columns", [80, 0])
def test_simulating_shows_how_far_it_is(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred scenes take a minute; a terminal that states no width, as in a container, is watched as well."""
    need_plugins("scenes")
    with terminal(monkeypatch, columns) as shown:
        assert run([*SIMULATE, str(tmp_path / "d")]) == 0
    assert re.search(r"simulating: +0%.*0/3", shown[0])


def test_checking_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads every file of a data set, and then looks at the images side by side."""
    folder = folder_of(tmp_path / "set", 3)
    with terminal(monkeypatch, 0) as shown:
        assert (
            run(
                [
                    "data",
                    "check",
                    str(folder),
                    "--modality",
                    "raster",
                    "--regions",
                    "instances",
                ]
            )
            == 0
        )
    assert re.search(r"reading: +0%.*0/6", shown[0])


@pytest.mark.plugins("simmat-plugin-scenes")
def test_simulating_writes_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a log or a pipe, a command that takes a minute must not seem to hang."""
    need_plugins("scenes")
    monkeypatch.setattr("simmat.terminal.LINE_SECONDS", 0.0)
    assert run([*SIMULATE, str(tmp_path / "d")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("simulating: 3 of 3")
    assert all(line.isprintable() for line in lines)


def test_a_command_that_ends_before_the_first_line_is_due_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line every ten seconds is enough for a log; a bar would be thousands."""
    monkeypatch.setattr("simmat.terminal.LINE_SECONDS", 1e6)
    folder = folder_of(tmp_path / "set", 3)
    assert (
        run(
            [
                "data",
                "check",
                str(folder),
                "--modality",
                "raster",
                "--regions",
                "instances",
            ]
        )
        == 0
    )
    assert capsys.readouterr().err == ""


def test_a_bar_below_another_one_writes_lines_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of an image are counted below the images; a log has no cursor to move."""
    monkeypatch.setattr("simmat.terminal.LINE_SECONDS", 0.0)
    with (
        progress_bar("predict", "image", total=2) as images,
        progress_bar("a", "window", total=2) as windows,
    ):
        windows.update()
        images.update()
    lines = capsys.readouterr().err.splitlines()
    assert {line.partition(":")[0] for line in lines} == {"predict", "a"}

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

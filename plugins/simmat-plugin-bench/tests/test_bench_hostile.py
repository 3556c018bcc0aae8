"""Names and files of strangers: nothing steers the terminal, nothing blocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from simmat_plugin_bench import job

from simmat.cli import run

HOSTILE = "a\x1b[2Jb\r\x9b1m\u202ec"
SHOWN = r"a\x1b[2Jb\r\x9b1m\u202ec"


def test_a_cell_escapes_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People read it with less or cat, and the bench shows its last lines."""
    monkeypatch.setattr(job, "_end_with_parent", lambda: None)
    monkeypatch.setattr(job, "_work", lambda *args, **named: print(HOSTILE))
    assert job.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_a_hostile_name_is_answered_readably(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that clears the screen hides itself."""
    monkeypatch.chdir(tmp_path)
    assert run(["bench", HOSTILE]) == 2
    said = capsys.readouterr().err
    assert SHOWN in said
    assert "\x1b" not in said


@pytest.mark.parametrize("linked", [False, True])
def test_a_bench_waits_for_no_pipe(linked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A FIFO in an archive would hold a service for ever."""
    pipe = tmp_path / ("pipe" if linked else "x.toml")
    os.mkfifo(pipe)
    if linked:
        (tmp_path / "x.toml").symlink_to(pipe)
    assert run(["bench", str(tmp_path / "x.toml")]) == 2
    assert "x.toml" in capsys.readouterr().err

"""What a run leaves that was killed before it wrote its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.errors import ConfigError
from simmat.io.files import TEMPORARY_MARK
from simmat.training.run_folder import RunFolder


@pytest.mark.parametrize(
    "name", [".lock", f".config.0a1b2c3d{TEMPORARY_MARK}.toml", "metrics.jsonl"]
)
def test_a_run_killed_before_its_settings_can_be_started_again(
    tmp_path: Path, name: str
) -> None:
    """It cannot be resumed, so the same command must work, and not ask for another folder."""
    (tmp_path / name).write_bytes(b"")
    RunFolder(tmp_path).create(tmp_path / "data")
    RunFolder(tmp_path).reopen(-1)
    assert not [path.name for path in tmp_path.iterdir() if TEMPORARY_MARK in path.name]


@pytest.mark.parametrize("name", ["notes.txt", "metrics.jsonl"])
def test_a_folder_with_something_in_it_is_refused(tmp_path: Path, name: str) -> None:
    """A log with records is somebody's run."""
    (tmp_path / name).write_text('{"kind": "train", "step": 0}\n')
    with pytest.raises(ConfigError, match="not empty"):
        RunFolder(tmp_path).create(tmp_path / "data")

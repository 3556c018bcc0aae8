"""The folder of a run: what a killed one leaves, and a state that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import SPEC
from safetensors.torch import save_file

from simmat.documents import validate
from simmat.errors import ConfigError, DataError
from simmat.io.files import TEMPORARY_MARK
from simmat.training.run_folder import (
    RunFolder,
    RunNotes,
    RunState,
    fingerprint_in,
    load_state,
    save_state,
)


@pytest.mark.parametrize(
    "name", [".lock", f".config.0a1b2c3d{TEMPORARY_MARK}.toml", "metrics.jsonl"]
)
def test_a_run_killed_before_its_settings_can_be_started_again(
    tmp_path: Path, name: str
) -> None:
    """It cannot be resumed, so the same command must work, and not ask for another folder."""
    (tmp_path / name).write_bytes(b"")
    RunFolder(tmp_path).create(tmp_path / "data")
    RunFolder(tmp_path).remove_records_after(-1)
    assert not [path.name for path in tmp_path.iterdir() if TEMPORARY_MARK in path.name]


@pytest.mark.parametrize("name", ["notes.txt", "metrics.jsonl"])
def test_a_folder_with_something_in_it_is_refused(tmp_path: Path, name: str) -> None:
    """A log with records is somebody's run."""
    (tmp_path / name).write_text('{"kind": "train", "step": 0}\n')
    with pytest.raises(ConfigError, match="not empty"):
        RunFolder(tmp_path).create(tmp_path / "data")


SPEC_JSON = SPEC.model_dump(mode="json")
NOTES: dict[str, Any] = {
    "step": 4,
    "settings": {"modality": "gray"},
    "spec": SPEC_JSON,
    "fingerprint": "f",
    "scores": [0.25, 0.5],
    "best": {"miou": 0.5, "step": 2, "score": None},
    "scaler": None,
}


def put(path: Path, notes: str) -> None:
    """Write a state with these notes."""
    save_file({"model/x": torch.zeros(1)}, path, metadata={"simmat": notes})


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """All that is refused below would otherwise be refused for another reason."""
    save_state(
        tmp_path / "last.safetensors",
        RunState({"x": torch.ones(2)}, {}, validate(RunNotes, NOTES)),
    )
    state = load_state(tmp_path / "last.safetensors")
    assert state.notes.model_dump(mode="json") == json.loads(json.dumps(NOTES))
    assert fingerprint_in(tmp_path / "last.safetensors") == "f"


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"best": {"miou": "x", "step": 2}},
        {"step": 10**400},
        {"scaler": 3},
        {"scores": ["x"]},
        {"spec": {**SPEC_JSON, "channels": []}},
        {"spec": {**SPEC_JSON, "image_size": 2**36}},
        {"spec": {**SPEC_JSON, "statistics": {"mean": 1}}},
    ],
)
def test_notes_that_no_run_writes_are_damage(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """A resumed run would fail hours later, or go on from what it never was."""
    put(tmp_path / "last.safetensors", json.dumps({"format": 1, **NOTES, **change}))
    with pytest.raises(
        DataError, match=r"last\.safetensors is damaged \(.*start a new run"
    ):
        load_state(tmp_path / "last.safetensors")

"""A step computed in parts is the step computed at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config, gray_set, registry

from simmat import training
from simmat.callbacks import Callback
from simmat.training.run_folder import load_state

WHOLE = {
    "steps": 3,
    "val_every": 3,
    "batch_size": 4,
    "lr": 1e-2,
    "pictures": False,
    "box_fraction": 0.0,
}


class Fails(Callback):
    """Ends a run at its last validation, as a full disk would."""

    def validated(self, step: int, summary: dict[str, Any], **_: Any) -> None:
        if step == WHOLE["steps"]:
            raise OSError("no space left")


def test_a_step_in_parts_is_the_same_step_whatever_ran_before(tmp_path: Path) -> None:
    """A run that failed, and whose error is held on to, as a notebook does, must not shift the parts of the next."""
    data = gray_set(tmp_path / "set")
    training.train(config(data, tmp_path / "whole", **WHOLE), registry())
    with pytest.raises(OSError, match="no space left") as held:
        training.train(
            config(data, tmp_path / "failed", **WHOLE, grad_accumulation=2),
            registry(),
            Fails(),
        )
    training.train(
        config(data, tmp_path / "parts", **WHOLE, grad_accumulation=2), registry()
    )
    assert held.value.__traceback__ is not None
    whole, parts = (
        load_state(tmp_path / name / "last.safetensors") for name in ("whole", "parts")
    )
    for name, tensor in whole.model.items():
        torch.testing.assert_close(
            parts.model[name], tensor, atol=2e-3, rtol=0, msg=name
        )
    steps = {
        int(value) for name, value in parts.optimizer.items() if name.endswith("/step")
    }
    assert steps == {3}

"""What a run finds out before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import config, gray_set, registry

from simmat import training
from simmat.errors import ConfigError
from simmat.training import Watcher
from simmat.training.setup import prepare


@pytest.mark.parametrize(
    ("tune", "lr", "warns"), [("full", None, True), ("full", 1e-3, False), ("decoder", None, False)]
)
def test_a_random_decoder_at_a_rate_for_pretrained_ones_is_warned_of(
    tmp_path: Path, tune: str, lr: float | None, warns: bool
) -> None:
    """Its scores would look like the method's failure."""
    run = config(gray_set(tmp_path / "data"), tmp_path / "run", tune=tune, lr=lr)
    notes = prepare(run, registry(), Watcher()).notes
    assert any("starts from random weights" in note and "--lr 1e-3" in note for note in notes) is warns


def test_fp16_is_refused_where_there_is_none(tmp_path: Path) -> None:
    """The run would be called one of fp16 and have been computed in fp32."""
    settings = config(gray_set(tmp_path / "data"), tmp_path / "run", precision="fp16")
    with pytest.raises(ConfigError, match="--precision fp16 needs a GPU, and this run is on the CPU; use fp32 or bf16"):
        training.train(settings, registry())
    assert not (tmp_path / "run").exists()

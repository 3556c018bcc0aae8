"""Settings that a foundation model recommends: used where the user sets none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from runs import gray_set, registry
from simmat_testing.tiny import TINY

from simmat import training
from simmat.config import load_config
from simmat.errors import ConfigError
from simmat.plugins.registry import Registry
from simmat.training import start
from simmat.training.network import with_recommended

RECOMMENDS = replace(
    TINY,
    name="wise",
    image_size=64,
    tune="lora",
    training={"batch_size": 1, "prompts_per_image": 3, "precision": "bf16"},
)


def known(spec: object = RECOMMENDS) -> Registry:
    """What is installed, with a model that recommends settings."""
    loaded = registry()
    items = []
    for kind in ("transfer layer", "tuner", "modality", "loss", "metric"):
        for item in loaded.all(kind):
            items.append((kind, item, "simmat"))
    return Registry([], [*items, ("foundation model", spec, "wise 1.0")])


def settings(data: Path, out: Path, **given: object) -> dict[str, object]:
    """The settings of a user who names little."""
    return {
        "modality": "gray",
        "data": data,
        "out": out,
        "foundation": "wise",
        "heads": "prompt",
        "steps": 2,
        "device": "cpu",
        "pictures": False,
        **given,
    }


def test_a_model_recommends_and_the_user_decides(tmp_path: Path) -> None:
    """Settings that were measured for a model lived in a footnote, and nobody typed them."""
    data = gray_set(tmp_path / "data")
    config = load_config(
        None, settings(data, tmp_path / "run", precision="fp32", batch_size=2)
    )
    plans: list[training.RunInfo] = []

    class Listener(training.Callback):
        def started(self, run: training.RunInfo) -> None:
            plans.append(run)

    training.train(config, known(), Listener())
    (run,) = plans
    assert run.config.prompts_per_image == 3
    assert (run.config.precision, run.config.batch_size) == ("fp32", 2)
    (note,) = [note for note in run.notes if "Defaults of 'wise'" in note]
    assert "prompts_per_image = 3" in note.partition("Changed by you")[0]
    assert "image_size = 64" in note.partition("Changed by you")[0]
    assert "precision = fp32 (default: bf16)" in note
    assert "batch_size = 2 (default: 1)" in note
    # the settings of the run are those that it had
    written = load_config(tmp_path / "run/config.toml")
    assert written.prompts_per_image == 3
    assert with_recommended(written, known()) == written


def test_a_run_keeps_the_precision_that_was_measured_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run would otherwise change its results with the load of the machine."""
    data = gray_set(tmp_path / "data")
    spec = replace(RECOMMENDS, training={"precision": "auto"})
    monkeypatch.setattr(start, "faster_precision", lambda device: "bf16")
    config = load_config(None, settings(data, tmp_path / "run"))
    notes: list[str] = []

    class Listener(training.Callback):
        def started(self, run: training.RunInfo) -> None:
            notes.extend(run.notes)

    training.train(config, known(spec), Listener())
    (note,) = [note for note in notes if "Defaults of 'wise'" in note]
    assert "precision = bf16" in note
    assert "Changed by you" not in note
    monkeypatch.setattr(start, "faster_precision", lambda device: "fp32")
    file = tmp_path / "run/config.toml"
    assert load_config(file).precision == "bf16"
    training.resume(tmp_path / "run", known(spec))
    assert load_config(file).precision == "bf16"


def test_a_recommended_setting_does_not_break_one_of_the_user(tmp_path: Path) -> None:
    """A batch of one image cannot be split in two."""
    config = load_config(
        None, settings(tmp_path, tmp_path / "run", grad_accumulation=2)
    )
    with pytest.raises(ConfigError, match=r"'wise'.*batch_size = 1.*grad_accumulation"):
        with_recommended(config, known())

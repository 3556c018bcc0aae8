"""What `simmat train` says at its end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundles import METRICS, tiny_bundle

from simmat import training
from simmat.callbacks import ConsoleCallback
from simmat.cli import run


@pytest.mark.plugins
@pytest.mark.parametrize(("kept", "warned"), [(0, True), (30, False)])
def test_a_bundle_of_step_0_is_warned_of(
    kept: int,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is a bundle as any other, and a newcomer only wonders later why it finds nothing."""

    def trained(
        configs: Any,
        registry: Any,
        callbacks: dict[str, ConsoleCallback],
        *,
        resume: bool,
    ) -> Path:
        (callback,) = callbacks.values()
        plan: Any = SimpleNamespace(
            config=SimpleNamespace(out=tmp_path / "run", init=None, keep=None),
            data=tmp_path,
            splits=frozenset(),
        )
        callback.run, callback.best, callback.best_step = plan, 0.5, kept
        callback.finished(tmp_path / "run/bundle.safetensors")
        return tmp_path / "run/bundle.safetensors"

    scores = {**METRICS["val"], "everything": {"found": 0}, "confidence": {}}
    tiny_bundle(tmp_path / "run", metrics={**METRICS, "val": scores})
    monkeypatch.setattr(training, "train_configs", trained)
    assert (
        run(
            [
                "train",
                "--modality",
                "gray",
                "--data",
                str(tmp_path),
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    shown = capsys.readouterr()
    assert f"at step {kept})" in shown.out
    assert ("train longer (--steps)" in shown.err) == warned
    assert "no threshold for --min-score auto: it needs 10 objects" in shown.out
    assert "found 0 in the validation split, which has 8 labelled" in shown.out

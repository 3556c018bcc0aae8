"""`simmat train --folds`: the runs of cross-validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simmat.bundle import read_bundle
from simmat.cli import run

pytestmark = pytest.mark.plugins


def command(data: Path, out: Path, *more: str) -> list[str]:
    """A short training of folds."""
    return [
        *("train", "--modality", "gray", "--data", str(data), "--out", str(out)),
        *("--foundation", "tiny", "--heads", "prompt", "--image-size", "64"),
        *("--steps", "1", "--batch-size", "1", "--device", "cpu", *more),
    ]


def trained_rows(run: Path) -> set[object]:
    """What a run was trained on."""
    seen = read_bundle(run)[0].trained_on
    assert seen is not None
    rows: Iterator[object] = seen.rows()
    return set(rows)


def test_every_image_is_left_out_by_one_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each label can then be compared with a model that did not see it; --folds again takes up what is there."""
    out = tmp_path / "runs"
    assert run(command(data, out, "--folds", "2")) == 0
    first, second = trained_rows(out / "fold-1"), trained_rows(out / "fold-2")
    assert not first & second
    assert len(first | second) == 7  # 5 of train and 2 of val
    assert f"--against {out / 'fold-1'} {out / 'fold-2'}" in capsys.readouterr().out
    before = (out / "fold-1/bundle.safetensors").read_bytes()
    assert run(command(data, out, "--folds", "2")) == 0
    assert (out / "fold-1/bundle.safetensors").read_bytes() == before


def test_folds_with_other_settings_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the folds with one setting and half with another would compare labels with two kinds of models."""
    out = tmp_path / "runs"
    assert run(command(data, out / "fold-1", "--fold", "1/2")) == 0
    assert run(command(data, out, "--folds", "2", "--seed", "3")) == 2
    assert "seed = 0, got 3" in capsys.readouterr().err
    assert not (out / "fold-2").exists()


@pytest.mark.parametrize("fold", ["0/2", "3/2", "1/1", "half"])
def test_a_fold_that_is_none_is_refused(
    fold: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says how a fold is written."""
    assert run(command(data, tmp_path / "run", "--fold", fold)) == 2
    assert "such as 2/5" in capsys.readouterr().err

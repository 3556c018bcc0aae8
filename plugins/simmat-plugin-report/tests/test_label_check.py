"""`simmat data check --against`: the labels of a data set beside models that did not see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import config, gray_set, registry

from simmat import training
from simmat.cli import run

pytestmark = pytest.mark.plugins("simmat-plugin-report")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with the runs fold-1 and fold-2."""
    root = gray_set(tmp_path_factory.mktemp("folds") / "set")
    for number in (1, 2):
        settings = config(
            root,
            root / f"runs/fold-{number}",
            fold=f"{number}/2",
            steps=2,
            heads="prompt,dense",
            pictures=False,
            image_size=32,
        )
        training.train(settings, registry())
    return root


def test_every_label_is_compared_with_a_model_that_did_not_see_it(
    folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs of all folds together leave no image out."""
    page = tmp_path / "labels.html"
    runs = [str(folds / "runs/fold-1"), str(folds / "runs/fold-2")]
    command = ["data", "check", str(folds), "--against", *runs]
    assert run([*command, "--json", "--out", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["not_checked"] == []
    assert (found["images"], found["regions"]) == (9, 18)
    scores = [one["score"] for one in found["suspicions"]]
    assert scores == sorted(scores, reverse=True)
    assert "Suspected label errors" in page.read_text()


def test_images_that_every_run_knows_are_named(
    folds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model agrees with labels that it learned, so it says nothing of them."""
    command = ["data", "check", str(folds), "--against", str(folds / "runs/fold-1")]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["not_checked"]) == 3
    assert found["images"] == 6
    assert run(command) == 0
    assert "every run was trained on them: 3 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--modality", "gray"], "are those of the runs"),
        (["--quick"], "are for a check of the files"),
        (["--out", "."], "is a folder"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    more: list[str],
    message: str,
    folds: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An option that is silently ignored misleads."""
    command = ["data", "check", str(folds), "--against", str(folds / "runs/fold-1")]
    assert run([*command, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_a_dense_head_cannot_judge(
    folds: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds no objects by itself."""
    command = ["data", "check", str(folds), "--against", str(bundle)]
    assert run(command) == 2
    assert "--heads prompt,dense" in capsys.readouterr().err

"""`simmat data check --against`: labels beside models that did not see them, and what contradicts them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from runs import config, gray_set, registry
from simmat_plugin_report.planted_errors import LabelCheck
from simmat_plugin_report.second_opinion import Opinion
from simmat_plugin_report.suspicions import suspicions_in

from simmat import training
from simmat.cli import run
from simmat.data.instances import Annotation, FoundObject, Instance
from simmat.types import Window

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


SIZE = (60, 200)


def square(x: int, side: int = 20, y: int = 20, value: int | None = None) -> Instance:
    """A square whose first column is x."""
    crop = np.ones((side, side), np.bool_)
    return Instance(value, Window(y, x, y + side, x + side), crop)


def label_of(*regions: Instance) -> Annotation:
    """A label of regions."""
    return Annotation(SIZE, regions, np.zeros(SIZE, np.bool_))


def opinion_of(label: Annotation, *seen: Instance, right: float = 0.9) -> Opinion:
    """What a model that finds some squares thinks of a label; it is as sure of classes as `right`."""
    objectness = np.full(SIZE, 0.05, np.float32)
    objects = []
    for one in seen:
        objectness[one.window.slices][one.crop] = 0.95
        x0, y0, _, _ = one.box_xyxy
        objects.append(FoundObject(one, 0.9, (x0, y0), None))
    classes = []
    for region in label.regions:
        true = next((one for one in seen if one.window == region.window), None)
        if true is None or true.class_id is None:
            classes.append(None)
            continue
        classes.append({true.class_id: right, 3 - true.class_id: 1 - right})
    return Opinion(objects, objectness, classes)


def kinds_in(label: Annotation, opinion: Opinion) -> list[tuple[str, int | None]]:
    """What is suspected of which region."""
    return [(one.kind, one.region) for one in suspicions_in(label, opinion)]


def test_what_has_no_ground_truth_is_not_missed() -> None:
    """Nobody was asked to label it."""
    ignore = np.zeros(SIZE, np.bool_)
    ignore[:, 90:] = True
    label = Annotation(SIZE, (square(10),), ignore)
    found = kinds_in(label, opinion_of(label, square(10), square(100)))
    assert ("missed", None) not in found


def test_two_objects_in_one_label_are_merged() -> None:
    """Each found object lies inside the label."""
    crop = np.ones((20, 50), np.bool_)
    label = label_of(Instance(None, Window(20, 10, 40, 60), crop))
    found = kinds_in(label, opinion_of(label, square(10), square(40)))
    assert ("merged", 0) in found


def check_of(
    wrong: dict[int, tuple[Annotation, tuple[Instance, ...]]], images: int = 30
) -> LabelCheck:
    """Compare right labels of two objects of two classes each, and some that are given, with a model that is right."""
    rng = np.random.default_rng(3)
    check = LabelCheck(np.random.default_rng(0))
    for number in range(images):
        seen = (
            square(int(rng.integers(5, 30)), value=1),
            square(int(rng.integers(100, 140)), value=2),
        )
        label = label_of(*seen)
        if number in wrong:
            label, seen = wrong[number]
        check.add(label, opinion_of(label, *seen, right=rng.uniform(0.7, 0.95)))
    return check


@pytest.mark.parametrize(
    ("kind", "labelled", "seen"),
    [
        ("missed", (square(10, value=1),), (square(10, value=1), square(100, value=2))),
        ("class", (square(10, value=2),), (square(10, value=1),)),
        ("border", (square(18, value=1),), (square(10, value=1),)),
    ],
)
def test_a_wrong_label_is_suspected_first(
    kind: str, labelled: tuple[Instance, ...], seen: tuple[Instance, ...]
) -> None:
    """Among 30 images with right labels it must not be looked for."""
    ranked = check_of({7: (label_of(*labelled), seen)}).ranked()
    first = ranked[0]
    assert (first.image, first.suspicion.kind) == (7, kind)
    assert first.score > 0.5
    assert all(0 <= one.score <= 1 for one in ranked)

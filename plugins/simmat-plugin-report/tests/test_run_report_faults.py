"""A report that fails, or that a kill left behind its bundle: the training comes first, and a page shows one bundle."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import config, gray_set, registry
from simmat_plugin_report import analysis, callback
from simmat_plugin_report.documents import open_run, read_report

from simmat import training
from simmat.bundle import load_bundle, read_bundle_spec, read_sensors
from simmat.training import fit
from simmat.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("faults") / "set", train=2, val=2, test=0)


def test_a_report_that_fails_is_left_out_and_the_training_ends_well(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With one warning, and every step saved."""

    def fails(*_: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(callback, "write_page", fails)
    out = tmp_path / "run"
    read_sensors(
        training.train(config(data, out, steps=2, val_every=1), registry("report"))
    )
    said = capsys.readouterr().err
    assert said.count("no font") == 1
    assert RunFolder(out).state.is_file()


def test_a_device_without_room_for_the_untuned_model_costs_only_its_scores(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says why there are none."""

    def fails(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(callback, "zero_shot_scores", fails)
    monkeypatch.setattr(callback, "why_no_zero_shot", lambda parts: "")
    training.train(config(data, tmp_path / "run", steps=1), registry("report"))
    report = read_report(RunFolder(tmp_path / "run"))
    assert report is not None
    assert report.analysis.zero_shot is None
    assert "memory" in report.analysis.no_zero_shot
    assert report.analysis.examples


class _Look(training.Callback):
    """Compares report and bundle after each step."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.looks = 0

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        report = read_report(self.folder)
        assert report is not None
        assert report.bundle_sha256 == read_bundle_spec(self.folder.bundle).sha256
        self.looks += 1


def test_the_report_has_the_scores_of_the_bundle_that_is_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each validation, however long the page took; after a kill between the two it is made again."""
    monkeypatch.setattr(callback, "PAUSE_FACTOR", 1e9)
    always_better = itertools.count()
    monkeypatch.setattr(
        fit, "selection_score", lambda summary: float(next(always_better))
    )
    out = tmp_path / "run"
    look = _Look(RunFolder(out))
    training.train(config(data, out, steps=2, val_every=1), registry("report"), look)
    assert look.looks == 2
    whole = read_report(look.folder)
    assert whole is not None
    assert whole.bundle_sha256 == read_bundle_spec(look.folder.bundle).sha256

    shutil.copytree(out, tmp_path / "killed")
    killed = RunFolder(tmp_path / "killed")
    older = json.loads(killed.report.read_text())
    older["bundle_sha256"] = "0" * 64
    for score in older["analysis"]["scores"]:
        score["iou"] = 0.0
    killed.report.write_text(json.dumps(older))
    view = open_run(killed.root)
    assert view.analysis is None
    assert view.trained is None
    training.resume(killed.root, registry("report"))
    again = read_report(killed)
    assert again is not None
    assert again.bundle_sha256 == whole.bundle_sha256
    assert [score.iou for score in again.analysis.scores] == [
        score.iou for score in whole.analysis.scores
    ]


def test_a_few_images_of_a_sparse_set_are_those_with_objects(
    data: Path, tmp_path: Path
) -> None:
    """Spread over all, one image in a hundred holds nothing to click on, and the report was refused."""
    out = tmp_path / "run"
    training.train(config(data, out, steps=1, pictures=False), registry("report"))
    sparse = gray_set(tmp_path / "sparse", train=1, val=5, test=0)
    for number in range(1, 5):
        Image.fromarray(np.zeros((40, 56), np.uint8)).save(
            sparse / f"masks/s{number}.png"
        )
    found = analysis.analyse_bundle(
        load_bundle(out, registry()), sparse, "val", registry(), images=1
    )
    assert {score.sample for score in found.scores} == {"s5"}

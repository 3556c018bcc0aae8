"""The page of a run: what training writes, what it costs, and what `simmat report` makes of it."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from installed import need_plugins
from PIL import Image
from runs import StopAt, config, gray_set, registry
from simmat_plugin_report.analysis import CHECK, MAX_PASSES, pass_limits
from simmat_plugin_report.documents import read_report
from simmat_plugin_report.pictures import PICTURES

from simmat import training
from simmat.cli import run as simmat
from simmat.model import SimMAT
from simmat.training.run_folder import RunFolder


class Page(HTMLParser):
    """The tags, headings and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open != "style":
            self.text += data
        if self._open == "h2":
            self.headings.append(data)


@contextmanager
def encoded() -> Iterator[Counter[str]]:
    """Count the images that pass through the foundation model: "trained", with gradient, or "looked at"."""
    counts: Counter[str] = Counter()
    real = SimMAT.encode

    def counted(self: SimMAT, planes: Any, content: Any) -> Any:
        counts["trained" if torch.is_grad_enabled() else "looked at"] += len(planes)
        return real(self, planes, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimMAT, "encode", counted)
        yield counts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("report") / "set", val=3)


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    training.train(config(data, data.parent / "run", steps=2), registry("report"))
    return data.parent / "run"


def test_a_training_ends_with_a_page_of_all_sections(run: Path) -> None:
    """Pictures and scores come first, and only the confidence is folded."""
    page = Page(run / "report.html")
    assert page.headings == [
        "Predictions",
        "Training labels",
        "Scores",
        "What would help",
        "Images, worst first",
        "Training",
        "By size and class",
        "Confidence",
        "Transfer layer",
        "The data",
        "Use it",
        "What was run",
    ]
    opened = [tag for tag, _ in page.tags if tag == "details"]
    assert len(opened) == 1, "Confidence is folded"
    ranks = re.findall(r"(worst|median|best): IoU", page.text)
    assert (ranks[0], ranks[-1]) == ("worst", "best")
    places = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert places == [f"#{attrs['id']}" for tag, attrs in page.tags if tag == "section"]


def test_the_page_says_what_differs_from_the_defaults_and_how_to_use_the_bundle(
    run: Path,
) -> None:
    """With paths that can be copied."""
    text = Page(run / "report.html").text
    assert "batch_size" in text
    assert "weight_decay" not in text
    assert f"simmat.load('{run / 'bundle.safetensors'}')" in text
    assert f"simmat predict {run / 'bundle.safetensors'} " in text


def test_best_and_worst_predictions_are_those_of_the_scores(run: Path) -> None:
    """The reader judges the model by them."""
    report = read_report(RunFolder(run))
    assert report is not None
    found = report.analysis
    ious = sorted(score.iou for score in found.scores)
    shown = {
        rank: [one.score.iou for one in found.examples if one.rank == rank]
        for rank in ("best", "median", "worst")
    }
    assert max(shown["best"]) == ious[-1]
    assert min(shown["worst"]) == ious[0]
    assert min(shown["best"]) >= max(shown["worst"])
    for one in found.examples:
        for picture in (one.sensor, one.error):
            assert min(Image.open(io.BytesIO(picture)).size) > 100


def test_some_labels_of_the_training_are_outlined(run: Path, data: Path) -> None:
    """A reader sees what the model learned from: training images alone, with a line around each object."""
    report = read_report(RunFolder(run))
    assert report is not None
    drawn = report.analysis.training_labels
    assert [name for name, _ in drawn] == ["s0", "s1", "s2", "s3"]
    text = Page(run / "report.html").text
    for name, pictures in drawn:
        assert f"{name}: 2 objects" in text
        picture = np.asarray(Image.open(io.BytesIO(pictures["2 objects"])))
        mask = Image.open(data / f"masks/{name}.png")
        inside = np.asarray(mask.resize(picture.shape[1::-1])) > 0
        coloured = np.ptp(picture.astype(int), axis=2) > 40
        columns = np.nonzero(coloured & inside)[1]
        # one coloured line around both, and none elsewhere
        assert columns.min() < 0.4 * picture.shape[1] < columns.max()
        assert 0.02 < coloured[inside].mean() < 0.3
        assert coloured[~inside].mean() < 0.02


def test_a_fold_has_its_report(data: Path, tmp_path: Path) -> None:
    """Its validation images are in another split of the data set."""
    settings = config(data, tmp_path / "run", steps=1, fold="2/2", image_size=32)
    training.train(settings, registry("report"))
    report = read_report(RunFolder(tmp_path / "run"))
    assert report is not None
    assert report.analysis.examples


@pytest.mark.slow
def test_the_report_costs_a_bounded_number_of_passes(
    data: Path, tmp_path: Path
) -> None:
    """At most those of its pictures, one to check step 0, and what `pass_limits` allows; seconds vary, so it counts."""
    with encoded() as plain:
        training.train(
            config(data, tmp_path / "plain", pictures=False), registry("report")
        )
    with encoded() as shown:
        training.train(config(data, tmp_path / "shown"), registry("report"))
    assert shown["trained"] == plain["trained"]
    assert plain["looked at"] < shown["looked at"] <= plain["looked at"] + PICTURES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mat", "extra"), [("mat-residual", CHECK), ("mat", CHECK + 1)]
)
def test_the_untuned_model_is_scored_only_where_step_0_is_another(
    mat: str, extra: int, data: Path, tmp_path: Path
) -> None:
    """A short training has one image for it; its scores are those of the same objects."""
    need_plugins("lite")
    settings = {
        "foundation": "lite",
        "mat": mat,
        "steps": 1,
        "val_every": 1,
        "image_size": 64,
    }
    with encoded() as counts:
        training.train(
            config(data, tmp_path / "run", **settings), registry("lite", "report")
        )
    report = read_report(RunFolder(tmp_path / "run"))
    assert report is not None
    found = report.analysis
    assert found.zero_shot is not None
    assert len({score.sample for score in found.zero_shot}) == (
        3 if mat == "mat-residual" else 1
    )
    validations, pictures = 2 * 3, len({one.score.sample for one in found.examples})
    assert counts["looked at"] == validations + extra + pictures
    assert "zero-shot" in Page(tmp_path / "run" / "report.html").text


@pytest.mark.parametrize("trained", [10, 100, 1000, 10**5, 10**8])
def test_passes_are_a_twentieth_of_the_training(trained: int) -> None:
    """However long it is; a short one has the pictures and one image of the untuned model."""
    zero_shot, ablation = pass_limits(trained)
    assert zero_shot + ablation <= max(
        min(trained // 20, MAX_PASSES) - PICTURES - CHECK, 1
    )
    assert zero_shot >= 1


@pytest.mark.slow
def test_an_interrupted_run_has_a_page_of_what_is_known(
    data: Path, tmp_path: Path
) -> None:
    """And `simmat report` adds the pictures of its best bundle."""
    with pytest.raises(training.Interrupted):
        training.train(config(data, tmp_path / "run"), registry("report"), StopAt(3))
    page = Page(tmp_path / "run" / "report.html")
    assert "Scores" in page.headings
    assert "Pictures are drawn when the training ends" in page.text
    assert "Training labels" not in page.headings
    assert simmat(["report", str(tmp_path / "run"), "--device", "cpu"]) == 0
    page = Page(tmp_path / "run" / "report.html")
    assert "Pictures are drawn" not in page.text
    assert "Training labels" in page.headings


def test_report_shows_a_finished_run_without_its_network(
    run: Path, tmp_path: Path
) -> None:
    """Of a run that was sent without its data."""
    with encoded() as counts:
        assert simmat(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert not counts
    assert Page(tmp_path / "page.html").headings == Page(run / "report.html").headings


def test_other_data_are_scored_on_a_bounded_number_of_images(
    run: Path, data: Path, tmp_path: Path
) -> None:
    """Their test split, where they have one, without images of the training, whose labels are shown."""
    out, other = tmp_path / "page.html", tmp_path / "set"
    shutil.copytree(data, other)
    rows = (data / "manifest.csv").read_text()
    rows = rows.replace("s0,train", "s0,test").replace("\ns", "\nother-s")
    (other / "manifest.csv").write_text(rows)
    words = [
        "report",
        str(run),
        "--data",
        str(other),
        "--images",
        "1",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    with encoded() as counts:
        assert simmat(words) == 0
    assert 0 < sum(counts.values()) <= 1 + PICTURES
    text = Page(out).text
    assert "1 image of 2, spread evenly, of the test split of set" in text
    assert "1 of 3 images are left out: the bundle was trained on them" in text
    assert "s0: 2 objects" in text
    assert "other-s0" not in text


@pytest.mark.slow
def test_runs_are_compared_object_by_object(
    run: Path, data: Path, tmp_path: Path
) -> None:
    """Only the settings that differ are listed."""
    other = tmp_path / "other <b>"
    training.train(config(data, other, steps=2, lr=1e-4), registry("report"))
    assert (
        simmat(["report", str(run), str(other), "--out", str(tmp_path / "both.html")])
        == 0
    )
    page = Page(tmp_path / "both.html")
    assert page.headings == [
        "Scores: set, val",
        "By size and class: set, val",
        "Training",
        "Settings that differ",
    ]
    assert "other <b>" in page.text
    assert "lr" in page.text
    assert "batch_size" not in page.text


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda report: report.update(format=2), "format must be 3, got 2; remove it"),
        (lambda report: report["analysis"]["examples"][0].update(sensor="!"), "sensor"),
        (lambda report: report.pop("steps"), "steps"),
        (lambda report: report["analysis"].update(data_report={}), "splits"),
        (lambda report: report["analysis"]["data_report"].update(splits=[]), "splits"),
        (
            lambda report: report["analysis"]["data_report"]["splits"][0].update(
                classes={"x": 1}
            ),
            "classes",
        ),
        (
            lambda report: report["analysis"].update(class_names={"x": "car"}),
            "class_names",
        ),
        (lambda report: report["analysis"]["examples"][0].pop("error"), "error"),
        (lambda report: report["analysis"].update(class_iou={"x": 1.0}), "class_iou"),
    ],
)
def test_a_damaged_report_is_refused_by_name(
    spoil: Any,
    named: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not shown with holes."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    report = json.loads((folder / "report.json").read_text())
    spoil(report)
    (folder / "report.json").write_text(json.dumps(report))
    assert simmat(["report", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "report.json" in said
    assert named in said


def test_a_folder_that_is_not_a_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle is a part of one."""
    assert simmat(["report", str(run / "bundle.safetensors")]) == 2
    assert str(run) in capsys.readouterr().err
    assert simmat(["report", str(tmp_path)]) == 2
    assert "no run there" in capsys.readouterr().err
    (tmp_path / "config.toml").write_text((run / "config.toml").read_text())
    assert simmat(["report", str(tmp_path)]) == 2
    assert "no bundle yet" in capsys.readouterr().err
    assert simmat(["report", str(run), "--split", "test"]) == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "protocol", [{}, {"protocol": "simmat-compat", "aspect": "pad"}]
)
def test_a_channel_that_the_network_ignores_changes_nothing(
    protocol: dict[str, str], tmp_path: Path
) -> None:
    """And one that it uses does, also where the protocol squashes images that the network was trained on unsquashed."""
    from simmat_plugin_report.analysis import analyse_bundle

    from simmat.bundle import load_bundle

    data = _two_planes(tmp_path / "set")
    settings = config(
        data,
        tmp_path / "run",
        modality="raster",
        mat="mat-residual",
        pictures=False,
        steps=1,
        **protocol,
    )
    bundle = load_bundle(
        training.train(settings, registry("report")), registry("report")
    )
    mat: Any = bundle.model.mat
    with torch.no_grad():
        for weights in (mat.zero_shot.weights, mat.stack[0].weight):
            weights[:, 1] = 0
    used, ignored = analyse_bundle(
        bundle, data, "val", registry("report"), images=3
    ).ablations
    assert used.base == ignored.base == ignored.miou != used.miou
    assert ignored.interval == (0, 0)


def _two_planes(root: Path) -> Path:
    """A set of two planes: one shows the objects, the other is noise."""
    gray_set(root, val=3)
    rng = np.random.default_rng(0)
    for file in (root / "images").glob("*.png"):
        plane = np.asarray(Image.open(file))
        np.save(
            file.with_suffix(".npy"),
            np.stack([plane, rng.integers(0, 255, plane.shape, np.uint8)]),
        )
        file.unlink()
    manifest = root / "manifest.csv"
    manifest.write_text(re.sub(r"(images/s\d+)\.png", r"\1.npy", manifest.read_text()))
    return root

"""What the pages say of a run in words, and of several runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundles import BUNDLE_SPEC
from runs import config
from simmat_plugin_report.checks import DataReport, SplitReport
from simmat_plugin_report.compare_page import untuned_models
from simmat_plugin_report.documents import (
    Analysis,
    RunReport,
    RunView,
)
from simmat_plugin_report.page import FigureGrid, Table
from simmat_plugin_report.run_page import (
    advice,
    run_sections,
    settings_blocks,
    summary_of,
    worst_images,
)
from simmat_plugin_report.scores import confidence_blocks

from simmat.calibration import Calibration
from simmat.evaluation import ObjectScore

KEPT = "Step 0 was kept: no later step was "
VAL = [{"kind": "val", "step": step, "miou_object": 0.5} for step in (0, 2)]


def score(iou: float) -> ObjectScore:
    return ObjectScore("a", 0, None, 9, (3.0, 3.0), iou, iou, iou, 0.5)


def view(*, kept: int, done: int, val: int = 2) -> RunView:
    """A run of 60 steps, of which some are done, and one is kept; its IoU is 0.5."""
    analysis = Analysis(
        data="set",
        split="val",
        images=1,
        available=1,
        protocol="simmat-1",
        scores=(score(0.5),),
        zero_shot=(score(0.5),),
    )
    report = RunReport(
        bundle_sha256="0" * 64,
        steps=60,
        seconds=3.0,
        trainable=1,
        total=2,
        train_images=8,
        machine={},
        notes=(),
        analysis=analysis,
    )
    spec = BUNDLE_SPEC.model_copy(update={"metrics": {"step": kept}})
    records: list[dict[str, Any]] = [
        *VAL[:val],
        {"kind": "train", "step": done, "loss": 1.0},
    ]
    settings = config(Path("set"), Path("run"))
    return RunView(
        "run", Path("run/bundle.safetensors"), settings, spec, records, report, analysis
    )


def trained(run: RunView) -> str:
    """The row of that name."""
    tables = [block for block in settings_blocks(run) if isinstance(block, Table)]
    return next(row[1] for table in tables for row in table.rows if row[0] == "trained")


def test_a_stopped_run_says_how_far_it_came() -> None:
    """It was said to be trained for all the steps that were planned."""
    run = view(kept=2, done=4)
    assert trained(run) == "stopped after 4 of 60 steps on 8 images, step 2 was kept"
    assert "step 2, stopped after 4 of 60 steps, trained on 8 images" in summary_of(run)
    assert trained(replace(run, running=True)).startswith("4 of 60 steps so far on 8")
    # its log was not sent
    assert trained(replace(run, records=[])).startswith("60 steps on 8")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (view(kept=0, done=60), "better on validation."),
        (view(kept=0, done=4, val=1), "scored on validation."),
    ],
)
def test_the_page_explains_at_the_top_that_step_0_was_kept(
    run: RunView, said: str
) -> None:
    """A newcomer takes it for trained."""
    assert summary_of(run).endswith(KEPT + said)


def test_images_are_listed_worst_first_with_what_is_wrong() -> None:
    """Nobody opens a hundred images to find the ten that are wrong."""

    def of(sample: str, iou: float, ratio: float, region: int = 0) -> ObjectScore:
        return replace(score(iou), sample=sample, region=region, area_ratio=ratio)

    def mistakes(objects: int, **wrong: int) -> dict[str, int]:
        return {"objects": objects, "missed": 0, "extra": 0, "wrong_class": 0, **wrong}

    right, found = mistakes(1), view(kept=2, done=60).analysis
    one_click = [
        of("a", 0.9, 1.0),
        of("b", 0.3, 3.0),
        of("b", 0.6, 0.6, region=1),
        of("c", 0.8, 1.0),
    ]
    wrong = mistakes(1, extra=2, wrong_class=1)
    by_sample = {"a": right, "b": right, "c": wrong, "empty": mistakes(0)}
    table, _ = worst_images(
        found.model_copy(update={"scores": tuple(one_click), "mistakes": by_sample})
    )
    assert isinstance(table, Table)
    assert list(table.rows) == [
        ("c", "", "2 extra, 1 of a wrong class", "1", "0.800"),
        ("b", "1 too large, 1 too small", "", "2", "0.450"),
        ("a", "", "", "1", "0.900"),
        ("empty", "", "", "0", "–"),
    ]


def test_the_page_says_how_often_a_class_is_right_before_and_after_calibration() -> (
    None
):
    """Of ten that the network calls 60 % sure all are right, as `report.json` keeps them."""
    run = view(kept=2, done=60)
    rows = tuple((name, 0, 0.6, 0.4) for name in "abcdefghij")
    values = run.analysis.model_dump(mode="json") | {
        "data": "other",
        "confidence": {"class_probability": rows},
    }
    found = Analysis.model_validate(json.loads(json.dumps(values)))
    spec = run.spec.model_copy(update={"calibration": Calibration(temperature=0.1)})
    table = next(iter(confidence_blocks(replace(run, spec=spec), found)))
    assert isinstance(table, Table)
    after = 1 - 0.6**10 / (0.6**10 + 0.4**10)
    assert table.rows[1] == (
        "classes of objects",
        "10",
        "0.400",
        f"{after:.3f}",
        "0.000",
    )


def test_the_page_says_what_would_help(tmp_path: Path) -> None:
    """A score alone leaves a newcomer without a next step."""
    run = view(kept=60, done=60)
    records = [
        {"kind": "val", "step": step, "miou_object": 0.5} for step in (0, 30, 60)
    ]
    spec = run.spec.model_copy(update={"image_side": 640, "image_size": 64})
    run = replace(run, records=records, spec=spec)
    names, scores = (
        {1: "cow", 2: "calf"},
        (replace(score(0.9), class_id=1), replace(score(0.2), class_id=2)),
    )
    train = SplitReport(
        **{
            "name": "train",
            "samples": 8,
            "without_region": (),
            "regions": 53,
            "dropped": 0,
            "area_px": None,
        },
        **{"classes": {1: 50, 2: 3}, "sizes_hw": (), "ignored": 0.0, "channels": ()},
    )
    data = DataReport(
        root="set", regions="classes", split_note="", splits=(train,), findings=()
    )
    found = run.analysis.model_copy(
        update={
            **{"scores": scores, "class_names": names, "data_report": data},
            "mistakes": {
                "a": {"objects": 4, "missed": 3, "extra": 0, "wrong_class": 0}
            },
        }
    )
    said = " ".join(advice(run, found))
    for part in (
        "--steps 120",
        "3 of 4 objects are missed",
        "8 images",
        "class 2 (calf) (3 objects)",
        "--crop 64",
    ):
        assert part in said
    assert "cow" not in said
    assert "--steps" not in " ".join(advice(replace(run, running=True), found))
    taught = replace(
        run,
        config=run.config.model_copy(
            update={"out": tmp_path, "data": tmp_path / "teacher"}
        ),
    )
    said = " ".join(advice(taught, found))
    assert "8 images" not in said
    assert "calf" not in said
    large = data.model_copy(
        update={
            "splits": (train.model_copy(update={"area_px": (25600, 25600, 25600)}),)
        }
    )
    assert "--crop" not in " ".join(
        advice(run, found.model_copy(update={"data_report": large}))
    )
    assert run.report is not None
    for recipe, told in (({"tune": "other"}, True), ({"tune": run.config.tune}, False)):
        lines = advice(
            replace(run, report=run.report.model_copy(update={"recipe": recipe})), found
        )
        assert any("tune is" in line for line in lines) is told
    started = run.config.model_copy(update={"init": tmp_path / "run"})
    report = run.report.model_copy(update={"recipe": {"tune": "other"}})
    lines = advice(replace(run, config=started, report=report), found)
    assert not any("tune is" in line for line in lines)


def test_the_outlines_of_training_are_labels_or_masks_of_the_teacher() -> None:
    """Nobody can correct the masks of a teacher; the colours of classes are named."""
    run = view(kept=2, done=60)
    train = SplitReport.model_construct(
        name="train", classes={1: 50, 2: 3}, area_px=None
    )
    data = DataReport.model_construct(splits=(train,), findings=())
    found = run.analysis.model_copy(
        update={
            "training_labels": (("a", {"2 objects": b"picture"}),),
            "class_names": {1: "cow"},
            "data_report": data,
        }
    )
    run = replace(run, analysis=found)
    said, grid = dict(run_sections(run))["Training labels"]
    assert "correct a label" in said
    assert isinstance(grid, FigureGrid)
    assert [one.caption for one in grid.figures] == ["a: 2 objects"]
    assert [title for _, title in grid.legend] == ["class 1 (cow)", "class 2"]
    taught = run.config.model_copy(update={"data": run.config.out / "teacher"})
    said, _ = dict(run_sections(replace(run, config=taught)))["Training labels"]
    assert said.endswith("the outlines of the teacher's masks.")


def analysis(*zero_shot: float) -> Analysis:
    """Two objects, of which some were scored by the untuned model."""

    def scores(*ious: float) -> tuple[ObjectScore, ...]:
        numbers: dict[str, Any] = {
            "iou_best_predicted": None,
            "iou_oracle": None,
            "predicted_iou": 0.5,
        }
        return tuple(
            ObjectScore(
                sample=f"s{place}",
                region=0,
                class_id=None,
                area=9,
                click_xy=(0.0, 0.0),
                iou=iou,
                **numbers,
            )
            for place, iou in enumerate(ious)
        )

    return Analysis(
        data="d",
        split="val",
        images=2,
        available=2,
        protocol="one-click",
        scores=scores(0.5, 0.6),
        zero_shot=scores(*zero_shot) or None,
    )


def untuned(runs: dict[str, tuple[str, int, Analysis]]) -> dict[str, list[float]]:
    """Name of each row -> its IoUs, of runs of a foundation model at an input size."""
    views: Any = {
        name: SimpleNamespace(
            spec=SimpleNamespace(
                foundation=model,
                foundation_sha256=model,
                modality="gray",
                selected_channels=None,
                image_size=size,
            )
        )
        for name, (model, size, _) in runs.items()
    }
    rows = untuned_models(views, {name: found for name, (*_, found) in runs.items()})
    return {name: [score.iou for score in scores] for name, scores in rows.items()}


def test_each_different_untuned_model_has_a_row() -> None:
    """One of another foundation model or input is no reference; one scored on some objects does not compare."""
    lite, sam, some = analysis(0.1, 0.2), analysis(0.3, 0.4), analysis(0.9)
    assert untuned({"a": ("lite", 64, lite), "b": ("lite", 64, lite)}) == {
        "zero-shot of lite, as in a": [0.1, 0.2]
    }
    assert untuned({"a": ("lite", 64, some)}) == {}
    found = untuned(
        {
            "a": ("lite", 64, some),
            "b": ("lite", 64, lite),
            "c": ("sam", 64, sam),
            "d": ("lite", 96, sam),
        }
    )
    assert list(found.values()) == [[0.1, 0.2], [0.3, 0.4], [0.3, 0.4]]
    assert len({name.split(",")[0] for name in found}) == 2

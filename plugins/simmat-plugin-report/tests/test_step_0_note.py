"""What the page says of the steps of a run: those that were done, and what it means that step 0 was kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import BUNDLE_SPEC
from runs import config
from simmat_plugin_report.documents import Analysis, RunReport
from simmat_plugin_report.page import Table
from simmat_plugin_report.run_facts import setting_blocks
from simmat_plugin_report.run_page import summary_of
from simmat_plugin_report.run_view import RunView, view_of

from simmat.evaluation import ObjectScore
from simmat.training import RunFolder

KEPT = "Step 0 was kept: no later step was "
VAL = [{"kind": "val", "step": step, "miou_object": 0.5} for step in (0, 2)]


def score(iou: float) -> ObjectScore:
    return ObjectScore("a", 0, None, 9, (3.0, 3.0), iou, iou, iou, 0.5)


def view(*, kept: int, done: int, val: int = 2, untuned: float = 0.5) -> RunView:
    """A run of 60 steps, of which some are done, and one is kept; its IoU is 0.5."""
    analysis = Analysis(
        data="set",
        split="val",
        images=1,
        available=1,
        protocol="simmat-1",
        scores=(score(0.5),),
        zero_shot=(score(untuned),),
    )
    report = RunReport(
        weights_sha256="0" * 64,
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
    records: list[dict[str, Any]] = [*VAL[:val], {"kind": "train", "step": done, "loss": 1.0}]
    settings = config(Path("set"), Path("run"))
    return RunView("run", Path("run/bundle"), settings, spec, records, report, (analysis,))


def trained(run: RunView) -> str:
    """The row of that name."""
    tables = [block for block in setting_blocks(run) if isinstance(block, Table)]
    return next(row[1] for table in tables for row in table.rows if row[0] == "trained")


def test_a_stopped_run_says_how_far_it_came() -> None:
    """It was said to be trained for all the steps that were planned."""
    run = view(kept=2, done=4)
    assert trained(run) == "stopped after 4 of 60 steps on 8 images, step 2 was kept"
    assert "step 2, stopped after 4 of 60 steps, trained on 8 images" in summary_of(run)
    assert trained(replace(run, running=True)).startswith("4 of 60 steps so far on 8")
    assert trained(replace(run, records=[])).startswith("60 steps on 8")  # its log was not sent


def test_a_run_whose_training_goes_on_is_not_called_stopped(tmp_path: Path) -> None:
    """Who looks at the page meanwhile would start it again."""
    run = view(kept=2, done=4)
    assert run.report is not None
    folder = RunFolder(tmp_path / "run")
    with folder.held():
        assert view_of(run.config, run.spec, folder, run.report, ()).running
    assert not view_of(run.config, run.spec, folder, run.report, ()).running
    assert not RunFolder(tmp_path / "none").running
    assert not (tmp_path / "none").exists()


def test_a_run_of_all_its_steps_is_not_called_stopped() -> None:
    """Nor is a step that was kept explained, as long as it was trained."""
    run = view(kept=2, done=60)
    assert trained(run) == "60 steps on 8 images, step 2 was kept"
    assert "step 2 of 60, trained on 8 images" in summary_of(run)
    assert "was kept" not in summary_of(run)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (view(kept=0, done=60), "better on validation, so this bundle answers prompts like the untuned model."),
        (view(kept=0, done=4, val=1), "scored on validation, so this bundle answers prompts like the untuned model."),
        (
            view(kept=0, done=60, untuned=0.7),
            "better on validation, so this bundle answers prompts as before training.",
        ),
    ],
)
def test_the_page_explains_at_the_top_that_step_0_was_kept(run: RunView, said: str) -> None:
    """A newcomer takes it for trained; a transfer layer that starts at random is not the untuned model."""
    assert summary_of(run).endswith(KEPT + said)

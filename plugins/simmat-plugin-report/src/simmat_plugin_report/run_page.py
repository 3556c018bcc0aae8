"""The page of one run: settings, scores and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from simmat_plugin_report.advice import advice
from simmat_plugin_report.blocks import calibration, counted, curves, duration, place_of
from simmat_plugin_report.object_scores import common, miou
from simmat_plugin_report.page import Items, Section
from simmat_plugin_report.run_facts import data_blocks, setting_blocks, steps_of, use_blocks
from simmat_plugin_report.run_pictures import dense_blocks, importance_blocks, prediction_blocks, transfer_blocks
from simmat_plugin_report.run_scores import group_blocks, image_blocks, score_blocks
from simmat_plugin_report.run_view import RunView

_SAME_IOU = 0.01
"""Largest difference of IoU of any object for two models that count as the same."""


def summary_of(run: RunView) -> str:
    """Return the sentence below the title."""
    said, report = f"{run.made_of}, step {run.step}", run.report
    if report is not None:
        said += f" of {report.steps}" if run.steps_done >= report.steps else f", {steps_of(run, report)}"
        said += f", trained on {counted(report.train_images, 'image')} in {duration(report.seconds)}"
    if run.analyses:
        found = run.analyses[0]
        zero = found.zero_shot or ()
        said += f". With one click per object, its mean IoU is {miou(found.scores):.3f} on {place_of(found)}"
        if zero and len(common(found.scores, zero)) == len(found.scores):
            said += f"; that of the untuned model is {miou(zero):.3f}"
    return f"{said}. {_step_0(run)}".rstrip()


def _step_0(run: RunView) -> str:
    """Return the explanation if step 0 was kept; "" if a later step was, or there was none yet."""
    if run.step != 0 or not run.steps_done:
        return ""
    validated = any(record.get("kind") == "val" and record["step"] > 0 for record in run.records)
    why = "no later step was better on validation" if validated else "no later step was scored on validation"
    model = "like the untuned model" if _is_untuned(run) else "as before training"
    return f"Step 0 was kept: {why}, so this bundle answers prompts {model}."


def _is_untuned(run: RunView) -> bool:
    """Return whether the bundle is known to have the scores of the untuned model for every object."""
    found = run.analyses[0] if run.analyses else None
    if found is None or not found.zero_shot:
        return False
    untuned = {(score.sample, score.region): score.iou for score in found.zero_shot}
    same = common(found.scores, found.zero_shot)
    return all(abs(score.iou - untuned[score.sample, score.region]) < _SAME_IOU for score in same)


def run_sections(run: RunView) -> Iterator[Section]:
    """Yield the sections of the page of one run."""
    several = len(run.analyses) > 1
    for place, found in enumerate(run.analyses):
        where = f": {Path(found.data).name}, {found.split}" if several else ""
        yield Section(f"Scores{where}", list(score_blocks(found, chosen=place == 0 and run.is_own(found))))
        if place == 0:
            said = list(advice(run, found))
            yield Section("What would help", [Items(said)] if said else [])
            yield Section("Training", [curves({"": run})])
        yield Section(f"Images, worst first{where}", list(image_blocks(found)))
        yield Section(f"Predictions{where}", list(prediction_blocks(found)))
        yield Section(f"By size and class{where}", list(group_blocks(found)))
        yield Section(f"Calibration{where}", list(calibration({"tuned": found.scores})))
        yield Section(f"Masks without clicks{where}", list(dense_blocks(run, found)))
        yield Section(f"Transfer layer{where}", list(transfer_blocks(run, found)))
        yield Section(f"Channel importance{where}", list(importance_blocks(run, found)))
        yield Section(f"The data{where}", list(data_blocks(run, found)))
    if not run.analyses:
        yield Section("Training", [curves({"": run})])
    yield Section("Use it", list(use_blocks(run)))
    yield Section("What was run", list(setting_blocks(run)))

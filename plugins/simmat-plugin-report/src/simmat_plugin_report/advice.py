"""Say what would most likely raise the scores of a run."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from simmat.data.card import class_title
from simmat.types import MOST_SHRUNK, SMALL_SIDE
from simmat_plugin_report.blocks import counted, setting
from simmat_plugin_report.documents import Analysis
from simmat_plugin_report.object_scores import miou
from simmat_plugin_report.run_view import RunView

_FEW_IMAGES, _FEW_OBJECTS = 20, 10
"""A class with fewer is rare; so is one with less than a quarter of the mean over classes."""
_MOST_CLASSES = 8
_MANY_MISSED = 0.25


def advice(run: RunView, found: Analysis) -> Iterator[str]:
    """Yield what to change, what helps most first."""
    yield from _steps(run, found)
    yield from _labels(run, found)
    recipe, config = run.report.recipe if run.report is not None else {}, run.config.model_dump(mode="json")
    other = [
        f"{name} is {setting(config[name])}, by default {setting(recipe[name])}"
        for name in recipe
        if config[name] not in (None, recipe[name])
    ]
    if other:
        yield (
            f"This run changed what suits {run.spec.foundation}: {'; '.join(other)}. Train once with the "
            "defaults, then compare: simmat report RUN1 RUN2."
        )
    side, size = run.spec.image_side or 0, run.spec.image_size
    areas = [split.area_px[0] for split in (found.data_report.splits if found.data_report else ()) if split.area_px]
    if side > MOST_SHRUNK * size and (not areas or min(areas) < (SMALL_SIDE * side / size) ** 2):
        yield (
            f"Images of {side} pixels are shrunk to {size}, which loses small objects: train with --crop {size}, or "
            "with a larger --image-size."
        )


def _steps(run: RunView, found: Analysis) -> Iterator[str]:
    steps = run.report.steps if run.report is not None else run.steps_done
    validated = [int(record["step"]) for record in run.records if record.get("kind") == "val" and record["step"]]
    longer = f"--steps {2 * steps}"
    if run.running or not validated:
        return
    if run.step == 0:
        yield f"No later step was better than step 0: use another rate (--lr), or train longer ({longer})."
    elif run.step == validated[-1]:
        yield f"The last validation was the best, so more steps may help: train longer ({longer})."
    objects = sum(one.objects for one in found.mistakes.values())
    missed = sum(one.missed for one in found.mistakes.values())
    if objects and missed / objects >= _MANY_MISSED:
        yield (
            f"Without clicks, {missed} of {counted(objects, 'object')} are missed. This takes more steps and images "
            f"than masks of clicks: train longer ({longer}), and label more images completely."
        )


def _labels(run: RunView, found: Analysis) -> Iterator[str]:
    if run.report is not None and run.report.train_images < _FEW_IMAGES:
        yield (
            f"The training had {counted(run.report.train_images, 'image')}: label more. simmat annotate DIR shows "
            "those first that the model is least sure of."
        )
    splits = found.data_report.splits if found.data_report is not None else ()
    classes = next((split.classes for split in splits if split.name == "train"), {})
    ious: dict[int, list[float]] = {value: [] for value in classes}
    for score in found.scores:
        if score.class_id is not None and splits:
            ious.setdefault(score.class_id, []).append(score.iou)
    enough = max(_FEW_OBJECTS, sum(classes.values()) / max(len(ious), 1) / 4)
    few = {value: classes.get(value, 0) for value in ious if classes.get(value, 0) < enough}
    poor = [value for value in few if not ious[value] or fmean(ious[value]) < miou(found.scores)]
    if poor:
        said = [
            f"class {class_title(value, found.class_names)} ({counted(few[value], 'object')}"
            + (f", mean IoU {fmean(ious[value]):.3f})" if ious[value] else ")")
            for value in sorted(poor, key=lambda value: few[value])[:_MOST_CLASSES]
        ]
        yield f"Label more of what is rare in the training images: {', '.join(said)}."

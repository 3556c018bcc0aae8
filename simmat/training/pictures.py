"""Draw a run: its curves, and a contact sheet of validation samples."""

from __future__ import annotations

from simmat.evaluation import ObjectScore, Scores
from simmat.io.files import atomic_path
from simmat.model import SimMAT
from simmat.predictor import Predictor
from simmat.report.contact_sheet import SheetRow, contact_sheet
from simmat.report.curves import plot_curves
from simmat.training.run_folder import RunFolder
from simmat.training.setup import Setup
from simmat.types import Prompt

ROWS = 6
"""Validation samples on the contact sheet."""


def draw_run(folder: RunFolder, model: SimMAT, setup: Setup, scores: Scores, *, sheet: bool) -> None:
    """Draw the curves and, if `sheet`, the contact sheet of a validation.

    Args:
        folder: where the pictures go.
        model: the validated network.
        setup: its data and pipeline.
        scores: scores of that validation.
        sheet: also draw the contact sheet.
    """
    plot_curves(folder.records(), folder.curves)
    if sheet:
        rows = [_row(model, setup, score) for score in _shown(scores)]
        with atomic_path(folder.samples) as path:
            contact_sheet(rows, f"{setup.config.modality}: validation samples").save(path)


def _shown(scores: Scores) -> list[ObjectScore]:
    """Return one object each of at most `ROWS` samples, spread evenly from the worst to the best."""
    first = {score.sample: score for score in reversed(scores.objects)}
    ranked = sorted(first.values(), key=lambda score: score.iou)
    count = min(ROWS, len(ranked))
    return [ranked[round(i * (len(ranked) - 1) / max(count - 1, 1))] for i in range(count)]


def _row(model: SimMAT, setup: Setup, score: ObjectScore) -> SheetRow:
    sample = next(sample for sample in setup.val if sample.id == score.sample)
    image = setup.dataset.image(sample)
    label = setup.dataset.label(sample, image)
    truth = label.regions[score.region].mask(label.size_hw)
    x, y = score.click_xy  # in an image smaller than the input, the first input pixel's centre is left of 0
    prompt = Prompt.points([(max(x, 0.0), max(y, 0.0))])
    predictor = Predictor(model, setup.pipeline)
    predictor.set_image(image)
    mask = predictor.predict_prompts([prompt])[0].mask
    return SheetRow(sample.id, image, truth, prompt, mask, score.iou)

"""Draw a run: its curves, and a contact sheet of validation samples, with what its dense head finds."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from simmat.data.dataset import Dataset
from simmat.data.dense_targets import class_map
from simmat.data.instances import FoundObject, Label
from simmat.evaluation import ObjectScore, Scores
from simmat.everything import EverythingSettings
from simmat.io.files import atomic_path
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.predictor import Predictor
from simmat.report.contact_sheet import SheetRow, contact_sheet
from simmat.report.curves import plot_curves
from simmat.report.display import display_rgb
from simmat.results import ImageResult
from simmat.results.overlay import draw_result
from simmat.results.result import LabelMap
from simmat.training.run_folder import RunFolder
from simmat.training.setup import Setup
from simmat.training.validation import MOST_CLICKS
from simmat.types import Prompt, SensorImage

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
    predictor = Predictor(model, setup.pipeline, dense=setup.spec.dense, image_side=setup.spec.image_side)
    predictor.set_image(image)
    mask = predictor.predict_prompts([prompt])[0].mask
    more = _without_prompts(predictor, setup.spec.dense, setup.dataset, image, label) if setup.spec.dense else ()
    return SheetRow(sample.id, image, truth, prompt, mask, score.iou, more)


def _without_prompts(
    predictor: Predictor, dense: DenseSpec, dataset: Dataset, image: SensorImage, label: Label
) -> tuple[tuple[str, Image.Image], ...]:
    """Draw what is found without prompts in the current image beside the truth: every object, and classes if any."""
    picture = display_rgb(image)

    def drawn(objects: Sequence[FoundObject] | None = None, classes: LabelMap | None = None) -> Image.Image:
        result = ImageResult(
            name="",
            file_name="",
            size_hw=image.size_hw,
            georeference=None,
            class_names={value: "" for value in dense.classes if value is not None},  # one colour in all pictures
            objects=None if objects is None else tuple(objects),
            classes=classes,
            nodata=None,
            picture=lambda: picture,
            background=0 if dense.background else None,
        )
        return draw_result(result, words=False)

    # The object of the highest score is in front; of true ones, as in the class map, the smallest.
    true = [FoundObject(region, 1 / region.area, (0.0, 0.0)) for region in label.regions]
    more = [
        ("true objects", drawn(true)),
        ("found objects", drawn(predictor.segment_everything(EverythingSettings(most=MOST_CLICKS)))),
    ]
    if dataset.has_classes:
        more.append(("true classes", drawn(classes=class_map(label))))
        more.append(("class map", drawn(classes=predictor.segment_semantic().labels)))
    return tuple(more)

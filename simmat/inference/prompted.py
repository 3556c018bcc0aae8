"""Segment the objects of an image that prompts mark, and write their files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simmat.drawing.display import display_rgb
from simmat.drawing.overlay import MASK, class_colour, draw_overlay
from simmat.geo import installed_geo_backend
from simmat.inference.job import ImageOutcome, ImageTask
from simmat.inference.prompts import prompt_values
from simmat.inference.records import record_of, replaceable_files
from simmat.io.files import atomic_write_json, staged_files
from simmat.io.files.system import output_errors
from simmat.predictor.large import LargeImage, Segmentation
from simmat.predictor.reading import LoadedImage
from simmat.types import ImageReader, Prompt, SensorImage, Window, short_names

if TYPE_CHECKING:
    from simmat.inference.segmenter import Segmenter
    from simmat.predictor import Prediction, Predictor

_MAX_PIXELS = 2048**2
"""Largest image without georeference that, segmented in windows, gets a mask and a picture for each object."""


def segment_prompts(segmenter: Segmenter, task: ImageTask) -> ImageOutcome:
    """Segment the prompted objects of an image and write their files, all or none."""
    job, predictor = segmenter.job, segmenter.predictor
    assert task.prompts is not None
    reader = predictor.reader(task.files, missing=job.options.missing)
    prompts = task.prompts.in_image(reader)
    whole = job.options.tile is None and isinstance(reader, LoadedImage)
    is_large = reader.georeference is not None or math.prod(reader.size_hw) > _MAX_PIXELS
    if job.is_grouped(task) or (is_large and not whole):
        return _write_together(segmenter, task, reader, prompts)
    image, found = (_in_whole_image if whole else _in_windows)(segmenter, reader, prompts)
    warnings, paths, lines = list[str](), list[Path](), []
    where = next(iter(task.files.values()), Path(task.name)).name
    segmenter.warn_of_values(warnings, where, found[0].warning)
    segmenter.warn(warnings, where, image.size_note)
    with staged_files(job.out, replaced=replaceable_files(job.out, prompts, job.endings(task))) as staging:
        for (name, prompt), prediction in zip(prompts.items(), found, strict=True):
            paths += [job.out / file for file in _write_object(segmenter, task, name, prompt, prediction, staging)]
            values = _class_values(prediction, predictor)
            named = f"  {values['class_name']} ({values['class_probability']:.0%})" if values else ""
            lines.append(
                f"{job.out / name}_mask.png  score {prediction.score:.3f}  {int(prediction.mask.sum())} px  "
                f"of {short_names(image.channels)}{named}"
            )
    return ImageOutcome(task.name, tuple(paths), tuple(lines), tuple(warnings))


def _in_whole_image(
    segmenter: Segmenter, reader: ImageReader, prompts: Mapping[str, Prompt]
) -> tuple[SensorImage, Sequence[Prediction]]:
    """Return the image and the masks of all prompts, those of one kind decoded together."""
    job, predictor = segmenter.job, segmenter.predictor
    image = reader.read(Window(0, 0, *reader.size_hw))
    loaded = predictor.set_image(image, missing=job.options.missing, cache=job.options.cache)
    return loaded, predictor.predict_prompts(tuple(prompts.values()), choice=job.options.mask)


def _in_windows(
    segmenter: Segmenter, reader: ImageReader, prompts: Mapping[str, Prompt]
) -> tuple[SensorImage, Sequence[Prediction]]:
    """Return the whole image, and masks of its size that were predicted in windows around the prompts."""
    job = segmenter.job
    image = LargeImage(segmenter.predictor, reader, tile=job.options.tile, cache=job.options.cache)
    found = [image.predict(prompt, job.options.mask) for prompt in prompts.values()]
    loaded, size_hw = reader.read(whole := Window(0, 0, *reader.size_hw)), reader.size_hw
    return loaded, [replace(one, mask=one.whole_mask(size_hw), image=loaded, window=whole) for one in found]


def _write_together(
    segmenter: Segmenter, task: ImageTask, reader: ImageReader, prompts: Mapping[str, Prompt]
) -> ImageOutcome:
    """Segment the objects in windows, and write all of them to the same files."""
    job = segmenter.job
    image = LargeImage(segmenter.predictor, reader, tile=job.options.tile, cache=job.options.cache)
    job.formats.for_image("objects", reader)  # raises before any work
    objects, notes, warnings, warning = [], [], list[str](), ""
    for name, prompt in prompts.items():
        prediction = image.predict(prompt, job.options.mask)
        found = prediction.found_object(_click(prompt))
        warning = warning or prediction.warning
        objects += [] if found is None else [found]
        notes.append({"object": name, **prompt_values(prompt), **_mask_values(prediction, segmenter.predictor)})
    segmenter.warn_of_values(warnings, next(iter(task.files.values()), Path(task.name)).name, warning)
    results = segmenter.results(task, image, Segmentation(objects, None, None, 1, 0))
    return replace(segmenter.write(task, image, results, {"prompts": notes}), warnings=tuple(warnings))


def _write_object(
    segmenter: Segmenter, task: ImageTask, name: str, prompt: Prompt, prediction: Prediction, folder: Path
) -> list[str]:
    """Write mask, overlay and json of one object to a folder; return the names of the files."""
    job, predictor, image = segmenter.job, segmenter.predictor, prediction.image
    missing = predictor.inputs.missing_channels(job.options.missing)
    written = [f"{name}_mask.png", f"{name}_overlay.png", f"{name}.json"]
    if image.georeference is not None and (backend := installed_geo_backend()) is not None:
        written.append(backend.write_mask(prediction.mask, image.georeference, folder / f"{name}_mask").name)
    kept = [i for i, channel in enumerate(image.channels) if channel.name not in missing]
    visible = image.select(kept) if missing else image  # `select` copies all planes
    colour = MASK if prediction.class_id is None else class_colour(prediction.class_id)
    with output_errors(folder):
        Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(folder / written[0])
        draw_overlay(display_rgb(visible), prediction.mask, prompt, colour=colour).save(folder / written[1])
    request = job.request(task, predictor.digest)
    atomic_write_json(
        folder / written[2],
        {
            **record_of(request, task.files, predictor, job.options.missing, image.size_hw),
            "picture_hw": image.picture_hw,
            "channels": [{"name": c.name, "quantity": c.quantity, "unit": c.unit} for c in image.channels],
            **_mask_values(prediction, predictor),
            **prompt_values(prompt),
            "written": written,
        },
    )
    return written


def _mask_values(found: Prediction, predictor: Predictor) -> dict[str, Any]:
    """Return score, size and class of a mask as json values."""
    return {"score": found.score, "mask_pixels": int(found.mask.sum()), **_class_values(found, predictor)}


def _class_values(found: Prediction, predictor: Predictor) -> dict[str, Any]:
    """Return the class of a mask as json values; empty if the model does not distinguish classes."""
    if found.class_id is None:
        return {}
    name = predictor.class_names.get(found.class_id, str(found.class_id))
    return {"class": found.class_id, "class_name": name, "class_probability": found.class_probability}


def _click(prompt: Prompt) -> tuple[float, float]:
    """Return the first point of a prompt, or the middle of its box."""
    if prompt.box is None or len(prompt.point_coords):
        x, y = prompt.point_coords[0].tolist()
    else:
        x, y = prompt.box.reshape(2, 2).mean(axis=0).tolist()
    return x, y

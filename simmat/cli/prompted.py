"""Segment the prompted objects of many images: `simmat predict --point`, `--box`, `--prompts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.cli.batch import Work, run_all
from simmat.cli.prompts import Prompts, prompt_values
from simmat.cli.records import (
    check_files_for_all,
    check_unique,
    digest_of,
    files_key,
    is_written,
    record_of,
    replaceable_files,
    write_files_for_all,
)
from simmat.geo import installed_geo_backend
from simmat.inference.formats import AUTO, ChosenFormats, choose_formats
from simmat.io.files import atomic_path, atomic_write_json, staged_files
from simmat.predictor.reading import LoadedImage
from simmat.terminal import say
from simmat.types import ImageReader, Prompt, SensorImage, Window, short_names

if TYPE_CHECKING:
    from simmat.evaluation import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Choice, Prediction, Predictor

_ENDINGS = (".json", "_mask.png", "_mask.tif", "_overlay.png")
"""Endings of the files that are written for each object."""

_LARGE_IMAGE_FORMATS = ("labels", "geotiff", "overlay")
"""Formats of "auto" for the objects of a large image, if the user names no format."""
_MOST_PIXELS = 2048**2
"""Largest image without georeference that, segmented in windows, gets a mask and a picture for each object."""


@dataclass(frozen=True)
class PromptJob:
    """What to do with each image of a call.

    Attributes:
        out: folder of the results; like `cache` not part of the request that a record stores.
        choice: which of the predicted masks to take.
        missing: names or indices of the channels that the images lack.
        tile: side of the window around a prompt in pixels; None chooses it.
        formats: formats of files for all objects of an image together.
        is_grouped: False writes a mask, a picture and a json for each object, of images that are not large.
        cache: folder of stored embeddings; None stores none.
    """

    out: Path = field(repr=False)
    formats: ChosenFormats = field(repr=False)
    is_grouped: bool
    choice: Choice = "single"
    missing: tuple[str | int, ...] = ()
    tile: int | None = None
    cache: Path | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PromptWork(Work):
    """One image of a call and the prompts for it."""

    predictor: Predictor
    job: PromptJob
    name: str
    files: Mapping[str, Path]
    prompts: Prompts
    model: str

    def is_done(self) -> bool:
        """Return whether an earlier call did the same, and all its files still exist."""
        done = partial(is_written, self.job.out, request=self._request())
        return all(map(done, self.outputs)) or done(self.name)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, with which the names of the written files begin."""
        return (self.name,) if self._is_grouped else self.prompts.names or ()

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the names of the written files."""
        if self._is_grouped:
            return (".json", *self.job.formats.endings(["objects"]))
        return _ENDINGS

    @property
    def _is_grouped(self) -> bool:
        """True if the objects of an image are written together."""
        return self.job.is_grouped or self.prompts.names is None

    def start(self) -> Callable[[], list[str]]:
        """Segment the objects and write their files, all or none; the returned function only returns the lines."""
        job, predictor = self.job, self.predictor
        reader = predictor.reader(self.files, missing=job.missing)
        prompts = self.prompts.in_image(reader)
        where = next(iter(self.files.values()), Path(self.name)).name
        at_once = job.tile is None and isinstance(reader, LoadedImage)
        is_large = reader.georeference is not None or math.prod(reader.size_hw) > _MOST_PIXELS
        if self._is_grouped or (is_large and not at_once):
            return partial(list, self._run_large(reader, prompts, where))
        loaded, found = (self._at_once if at_once else self._in_windows)(reader, prompts)
        lines = []
        with staged_files(job.out, replaced=replaceable_files(job.out, prompts, self.endings)) as staging:
            for (name, prompt), prediction in zip(prompts.items(), found, strict=True):
                self._write(staging, name, prediction, prompt)
                pixels = int(prediction.mask.sum())
                lines.append(
                    f"{job.out / name}_mask.png  score {prediction.score:.3f}  {pixels} px  "
                    f"of {short_names(loaded.channels)}" + self._class_text(prediction)
                )
        _warn(where, found[0].warning, loaded)
        return partial(list, lines)

    def _at_once(self, reader: ImageReader, prompts: Mapping[str, Prompt]) -> tuple[SensorImage, Sequence[Prediction]]:
        """Return the image as loaded and the masks of all prompts."""
        image = reader.read(Window(0, 0, *reader.size_hw))
        loaded = self.predictor.set_image(image, missing=self.job.missing, cache=self.job.cache)
        return loaded, self.predictor.predict_prompts(tuple(prompts.values()), choice=self.job.choice)

    def _in_windows(
        self, reader: ImageReader, prompts: Mapping[str, Prompt]
    ) -> tuple[SensorImage, Sequence[Prediction]]:
        """Return the whole image, and masks of its size that were predicted in windows around the prompts."""
        from simmat.predictor.large import LargeImage

        image = LargeImage(self.predictor, reader, tile=self.job.tile, cache=self.job.cache)
        found = [image.predict(prompt, self.job.choice) for prompt in prompts.values()]
        loaded, size_hw = reader.read(whole := Window(0, 0, *reader.size_hw)), reader.size_hw
        return loaded, [replace(one, mask=one.whole_mask(size_hw), image=loaded, window=whole) for one in found]

    def _run_large(self, reader: ImageReader, prompts: Mapping[str, Prompt], where: str) -> list[str]:
        """Segment the objects in windows, and write all of them to the same files."""
        from simmat.cli.segmenter import Job, Segmenter
        from simmat.predictor.large import LargeImage
        from simmat.predictor.window_results import SegmentOptions

        job = self.job
        image = LargeImage(self.predictor, reader, tile=job.tile, cache=job.cache)
        segmenter = Segmenter(
            self.predictor, Job(SegmentOptions(), job.formats, job.out, missing=job.missing), self.model
        )
        job.formats.for_image("objects", reader)  # raises before any work
        objects, notes, doubt = [], [], ""
        for name, prompt in prompts.items():
            prediction = image.predict(prompt, job.choice)
            found_object = prediction.found_object(_click(prompt))
            doubt = doubt or prediction.warning
            objects += [] if found_object is None else [found_object]
            notes.append(
                {
                    "object": name,
                    **prompt_values(prompt),
                    "score": prediction.score,
                    "mask_pixels": int(prediction.mask.sum()),
                    **self._class_values(prediction),
                }
            )
        _warn(where, doubt, None)
        result = segmenter.objects_result(self.name, self.files, image, objects)
        line = segmenter.write_results(self.name, self.files, image, [result], {"prompts": notes}, self._request())
        return [line]

    def _request(self) -> str:
        return digest_of(self.model, files_key(self.files), repr(self.job), self.job.formats.names, self.prompts.key)

    def _write(self, out: Path, name: str, prediction: Prediction, prompt: Prompt) -> None:
        """Write mask, overlay and json of one object into the staging folder `out`."""
        from PIL import Image

        from simmat.report.display import display_rgb
        from simmat.report.overlay import MASK, draw_overlay
        from simmat.report.regions import class_colour

        image, predictor = prediction.image, self.predictor
        missing = predictor.inputs.missing_channels(self.job.missing)
        written = [f"{name}_mask.png", f"{name}_overlay.png", f"{name}.json"]
        if image.georeference is not None and (backend := installed_geo_backend()) is not None:
            mask_file = backend.write_mask(prediction.mask, image.georeference, out / f"{name}_mask")
            written.append(mask_file.name)
        kept = [i for i, channel in enumerate(image.channels) if channel.name not in missing]
        visible = image.select(kept) if missing else image  # `select` copies all planes
        with atomic_path(out / written[0]) as path:
            Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(path)
        with atomic_path(out / written[1]) as path:
            colour = MASK if prediction.class_id is None else class_colour(prediction.class_id)
            draw_overlay(display_rgb(visible), prediction.mask, prompt, colour=colour).save(path)
        atomic_write_json(
            out / written[2],
            {
                **record_of(self._request(), self.files, predictor, self.job.missing, image.size_hw),
                "picture_hw": image.picture_hw,
                "channels": [{"name": c.name, "quantity": c.quantity, "unit": c.unit} for c in image.channels],
                "score": prediction.score,
                "mask_pixels": int(prediction.mask.sum()),
                **self._class_values(prediction),
                **prompt_values(prompt),
                "written": written,
            },
        )

    def _class_values(self, found: Prediction) -> dict[str, Any]:
        """Return the class of a mask as json values; empty if the model does not distinguish classes."""
        if found.class_id is None:
            return {}
        name = self.predictor.class_names.get(found.class_id, str(found.class_id))
        return {"class": found.class_id, "class_name": name, "class_probability": found.class_probability}

    def _class_text(self, found: Prediction) -> str:
        values = self._class_values(found)
        return f"  {values['class_name']} ({values['class_probability']:.0%})" if values else ""


def formats_of_prompts(names: Sequence[str] | None, registry: Registry) -> ChosenFormats:
    """Return the formats of the objects of one image together; None stands for those of large images."""
    chosen = choose_formats(names or (AUTO,), ["objects"], registry)
    if names is not None:
        return chosen
    return ChosenFormats((), tuple(one for one in chosen.automatic if one.name in _LARGE_IMAGE_FORMATS))


def segment_prompts(
    samples: Sequence[tuple[str, Mapping[str, Path], Prompts]],
    predictor: Predictor,
    job: PromptJob,
    processes: Processes | None = None,
) -> None:
    """Segment the objects of many images; the errors of failed images are raised as one at the end."""
    works = [PromptWork(predictor, job, name, files, prompts, predictor.digest) for name, files, prompts in samples]
    check_unique([name for work in works for name in work.outputs])
    check_unique([work.name for work in works])
    for work in works:
        replaceable_files(job.out, work.outputs, work.endings)  # raises before any work
    for_all = job.formats.for_call(["objects"])
    check_files_for_all(for_all, job.out, [work.name for work in works])
    outcome = run_all(works, job.out, processes)
    if processes is not None and not processes.is_main:
        return
    if outcome.done:
        write_files_for_all(for_all, job.out, outcome.done, predictor.class_names)
    if outcome.error is not None:
        raise outcome.error


def _click(prompt: Prompt) -> tuple[float, float]:
    """Return the first point of a prompt, or the middle of its box."""
    if prompt.box is None or len(prompt.point_coords):
        x, y = prompt.point_coords[0].tolist()
    else:
        x, y = prompt.box.reshape(2, 2).mean(axis=0).tolist()
    return x, y


def _warn(where: str, doubt: str, image: SensorImage | None) -> None:
    if doubt:
        say(f"Warning: {where}: {doubt}; are unit, bit depth and exposure the same?", err=True)
    if image is not None and image.size_note:
        say(f"Warning: {where}: {image.size_note}", err=True)

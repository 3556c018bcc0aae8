"""Segment the objects that prompts mark in many images: `simmat predict --point`, `--box`, `--prompts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.cli.batch import (
    check_coco,
    digest_of,
    files_key,
    is_written,
    own_files,
    record_of,
    refuse_twice,
    result_endings,
    run_all,
)
from simmat.cli.prompts import Prompts, prompt_values
from simmat.io.files import atomic_path, atomic_write_json, staged_files
from simmat.predictor.reading import ImageReader, LoadedImage
from simmat.terminal import say
from simmat.types import Prompt, SensorImage, Window, short_names

if TYPE_CHECKING:
    from simmat.evaluation import Processes
    from simmat.predictor import Choice, Prediction, Predictor

_ENDINGS = (".json", "_mask.png", "_mask.tif", "_overlay.png")
"""Of the files that are written for each object."""

_ALL_OBJECTS = ("labels", "geotiff", "overlay")
"""Formats of the objects of a large image: the first without georeference, the second with it, and the third."""
_MOST_PIXELS = 2048**2
"""Of an image without georeference that is segmented in windows and gets a mask and a picture for each object."""


@dataclass(frozen=True)
class PromptJob:
    """What is done with each image of a call.

    Attributes:
        out: folder of the files; not part of the request that a record holds, as `cache`.
        choice: which mask of an answer is taken.
        tile: side of the window around a prompt; None chooses it.
        formats: files of `simmat.results.FORMATS`, for all objects of an image together; None writes a mask, a picture
            and a json for each object.
    """

    out: Path = field(repr=False)
    choice: Choice = "single"
    missing: tuple[str | int, ...] = ()
    tile: int | None = None
    formats: tuple[str, ...] | None = None
    cache: Path | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PromptWork:
    """One image of a call and the prompts for it."""

    predictor: Predictor
    job: PromptJob
    name: str
    files: Mapping[str, Path]
    prompts: Prompts
    model: str

    windows = 1

    def is_done(self) -> bool:
        """Return whether an earlier call did the same, and all its files still exist."""
        done = partial(is_written, self.job.out, request=self._request())
        return all(map(done, self.outputs)) or done(self.name)

    @property
    def outputs(self) -> tuple[str, ...]:
        """How the names of the written files begin."""
        return (self.name,) if self._is_grouped else self.prompts.names or ()

    @property
    def endings(self) -> tuple[str, ...]:
        """How the names of the written files end."""
        if self._is_grouped:
            return result_endings(self.job.formats or _ALL_OBJECTS, ["objects"])
        return _ENDINGS

    @property
    def _is_grouped(self) -> bool:
        """True if the objects of an image are written together."""
        return self.job.formats is not None or self.prompts.names is None

    def prepare(self, indices: Sequence[int]) -> list[str]:
        """Do nothing: an image with prompts is not shared."""
        return []

    def start(self) -> Callable[[], list[str]]:
        """Segment the objects and write their files; nothing is left to do."""
        return partial(list, self.run())

    def run(self) -> list[str]:
        """Segment the objects, write their files, all or none, and return lines to print."""
        job, predictor = self.job, self.predictor
        reader = predictor.reader(self.files, missing=job.missing)
        prompts = self.prompts.in_image(reader)
        where = next(iter(self.files.values()), Path(self.name)).name
        at_once = job.tile is None and isinstance(reader, LoadedImage)
        is_large = reader.georeference is not None or math.prod(reader.size_hw) > _MOST_PIXELS
        if self._is_grouped or (is_large and not at_once):
            return self._run_large(reader, prompts, where)
        loaded, found = (self._at_once if at_once else self._in_windows)(reader, prompts)
        lines = []
        with staged_files(job.out, replaced=own_files(job.out, prompts, self.endings)) as staging:
            for (name, prompt), prediction in zip(prompts.items(), found, strict=True):
                self._write(staging, name, prediction, prompt)
                pixels = int(prediction.mask.sum())
                lines.append(
                    f"{job.out / name}_mask.png  score {prediction.score:.3f}  {pixels} px  "
                    f"of {short_names(loaded.channels)}" + self._class_text(prediction)
                )
        _warn(where, found[0].doubt, loaded)
        return lines

    def _at_once(self, reader: ImageReader, prompts: Mapping[str, Prompt]) -> tuple[SensorImage, Sequence[Prediction]]:
        """Return the image as loaded and the masks of all prompts."""
        image = reader.read(Window(0, 0, *reader.size_hw))
        loaded = self.predictor.set_image(image, missing=self.job.missing, cache=self.job.cache)
        return loaded, self.predictor.predict_prompts(tuple(prompts.values()), choice=self.job.choice)

    def _in_windows(
        self, reader: ImageReader, prompts: Mapping[str, Prompt]
    ) -> tuple[SensorImage, Sequence[Prediction]]:
        """Return the whole image, and whole masks that were found in the windows around the prompts."""
        from simmat.predictor.large import LargeImage

        image = LargeImage(self.predictor, reader, tile=self.job.tile, cache=self.job.cache)
        found = [image.predict(prompt, self.job.choice) for prompt in prompts.values()]
        loaded = reader.read(whole := Window(0, 0, *reader.size_hw))
        masks = [np.zeros(reader.size_hw, np.bool_) for _ in found]
        for mask, one in zip(masks, found, strict=True):
            mask[one.window.slices] = one.mask
        return loaded, [
            replace(one, mask=mask, image=loaded, window=whole) for mask, one in zip(masks, found, strict=True)
        ]

    def _run_large(self, reader: ImageReader, prompts: Mapping[str, Prompt], where: str) -> list[str]:
        """Segment objects in windows, and write them together."""
        from simmat.cli.segmenter import Job, Segmenter
        from simmat.predictor.answers import Wanted
        from simmat.predictor.large import LargeImage
        from simmat.results import check_place

        job, place = self.job, reader.georeference
        image = LargeImage(self.predictor, reader, tile=job.tile, cache=job.cache)
        formats = job.formats or (_ALL_OBJECTS[place is not None], "overlay")
        segmenter = Segmenter(self.predictor, Job(Wanted(), formats, job.out, missing=job.missing), self.model)
        check_place(formats, place, reader.origin)
        objects, notes, doubt = [], [], ""
        for name, prompt in prompts.items():
            found = image.predict(prompt, job.choice)
            one = found.found_object(_click(prompt))
            doubt = doubt or found.doubt
            objects += [] if one is None else [one]
            notes.append(
                {
                    "object": name,
                    **prompt_values(prompt),
                    "score": found.score,
                    "mask_pixels": int(found.mask.sum()),
                    **self._class_values(found),
                }
            )
        _warn(where, doubt, None)
        result = segmenter.objects_result(self.name, self.files, image, objects)
        line = segmenter.write_results(self.name, self.files, image, [result], {"prompts": notes}, self._request())
        return [line]

    def _request(self) -> str:
        return digest_of(self.model, files_key(self.files), repr(self.job), self.prompts.key)

    def _write(self, out: Path, name: str, prediction: Prediction, prompt: Prompt) -> None:
        """Write mask, overlay and json of one object into the staging folder `out`."""
        from PIL import Image

        from simmat.report.display import display_rgb
        from simmat.report.overlay import draw_overlay

        image, predictor = prediction.image, self.predictor
        missing = predictor.missing_channels(self.job.missing)
        written = [f"{name}_mask.png", f"{name}_overlay.png", f"{name}.json"]
        if image.georeference is not None:
            placed = predictor.adapter.save_mask(prediction.mask, image.georeference, out / f"{name}_mask")
            written += [placed.name] if placed else []
        shown = image.select([i for i, channel in enumerate(image.channels) if channel.name not in missing])
        with atomic_path(out / written[0]) as path:
            Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(path)
        with atomic_path(out / written[1]) as path:
            draw_overlay(display_rgb(shown), prediction.mask, prompt).save(path)
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
        """Return the class of a mask as values of a json; none where the model does not distinguish classes."""
        if found.class_id is None:
            return {}
        name = self.predictor.class_names.get(found.class_id, str(found.class_id))
        return {"class": found.class_id, "class_name": name, "class_probability": found.class_probability}

    def _class_text(self, found: Prediction) -> str:
        values = self._class_values(found)
        return f"  {values['class_name']} ({values['class_probability']:.0%})" if values else ""


def segment_prompts(
    samples: Sequence[tuple[str, Mapping[str, Path], Prompts]],
    predictor: Predictor,
    job: PromptJob,
    processes: Processes | None = None,
) -> None:
    """Segment the objects of many images. An image that fails stops no other; the error at the end holds all."""
    if job.formats is not None:
        from simmat.results import check_formats

        check_formats(job.formats, kind="objects")
    works = [PromptWork(predictor, job, name, files, prompts, predictor.digest) for name, files, prompts in samples]
    refuse_twice([name for work in works for name in work.outputs])
    refuse_twice([work.name for work in works])
    for work in works:
        own_files(job.out, work.outputs, work.endings)  # refuses files of others before any work
    if job.formats is not None and "coco" in job.formats:
        check_coco(job.out, [work.name for work in works])
    outcome = run_all(works, job.out, processes)
    if processes is not None and not processes.is_main:
        return
    if outcome.done and job.formats is not None and "coco" in job.formats:
        from simmat.cli.segmenter import write_coco

        write_coco(job.out, outcome.done, predictor.class_names)
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

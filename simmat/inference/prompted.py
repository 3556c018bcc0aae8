"""Segment the objects of an image that prompts mark, and write their files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simmat.drawing.display import display_rgb
from simmat.drawing.overlay import MASK, class_colour, draw_overlay
from simmat.errors import ConfigError
from simmat.foundation import MAX_PROMPTS
from simmat.geo import geo_backend, installed_geo_backend
from simmat.inference.job import ImageOutcome, ImageTask, Job, Progress, image_warnings
from simmat.inference.prompts import prompt_in_pixels, prompt_values
from simmat.inference.records import replaceable_files
from simmat.inference.segmenter import Segmenter
from simmat.io.files import atomic_write_json, output_errors, staged_files
from simmat.predictor.large_image import TiledImage
from simmat.predictor.prompts import check_inside
from simmat.predictor.reading import LoadedImage
from simmat.predictor.uncertainty import Uncertainty
from simmat.types import ImageReader, Prompt, SensorImage, Window, short_names

if TYPE_CHECKING:
    from simmat.predictor import Prediction, Predictor

_MAX_PIXELS = 2048**2
"""Largest image without georeference that, segmented in windows, gets a mask and a picture for each object."""


class PromptSegmenter(Segmenter):
    """Segments the objects that prompts mark."""

    def shared_windows(self, task: ImageTask) -> int:
        """Return 1: prompts take the windows around them."""
        return 1

    def segment(self, task: ImageTask) -> ImageOutcome:
        """Segment the prompted objects of an image and write their files, all or none."""
        job, predictor, options = self.job, self.predictor, self.job.options
        reader = predictor.reader(task.files, missing=options.missing)
        prompts = self._prompts_in(task, reader)
        for prompt in prompts.values():
            check_inside(prompt, reader)
        image = TiledImage(predictor, reader, tile=options.tile, cache=options.cache)
        in_windows = options.tile is not None or not isinstance(reader, LoadedImage)
        is_large = in_windows and (reader.georeference is not None or math.prod(reader.size_hw) > _MAX_PIXELS)
        if is_large and options.uncertainty:
            raise ConfigError(
                f"{reader.origin}: --uncertainty is for images of which each object gets its own mask; this one has "
                f"{reader.size_hw[1]}x{reader.size_hw[0]} pixels in windows. Cut the part out, or leave it out"
            )
        write = self._write_together if job.is_grouped or is_large else self._write_each
        return write(task, image, prompts)

    def _prompts_in(self, task: ImageTask, reader: ImageReader) -> Mapping[str, Prompt]:
        """Return the prompts of an image in its pixels: output name -> prompt."""
        options = self.job.options
        if options.is_map_file and options.prompts is not None:
            found = geo_backend(str(options.prompts)).read_prompts(options.prompts, options.crs, reader)
            return {f"{task.name}_{name}": prompt for name, prompt in found.items()}
        if options.crs is not None:
            return {task.name: prompt_in_pixels(options.points, options.negative, options.box, options.crs, reader)}
        return task.prompts or {}

    def _predictions(self, image: TiledImage, prompts: Sequence[Prompt]) -> Iterator[Prediction]:
        """Yield the mask of each prompt; some are decoded together, and so many are in memory."""
        for start in range(0, len(prompts), MAX_PROMPTS):
            yield from image.predict_prompts(prompts[start : start + MAX_PROMPTS], self.job.options.mask)

    def _write_together(self, task: ImageTask, image: TiledImage, prompts: Mapping[str, Prompt]) -> ImageOutcome:
        """Write all objects to the same files."""
        self.job.formats.for_image("objects", image.reader)  # raises before any work
        objects, notes, warning = [], [], ""
        found = self._predictions(image, tuple(prompts.values()))
        for (name, prompt), prediction in zip(prompts.items(), found, strict=True):
            one = prediction.found_object(_click(prompt))
            objects += [] if one is None else [one]
            warning = warning or prediction.warning
            notes.append({"object": name, **prompt_values(prompt), **_mask_values(prediction, self.predictor)})
        results = self.results(task, image, objects)
        return replace(self.write(task, image, results, {"prompts": notes}), warnings=image_warnings(warning))

    def _write_each(self, task: ImageTask, image: TiledImage, prompts: Mapping[str, Prompt]) -> ImageOutcome:
        """Write mask, overlay and json of each object."""
        job, predictor, reader, options = self.job, self.predictor, image.reader, self.job.options
        paths, lines, warning = list[Path](), [], ""
        found = self._predictions(image, tuple(prompts.values()))
        shown = reader.read(Window(0, 0, *reader.size_hw))
        names = short_names(shown.channels)
        replaced = replaceable_files(job.out, prompts, job.endings())
        with staged_files(job.out, replaced=replaced, tidy=False) as staging:
            for (name, prompt), prediction in zip(prompts.items(), found, strict=True):
                warning = warning or prediction.warning
                one = replace(prediction, mask=prediction.whole_mask(reader.size_hw))
                seen = image.uncertainty(prompt, options.mask, prediction.window) if options.uncertainty else None
                paths += [job.out / file for file in self._write_object(task, name, prompt, one, shown, staging, seen)]
                values = _mask_values(one, predictor)
                named = f"  {values['class_name']} ({values['class_probability']:.0%})" if "class" in values else ""
                mask = f"{job.out / name}_mask.png"
                lines.append(f"{mask}  score {one.score:.3f}  {values['mask_pixels']} px  of {names}{named}")
                if seen is not None:
                    lines.append(f"{job.out / name}_uncertainty.tif  probability over flips and shifts: mean, std")
        return ImageOutcome(task.name, tuple(paths), tuple(lines), image_warnings(warning, shown.size_note))

    def _write_object(
        self,
        task: ImageTask,
        name: str,
        prompt: Prompt,
        prediction: Prediction,
        image: SensorImage,
        folder: Path,
        uncertainty: Uncertainty | None,
    ) -> list[str]:
        """Write mask, overlay and json of one object of an image to a folder; return the names of the files."""
        job, predictor = self.job, self.predictor
        written = [f"{name}_mask.png", f"{name}_overlay.png", f"{name}.json"]
        if image.georeference is not None and (backend := installed_geo_backend()) is not None:
            written.append(backend.write_mask(prediction.mask, image.georeference, folder / f"{name}_mask").name)
        if uncertainty is not None:
            written.append(_write_uncertainty(uncertainty, folder / f"{name}_uncertainty.tif"))
        missing = predictor.image_loader.missing_channels(job.options.missing)
        kept = [i for i, channel in enumerate(image.channels) if channel.name not in missing]
        visible = image.select(kept) if missing else image  # `select` copies all planes
        colour = MASK if prediction.class_id is None else class_colour(prediction.class_id)
        with output_errors(folder):
            Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(folder / written[0])
            draw_overlay(display_rgb(visible), prediction.mask, prompt, colour=colour).save(folder / written[1])
        atomic_write_json(
            folder / written[2],
            {
                **self.record(task, image.size_hw),
                "preview_hw": image.preview_hw,
                "channels": [{"name": c.name, "quantity": c.quantity, "unit": c.unit} for c in image.channels],
                **_mask_values(prediction, predictor),
                **prompt_values(prompt),
                "written": written,
            },
        )
        return written


def _write_uncertainty(found: Uncertainty, file: Path) -> str:
    """Write mean and standard deviation as two float32 pages of a TIFF; return the file's name."""
    import tifffile

    with output_errors(file.parent), tifffile.TiffWriter(file) as tiff:
        for plane in (found.mean, found.std):
            tiff.write(plane, photometric="minisblack", compression="zlib", metadata=None, software=False)
    return file.name


def _mask_values(found: Prediction, predictor: Predictor) -> dict[str, Any]:
    """Return score and size of a mask, and its class if the model distinguishes classes, as json values."""
    values: dict[str, Any] = {"score": found.score, "mask_pixels": int(found.mask.sum())}
    if found.class_id is not None:
        values |= {
            "class": found.class_id,
            "class_name": predictor.class_names.get(found.class_id, str(found.class_id)),
        }
        values["class_probability"] = found.class_probability
    return values


def _click(prompt: Prompt) -> tuple[float, float]:
    """Return the first point of a prompt, or the middle of its box."""
    if prompt.box is None or len(prompt.point_coords):
        x, y = prompt.point_coords[0].tolist()
    else:
        x, y = prompt.box.reshape(2, 2).mean(axis=0).tolist()
    return x, y


def make_segmenter(predictor: Predictor, job: Job, progress: Progress | None = None) -> Segmenter:
    """Return what segments the images of a job."""
    return (Segmenter if job.options.searches else PromptSegmenter)(predictor, job, progress)

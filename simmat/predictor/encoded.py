"""The embedding of one image, or of windows of it: it answers prompts, and finds objects and classes without them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from simmat.data.pipeline import PreparedImage, prompt_batch
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseAnswer, classes_of
from simmat.nn.device import threads_for_load
from simmat.nn.resize import restore_logits
from simmat.predictor.cache import CachedEmbedding
from simmat.types import BoolArray, FloatArray, ImageReader, Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject
    from simmat.everything import EverythingSettings
    from simmat.predictor.predictor import Predictor

_KEPT_BYTES = 2**28
"""Windows with their embeddings that an image keeps; the one asked for longest ago is dropped."""


class EncodedImage:
    """The embedding of an image."""

    @threads_for_load()
    @torch.inference_mode()
    def __init__(
        self,
        model: SimMAT,
        prepared: PreparedImage,
        classes: DenseSpec | None = None,
        cached: CachedEmbedding | None = None,
    ) -> None:
        """Encode an image, or read its embedding from a file.

        Args:
            classes: what its dense head distinguishes.
            cached: where the embedding is kept; None encodes and keeps nothing.

        Raises:
            OutputError: the embedding cannot be written.
        """
        self.prepared = prepared
        self._model = model
        self._classes = classes
        self._device = next(model.parameters()).device
        found = None if cached is None else cached.read()
        if found is None:
            planes, content = prepared.planes[None].to(self._device), prepared.content[None].to(self._device)
            found = model.encode(planes, content)
            found = found if cached is None else cached.write(found)
        if cached is not None:
            weight = next(model.parameters())
            found = ImageEmbedding(tuple(level.to(weight) for level in found.levels), found.strides)
        self.embedding: ImageEmbedding = found

    @property
    def nbytes(self) -> int:
        """Bytes of the embedding and of the network's input."""
        return sum(part.nbytes for part in (*self.embedding.levels, self.prepared.planes, self.prepared.content))

    @threads_for_load()
    @torch.inference_mode()
    def decode(self, prompts: Sequence[Prompt], *, mask_input: Tensor | None = None) -> MaskPrediction:
        """Decode K prompts of one kind: all with as many points, and all with or without box and mask.

        Args:
            prompts: in pixels of the original image.
            mask_input: (K, 1, h, w) logits of earlier masks, in place of the prompts' own.
        """
        batch = prompt_batch(prompts, self.prepared.frame, self._device)
        if mask_input is not None:
            batch = replace(batch, mask_input=mask_input)
        return self._model.decode(self.embedding, batch)

    @threads_for_load()
    @torch.inference_mode()
    def decode_clicks(self, points: FloatArray) -> MaskPrediction:
        """Answer K clicks, one each, at (K, 2) xy of the S×S input."""
        count = len(points)
        batch = PromptBatch(
            image_index=torch.zeros(count, dtype=torch.int64, device=self._device),
            point_coords=torch.from_numpy(points[:, None]).to(self._device),
            point_labels=torch.ones(count, 1, dtype=torch.int64, device=self._device),
        )
        return self._model.decode(self.embedding, batch)

    @cached_property
    def _dense(self) -> DenseAnswer | None:
        with threads_for_load(), torch.inference_mode():
            return None if self._model.dense is None else self._model.dense(self.embedding)

    @threads_for_load()
    @torch.inference_mode()
    def class_map(self) -> FloatArray | None:
        """Return (K, H, W) class probabilities of the original image; None without a dense head."""
        if self._dense is None or self._classes is None:
            return None
        chances: FloatArray = restore_logits(self._dense.classes, self.prepared.frame)[0].softmax(0).cpu().numpy()
        return chances

    @threads_for_load()
    @torch.inference_mode()
    def class_of(self, low_res: FloatArray) -> tuple[int, float] | None:
        """Return the class (label value) of a mask and its probability; None without classes of objects, or a pixel.

        Args:
            low_res: (h, w) logits of the mask at the decoder's own size.
        """
        dense, spec = self._dense, self._classes
        if dense is None or spec is None or spec.classes == (None,) or not (low_res > 0).any():
            return None
        seen = classes_of(low_res[None] > 0, dense.classes[0].softmax(0), spec.background)
        value = spec.classes[int(seen[0][0]) - int(spec.background)]
        return None if value is None else (value, float(seen[1][0]))

    @threads_for_load()
    @torch.inference_mode()
    def find_objects(self, settings: EverythingSettings) -> list[FoundObject]:
        """Find every object, best first, in pixels of the original image.

        With a dense head the clicks are the peaks of its distance map, and a place in every part of its class map that
        has no peak; a part that no answer covers is an object by itself. Without one, the clicks are a grid.
        """
        from simmat import everything

        if self._dense is None or self._classes is None:
            clicks = everything.grid_points(self.prepared.frame, settings.grid)
            found, _ = self._answer_clicks(clicks, settings, stable=True)
            return sorted(found, key=lambda one: -one.score)
        return self._find_by_classes(self._dense, self._classes, settings)

    def _answer_clicks(
        self, clicks: FloatArray, settings: EverythingSettings, *, stable: bool
    ) -> tuple[list[FoundObject], BoolArray]:
        """Return the objects at (N, 2) xy of the input, and their (F, h, w) masks at the decoder's own size."""
        from simmat import everything
        from simmat.data.instances import FoundObject

        frame = self.prepared.frame
        answers = everything.answer_clicks(clicks, self.decode_clicks, frame, settings, stable=stable)
        kept = everything.suppress(answers.low, answers.scores, settings.overlap)
        places = frame.points_to_original(answers.points)
        found = []
        for row in kept:
            x, y = places[row].tolist()
            found.append(FoundObject(answers.regions[row], float(answers.scores[row]), (x, y)))
        return found, answers.low[kept]

    def _find_by_classes(self, dense: DenseAnswer, spec: DenseSpec, settings: EverythingSettings) -> list[FoundObject]:
        from simmat import everything

        frame = self.prepared.frame
        distance = dense.distance[0, 0].sigmoid()  # (h, w)
        chances = dense.classes[0].float().softmax(0)  # (K, h, w)
        stride = frame.size / distance.shape[-1]
        height, width = (round(side / stride) for side in frame.scaled_hw)  # the rest is padding
        objects = chances[1:].clone() if spec.background else torch.zeros_like(chances)
        objects[:, height:] = 0
        objects[:, :, width:] = 0
        parts, classes = everything.object_parts(objects, settings.spread**2)
        points, _ = everything.click_places(
            distance[:height, :width], parts[:, :height, :width], lowest=settings.peak, spread=settings.spread
        )
        found, low = self._answer_clicks((points[: settings.most] + 0.5) * stride - 0.5, settings, stable=False)
        if found:
            found, low = _classified(found, low, chances, spec, settings.objectness)
        found_classes = [spec.classes.index(one.instance.class_id) for one in found]
        missed = parts[everything.uncovered(parts, classes, low, found_classes)]
        if len(missed):
            more, missed = self._objects_of(missed, objects.sum(0), distance, settings)
            found += _classified(more, missed, chances, spec, 0.0)[0]
        found.sort(key=lambda one: -one.score)
        if found and spec.background and settings.reach:
            inside = restore_logits(1 - chances[None, :1], frame)[0, 0] > everything.OBJECT
            reach = math.ceil(settings.reach * max(frame.original_hw) / max(frame.scaled_hw))
            regions = everything.grown([one.instance for one in found], inside, reach)
            found = [replace(one, instance=region) for one, region in zip(found, regions, strict=True)]
        return sorted(found, key=lambda one: -one.score)

    def _objects_of(
        self, parts: BoolArray, objectness: Tensor, distance: Tensor, settings: EverythingSettings
    ) -> tuple[list[FoundObject], BoolArray]:
        """Return the large enough of (P, h, w) parts of a class map: as objects of the lowest score, and as parts."""
        from simmat.data.instances import FoundObject
        from simmat.data.mask_grid import MaskGrid
        from simmat.everything import OBJECT

        frame = self.prepared.frame
        inside = torch.from_numpy(parts).to(objectness.device)
        values = torch.where(inside, objectness - OBJECT, -OBJECT)[:, None]  # (P, 1, h, w)
        highest = torch.where(inside, distance, -1.0).flatten(1).argmax(1).cpu().numpy()
        places = np.stack(np.unravel_index(highest, distance.shape)[::-1], axis=1)  # (P, 2) xy
        clicks = frame.points_to_original(((places + 0.5) * (frame.size / len(distance)) - 0.5).astype(np.float32))
        found, kept = [], []
        for row, (region,) in enumerate(MaskGrid(frame).masks(values)):
            if region is not None and region.area >= settings.min_area:
                x, y = clicks[row].tolist()
                found.append(FoundObject(region, settings.min_score, (x, y)))
                kept.append(row)
        return found, parts[kept]


class EncodedWindows:
    """The windows of an image: read and encoded when first asked for, and kept while there is memory for them."""

    def __init__(
        self,
        predictor: Predictor,
        reader: ImageReader,
        sample: Callable[[], SensorImage],
        whole: EncodedImage | None = None,
    ) -> None:
        """Encode nothing yet.

        Args:
            sample: reads pixels that show what the values of the image are like, see `Predictor.fit`.
            whole: the embedding of the whole image, if it is known and the only window.
        """
        self._predictor, self._reader, self._sample, self._whole = predictor, reader, sample, whole
        self._token = object()  # stands for the image, see `Predictor.fitted_to`
        self._kept: dict[Window, tuple[SensorImage, EncodedImage]] = {}  # the one asked for last is at the end

    @property
    def nbytes(self) -> int:
        """Bytes of the windows that are kept."""
        return sum(image.data.nbytes + image.valid.nbytes + one.nbytes for image, one in self._kept.values())

    def look(
        self, window: Window, *, keep: bool = True, cache: Path | None = None
    ) -> tuple[SensorImage, EncodedImage | None]:
        """Return the pixels of a window and its embedding; None as the embedding where nothing is measured.

        Args:
            keep: keep what is computed for it.
            cache: folder that keeps embeddings.

        Raises:
            SimMATError: it cannot be read, or has other channels than the model.
            OutputError: the embedding cannot be written.
        """
        if window in self._kept:
            self._kept[window] = self._kept.pop(window)
            return self._kept[window]
        image = self._reader.read(window)
        self._predictor.inputs.check_channels(image)
        if not image.valid.any():
            return image, None
        found = image, self._encode(image, cache)
        if keep:
            self._kept[window] = found
            while len(self._kept) > 1 and self.nbytes > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]
        return found

    def _encode(self, image: SensorImage, cache: Path | None) -> EncodedImage:
        if self._whole is not None:
            return self._whole
        with self._predictor.encoding:
            if self._predictor.fitted_to is not self._token:  # another image may have been looked at in between
                self._predictor.fit(self._sample)
                self._predictor.fitted_to = self._token
            return self._predictor.encode(image, cache)


def _classified(
    found: Sequence[FoundObject], masks: BoolArray, chances: Tensor, spec: DenseSpec, least: float
) -> tuple[list[FoundObject], BoolArray]:
    """Give objects their class, where there are classes, and a score that counts both.

    Args:
        found: F objects.
        masks: (F, h, w) over the whole input.
        chances: (K, h', w') class probabilities over the same input.
        least: smallest probability of being an object.

    Returns:
        Those that are objects, and their masks.
    """
    kept, first = [], int(spec.background)
    for row, (index, chance, objectness) in enumerate(zip(*classes_of(masks, chances, spec.background), strict=True)):
        if objectness < least:
            continue
        value = spec.classes[int(index) - first]
        known = value is not None
        one = replace(
            found[row],
            instance=replace(found[row].instance, class_id=value),
            score=found[row].score * float(objectness) * (float(chance) if known else 1.0),
            class_probability=float(chance) if known else None,
        )
        kept.append((row, one))
    return [one for _, one in kept], masks[[row for row, _ in kept]]

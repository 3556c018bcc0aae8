"""The embedding of one image: it answers prompts, and finds objects and classes without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from simmat.calibration import Calibration, calibrated, calibrated_classes
from simmat.data.instances import FoundObject, region_from_mask
from simmat.data.pipeline import PreparedImage, prompt_batch
from simmat.errors import BundleError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseAnswer, classes_of
from simmat.nn.device import threads_for_load
from simmat.nn.resize import restore_logits
from simmat.predictor import everything
from simmat.predictor.cache import read_embedding, write_embedding
from simmat.predictor.everything import EverythingSettings
from simmat.predictor.reference import Reference, find_like
from simmat.types import BoolArray, FloatArray, Prompt, SensorImage, Window

if TYPE_CHECKING:
    import PIL.Image

Choice = Literal["single", "best"]


@dataclass(frozen=True)
class Prediction:
    """A mask of one image; those of `LargeImage` cover a window of it.

    Attributes:
        mask: (H, W) bool at the original resolution.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask, calibrated where the bundle has a calibration.
        low_res: (h, w) float32, the same logits at the decoder's own size; `predict(mask=)` takes them.
        image: what was loaded, of the size of the mask.
        window: the part of the whole image that the mask covers; all of it from `Predictor.predict`.
        warning: how the values differ from those of training, so that the mask may be meaningless; "" if they do not.
        class_probabilities: label value -> probability, of all classes but the background, calibrated as `score` is;
            None if the model does not distinguish classes, or the mask is empty.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res: FloatArray
    image: SensorImage
    window: Window
    warning: str = ""
    class_probabilities: Mapping[int, float] | None = None

    @property
    def class_id(self) -> int | None:
        """The class that the object most likely has; None without classes."""
        known = self.class_probabilities
        return None if known is None else max(known, key=known.__getitem__)

    @property
    def class_probability(self) -> float | None:
        """The probability of that class; None without classes."""
        return None if self.class_probabilities is None else max(self.class_probabilities.values())

    def __repr__(self) -> str:
        """Give the size of the mask and its score, not half a million numbers."""
        return f"<Prediction: {int(self.mask.sum())} of {self.mask.size} pixels, score {self.score:.3f}>"

    def plot(self, prompt: Prompt | None = None) -> PIL.Image.Image:
        """Return a picture of the image with the mask over it, and a prompt's points and box; a notebook shows it."""
        from simmat.drawing.display import display_rgb
        from simmat.drawing.overlay import draw_overlay

        return draw_overlay(display_rgb(self.image), self.mask, prompt)

    def whole_mask(self, size_hw: tuple[int, int]) -> BoolArray:
        """Return the mask at the (height, width) of the whole image, False outside of its window."""
        mask = np.zeros(size_hw, np.bool_)
        mask[self.window.slices] = self.mask
        return mask

    def found_object(self, point_xy: tuple[float, float]) -> FoundObject | None:
        """Return the mask in pixels of the whole image; None if it is empty."""
        region = region_from_mask(self.mask, self.class_id, (self.window.y0, self.window.x0))
        return None if region is None else FoundObject(region, self.score, point_xy, self.class_probabilities)


class EncodedImage:
    """The embedding of an image.

    Attributes:
        prepared: the network's input.
        warning: how its values differ from those of training, see `domain_shift_warning`.
        embedding: of a batch of one image.
    """

    @threads_for_load()
    @torch.inference_mode()
    def __init__(
        self,
        model: SimMAT,
        prepared: PreparedImage,
        classes: DenseSpec | None = None,
        cached: Path | None = None,
        *,
        embedding: ImageEmbedding | None = None,
        source: str = "the model",
        warning: str = "",
        calibration: Calibration | None = None,
    ) -> None:
        """Encode an image, or read its embedding from a file.

        Args:
            classes: what its dense head distinguishes.
            cached: file of the embedding; None encodes and keeps nothing.
            embedding: of a batch of this image; None encodes it.
            source: path of the model, for errors.
            calibration: what scores are worth; applied to all but what `decode` returns.

        Raises:
            OutputError: the embedding cannot be written.
        """
        self.prepared, self.warning = prepared, warning
        self._model, self._classes, self._source, self._calibration = model, classes, source, calibration
        self._device = next(model.parameters()).device
        found = embedding if cached is None else read_embedding(cached)
        if found is None:
            found = model.encode(prepared.planes[None].to(self._device), prepared.content[None].to(self._device))
            found = found if cached is None else write_embedding(cached, found)
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

        Raises:
            ValueError: a mask of the prompts is not of the decoder's size.
        """
        batch = prompt_batch(prompts, self.prepared.frame, self._device)
        if mask_input is not None:
            batch = replace(batch, mask_input=mask_input)
        answer = self._model.decode(self.embedding, batch)
        given, size_hw = prompts[0].mask_input, tuple(answer.logits.shape[-2:])
        if given is not None and given.shape != size_hw:
            raise ValueError(
                f"mask must be {size_hw} logits, the low_res of an earlier prediction of this model, got {given.shape}"
            )
        return answer

    @threads_for_load()
    def prediction(
        self,
        decoded: MaskPrediction,
        row: int,
        choice: Choice | int,
        image: SensorImage,
        window: Window,
        *,
        boxed: bool = False,
    ) -> Prediction:
        """Return one of the masks of `decode` at the resolution of the image.

        Args:
            row: the prompt.
            choice: as in `Predictor.predict`, or the number of the mask.
            image: the part of the whole image in `window`.
            boxed: the prompt has a box.

        Raises:
            BundleError: the network's output is not finite.
        """
        scores = decoded.iou[row].tolist()
        if isinstance(choice, int):
            mask = choice
        else:
            mask = 0 if choice == "single" or len(scores) == 1 else 1 + int(np.argmax(scores[1:]))
        low = decoded.logits[row : row + 1, mask : mask + 1].float()  # (1, 1, h, w)
        logits: FloatArray = restore_logits(low, self.prepared.frame)[0, 0].cpu().numpy()
        if not (np.isfinite(logits).all() and math.isfinite(scores[mask])):
            raise BundleError(f"{self._source} gives NaN or infinity for {image.origin}; its weights are damaged")
        low_res: FloatArray = low[0, 0].cpu().numpy()
        classes = self.class_probabilities(low_res)
        score = calibrated(self._calibration, "box" if boxed else "click", float(scores[mask]))
        return Prediction(logits > 0, logits, score, low_res, image, window, self.warning, classes)

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
        logits = restore_logits(self._dense.classes, self.prepared.frame)[0]
        probabilities: FloatArray = logits.softmax(0).cpu().numpy()
        return probabilities

    @threads_for_load()
    @torch.inference_mode()
    def class_probabilities(self, low_res: FloatArray) -> Mapping[int, float] | None:
        """Return the probability of each class of objects for a mask; None without such classes, or a pixel.

        Args:
            low_res: (h, w) logits of the mask at the decoder's own size.
        """
        spec = self._classes
        if spec is None or self._dense is None or not (low_res > 0).any():
            return None
        (found,), _ = classes_of(low_res[None] > 0, self._dense.classes[0].softmax(0), spec.background)
        return calibrated_classes(self._calibration, spec.by_class(found.tolist()))

    @threads_for_load()
    @torch.inference_mode()
    def find_objects(self, settings: EverythingSettings, like: Reference | None = None) -> list[FoundObject]:
        """Find every object, best first, in pixels of the original image; see `simmat.predictor.everything`.

        Args:
            settings: how objects are found.
            like: what to look for, in place of what the model's dense head knows; scores are then not calibrated.
        """
        frame = self.prepared.frame
        if like is not None:
            return find_like(like, self.embedding, frame, self.decode, settings)
        found = everything.find_objects(frame, self.decode_clicks, self._dense, self._classes, settings)
        return [
            replace(
                one,
                score=calibrated(self._calibration, "object", one.score),
                class_probabilities=calibrated_classes(self._calibration, one.class_probabilities),
            )
            for one in found
        ]

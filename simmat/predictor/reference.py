"""Find in an image what a few labelled images show, without training.

A linear discriminant (Fisher 1936) of the embedding tells positions on objects from the others. Each connected part
that it marks is a click and a box for the prompt decoder, and of the answers the mask that agrees best with the part
stays. A discriminant leaves out what all positions of an image have in common, which a cosine with the mean feature of
the objects (PerSAM, arXiv 2305.03048) or with the nearest positions (Matcher, arXiv 2305.13310) does not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.clicks import center_click
from simmat.data.instances import Annotation, FoundObject
from simmat.data.pipeline import PreparedImage, regions_from_logits
from simmat.data.targets import dense_targets
from simmat.errors import DataError
from simmat.foundation import MAX_PROMPTS, ImageEmbedding, MaskPrediction
from simmat.model_spec import DenseSpec
from simmat.nn.matching import matching_features
from simmat.nn.resize import upsample_logits
from simmat.predictor.everything import OBJECT, EverythingSettings, object_parts, suppress, with_classes
from simmat.types import FloatArray, Letterbox, Prompt

_NOWHERE, _NO_LABEL = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)

RIDGE = 0.3
"""Share of the mean variance of the features that is added to each, as few positions are on objects."""
_SEED = 0.5
"""Share of the highest value of a class in an image that a part must reach, as images differ in contrast."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What to look for in other images, see `Predictor.reference`.

    Attributes:
        spec: classes of the objects; index 0 of a class map is the background.
        weights: (K, D) float32 of each class.
        offsets: (K,) float32; positions of a class are more likely than background where its value is above 0.
        digest: sha256 of the images and masks, by which finished images are known.
    """

    spec: DenseSpec
    weights: FloatArray
    offsets: FloatArray
    digest: str

    def __repr__(self) -> str:
        """Give classes and digest, not thousands of numbers."""
        return f"<Reference of {self.spec.classes}, {self.digest}>"

    def logits(self, embedding: ImageEmbedding, letterbox: Letterbox) -> Tensor:
        """Return how likely each class is, (K, h, w) over the whole input: above 0 more than background."""
        features = matching_features(embedding)
        weights, offsets = (torch.from_numpy(part).to(features.device) for part in (self.weights, self.offsets))
        logits = torch.einsum("kd,dhw->khw", weights, features) + offsets[:, None, None]
        height, width = (math.ceil(side * logits.shape[-1] / letterbox.size) for side in letterbox.scaled_hw)
        logits[:, height:] = logits[:, :, width:] = -torch.inf  # padding
        return logits


def find_like(
    reference: Reference,
    embedding: ImageEmbedding,
    letterbox: Letterbox,
    decode: Callable[[Sequence[Prompt]], MaskPrediction],
    settings: EverythingSettings,
) -> list[FoundObject]:
    """Find the objects of an image that a reference shows, best first, in pixels of the original image.

    Args:
        reference: what to look for.
        embedding: of a batch of this image.
        letterbox: position of the image in the input.
        decode: answers prompts of one kind, in pixels of the image.
        settings: its `overlap` and `min_area` count.
    """
    logits = reference.logits(embedding, letterbox)
    probabilities = torch.cat([torch.zeros_like(logits[:1]), logits]).softmax(0)  # (1 + K, h, w)
    parts, classes = object_parts(probabilities[1:], 1)
    seeds = (logits >= _SEED * logits.amax((1, 2), keepdim=True)).cpu().numpy()
    parts = parts[(parts & seeds[classes]).any((1, 2))]  # (P, h, w)
    inside = torch.from_numpy(parts).to(probabilities.device)
    likely = torch.where(inside, probabilities[1:].sum(0) - OBJECT, -OBJECT)[:, None]
    found: list[FoundObject] = []
    masks: list[Tensor] = []
    for start in range(0, len(parts), MAX_PROMPTS):
        group = likely[start : start + MAX_PROMPTS]
        rows = [
            (row, region) for row, (region,) in enumerate(regions_from_logits(group, letterbox)) if region is not None
        ]
        if not rows:
            continue
        clicks = [center_click(region) for _, region in rows]
        boxes = [Prompt(_NOWHERE, _NO_LABEL, np.asarray(region.box_xyxy, np.float32)) for _, region in rows]
        answers = [decode([Prompt.points([xy]) for xy in clicks]), decode(boxes)]
        answer = torch.cat([one.logits.float() for one in answers], dim=1)  # (n, M, h, w)
        part = upsample_logits(group[[row for row, _ in rows]], (answer.shape[2], answer.shape[3]))  # (n, 1, h, w)
        shared, union = ((answer > 0) & (part > 0)).flatten(2).sum(2), ((answer > 0) | (part > 0)).flatten(2).sum(2)
        best = (torch.arange(len(rows), device=answer.device), (shared / union.clamp(min=1)).argmax(1))
        scores = torch.cat([one.iou.float() for one in answers], dim=1)[best].clamp(0, 1).tolist()
        chosen = answer[best][:, None]  # (n, 1, h, w)
        for row, (region,) in enumerate(regions_from_logits(chosen, letterbox)):
            if region is not None and region.area >= settings.min_area:
                found.append(FoundObject(region, scores[row], clicks[row]))
                masks.append(chosen[row, 0] > 0)
    if not found:
        return []
    low = torch.stack(masks).cpu().numpy()
    found, low = with_classes(found, low, probabilities, reference.spec, 0.0)
    kept = suppress(low, [one.score for one in found], settings.overlap)
    return [found[row] for row in kept]


class ReferenceSums:
    """What a reference is made of, added up over labelled images or windows of them."""

    def __init__(self, classes: Sequence[int | None]) -> None:
        self.spec = DenseSpec(background=True, classes=tuple(classes))
        self._sums: tuple[Tensor, ...] = ()
        self._seen = hashlib.sha256(repr(self.spec).encode())

    def add(self, embedding: ImageEmbedding, label: Annotation, prepared: PreparedImage) -> None:
        """Add a labelled image.

        Args:
            embedding: of a batch of this image.
            label: its objects, all of these classes, in pixels of the image.
            prepared: the network's input.
        """
        features = matching_features(embedding).cpu().double()
        classes, _ = dense_targets(label, prepared.letterbox, self.spec.index_of, 0)
        for part in (prepared.planes.numpy(), classes):
            self._seen.update(np.ascontiguousarray(part).tobytes())
        planes = torch.stack([torch.from_numpy(classes == index) for index in range(self.spec.count)]).double()
        share = F.adaptive_avg_pool2d(planes, (features.shape[1], features.shape[2])).flatten(1)  # (1 + K, N)
        x = features.flatten(1).T  # (N, D)
        new = (share.sum(1), share @ x, (x * share.sum(0)[:, None]).T @ x)
        self._sums = tuple(a + b for a, b in zip(self._sums, new, strict=True)) if self._sums else new

    def reference(self) -> Reference:
        """Return the reference.

        Raises:
            DataError: a class, or the background, has not been seen.
        """
        if not self._sums or not bool(self._sums[0].all()):
            raise DataError(
                "the references show too little: each class needs objects that the network's input resolves, where "
                "something is measured, and background beside them"
            )
        count, total, square = self._sums  # (1 + K,), (1 + K, D), (D, D)
        mean = total / count[:, None]
        within = (square - total.T @ mean) / count.sum()
        ridge = RIDGE * within.diagonal().mean().clamp(min=1e-12) * torch.eye(len(within), dtype=within.dtype)
        weights = torch.linalg.solve(within + ridge, (mean[1:] - mean[:1]).T).T  # (K, D)
        offsets = -(weights * (mean[1:] + mean[:1])).sum(1) / 2
        return Reference(self.spec, weights.float().numpy(), offsets.float().numpy(), self._seen.hexdigest())

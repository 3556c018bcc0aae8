"""Find in an image what a few labelled images show, without training.

A linear discriminant (Fisher 1936) of the embedding tells positions on objects from the others. Each connected part
that it marks is a click and a box for the prompt decoder, and of the answers the mask that agrees best with the part
stays. A discriminant leaves out what all positions of an image have in common, which a cosine with the mean feature of
the objects (PerSAM, arXiv 2305.03048) or with the nearest positions (Matcher, arXiv 2305.13310) does not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.card import DataCard
from simmat.data.instances import (
    Annotation,
    FoundObject,
    center_click,
    check_equal_size,
    label_from_mask,
    read_mask,
)
from simmat.data.pipeline import PreparedImage, dense_targets, regions_from_logits
from simmat.errors import DataError, unknown_name
from simmat.foundation import MAX_PROMPTS, ImageEmbedding
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import upsample_logits
from simmat.nn.device import threads_for_load
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.objects import (
    MIN_OBJECTNESS,
    EverythingSettings,
    object_parts,
    suppress,
    with_classes,
)
from simmat.predictor.prompts import prompt_of
from simmat.types import BoolArray, FloatArray, ImageReader, Letterbox, Prompt

LabelMask = npt.NDArray[np.integer[Any] | np.bool_]
"""(H, W) label values; 0 is the background, and pixels below 0 are not looked at."""

FINEST_STRIDE = 4
"""Smallest stride, in pixels of the input, of the positions that are compared."""
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
        weights = torch.from_numpy(self.weights).to(features.device)
        offsets = torch.from_numpy(self.offsets).to(features.device)
        logits = torch.einsum("kd,dhw->khw", weights, features) + offsets[:, None, None]
        height, width = (
            math.ceil(side * logits.shape[-1] / letterbox.size)
            for side in letterbox.scaled_hw
        )
        logits[:, height:] = -torch.inf  # padding
        logits[:, :, width:] = -torch.inf
        return logits


def matching_features(embedding: ImageEmbedding, levels: int | None = None) -> Tensor:
    """Return (D, h, w) features of unit length of one image: its levels, each scaled to unit length, concatenated.

    Args:
        embedding: of a batch of this image.
        levels: number of levels, beginning with the finest of at least `FINEST_STRIDE`, which sets the grid; None for
            all levels, including finer ones.
    """
    strides = embedding.strides
    grid = next(
        (level for level, stride in enumerate(strides) if stride >= FINEST_STRIDE),
        len(strides) - 1,
    )
    height, width = embedding.levels[grid].shape[-2:]
    chosen = (
        embedding.levels if levels is None else embedding.levels[grid : grid + levels]
    )
    features = []
    for level in chosen:
        if level.shape[-1] > width:
            scaled = F.adaptive_avg_pool2d(level.float(), (height, width))
        else:
            scaled = F.interpolate(
                level.float(), (height, width), mode="bilinear", align_corners=False
            )
        features.append(F.normalize(scaled[0], dim=0))
    return F.normalize(torch.cat(features), dim=0)


@threads_for_load()
@torch.inference_mode()
def find_by_reference(
    reference: Reference, image: EncodedImage, settings: EverythingSettings
) -> list[FoundObject]:
    """Find the objects of an image that a reference shows, best first, in pixels of the original image.

    Args:
        reference: what to look for.
        image: the image.
        settings: its `overlap` and `min_area` count.
    """
    letterbox = image.prepared.letterbox
    logits = reference.logits(image.embedding, letterbox)
    # (1 + K, h, w)
    probabilities = torch.cat([torch.zeros_like(logits[:1]), logits]).softmax(0)
    parts = _likely_parts(logits, probabilities)
    inside = torch.from_numpy(parts).to(probabilities.device)
    objectness = probabilities[1:].sum(0)  # (h, w)
    # (P, 1, h, w)
    likely = torch.where(inside, objectness - MIN_OBJECTNESS, -MIN_OBJECTNESS)[:, None]
    found: list[FoundObject] = []
    found_masks: list[BoolArray] = []
    for start in range(0, len(parts), MAX_PROMPTS):
        objects, masks_of_objects = _masks_of_parts(
            image, likely[start : start + MAX_PROMPTS], settings.min_area
        )
        found += objects
        found_masks += masks_of_objects
    if not found:
        return []
    found, masks = with_classes(
        found, np.stack(found_masks), probabilities, reference.spec, 0.0
    )
    kept = suppress(masks, [one.score for one in found], settings.overlap)
    return [found[row] for row in kept]


def _likely_parts(logits: Tensor, probabilities: Tensor) -> BoolArray:
    """Return the connected parts (P, h, w) in which a class is likely, compared with where it is most likely.

    Args:
        logits: (K, h, w), see `Reference.logits`.
        probabilities: (1 + K, h, w) of the background and the classes.
    """
    parts, classes = object_parts(probabilities[1:], 1)
    # (K, h, w)
    seeds = (logits >= _SEED * logits.amax((1, 2), keepdim=True)).cpu().numpy()
    has_seed = (parts & seeds[classes]).any((1, 2))
    likely: BoolArray = parts[has_seed]
    return likely


def _masks_of_parts(
    image: EncodedImage, parts: Tensor, min_area: int
) -> tuple[list[FoundObject], list[BoolArray]]:
    """Ask the decoder for the object of each part, by a click and by a box.

    Args:
        image: the image.
        parts: (P, 1, h, w) logits of parts of the input.
        min_area: smallest area of an object in pixels of the original image.

    Returns:
        The objects, and their (h', w') masks at the decoder's own size.
    """
    letterbox = image.prepared.letterbox
    rows = []
    clicks = []
    click_prompts = []
    box_prompts = []
    for row, (region,) in enumerate(regions_from_logits(parts, letterbox)):
        if region is None:
            continue
        rows.append(row)
        clicks.append(center_click(region))
        click_prompts.append(Prompt.points([clicks[-1]]))
        box_prompts.append(prompt_of(box=region.box_xyxy))
    if not rows:
        return [], []
    answers = [image.decode(click_prompts), image.decode(box_prompts)]
    logits = torch.cat([one.logits.float() for one in answers], dim=1)  # (n, M, h', w')
    scores = torch.cat([one.iou.float() for one in answers], dim=1)  # (n, M)
    # (n, 1, h', w')
    part = upsample_logits(parts[rows], (logits.shape[2], logits.shape[3]))
    shared = ((logits > 0) & (part > 0)).flatten(2).sum(2)
    union = ((logits > 0) | (part > 0)).flatten(2).sum(2)
    best = (shared / union.clamp(min=1)).argmax(1)  # (n,)
    numbers = torch.arange(len(rows), device=logits.device)
    chosen = logits[numbers, best][:, None]  # (n, 1, h', w')
    chosen_scores = scores[numbers, best].clamp(0, 1).tolist()
    masks = (chosen[:, 0] > 0).cpu().numpy()
    found = []
    found_masks = []
    for row, (region,) in enumerate(regions_from_logits(chosen, letterbox)):
        if region is not None and region.area >= min_area:
            found.append(FoundObject(region, chosen_scores[row], clicks[row]))
            found_masks.append(masks[row])
    return found, found_masks


class ReferenceSums:
    """What a reference is made of, added up over labelled images or windows of them.

    Attributes:
        spec: the background and the K classes to look for.
    """

    def __init__(self, classes: Sequence[int | None]) -> None:
        self.spec = DenseSpec(background=True, classes=tuple(classes))
        # sums over all positions: share of each class (1 + K,), features by these shares (1 + K, D), and products of
        # features (D, D); empty before the first image
        self._sums: list[Tensor] = []
        self._seen = hashlib.sha256(repr(self.spec).encode())

    def add(
        self, embedding: ImageEmbedding, label: Annotation, prepared: PreparedImage
    ) -> None:
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
        indices = np.arange(self.spec.count)[:, None, None]
        planes = torch.from_numpy(classes == indices).double()  # (1 + K, S, S)
        # (1 + K, N) of each of N positions
        share = F.adaptive_avg_pool2d(
            planes, (features.shape[1], features.shape[2])
        ).flatten(1)
        x = features.flatten(1).T  # (N, D)
        sums = [share.sum(1), share @ x, (x * share.sum(0)[:, None]).T @ x]
        if self._sums:
            sums = [known + new for known, new in zip(self._sums, sums, strict=True)]
        self._sums = sums

    def reference(self) -> Reference:
        """Return the reference.

        Raises:
            DataError: a class, or the background, has not been seen.
        """
        if not self._sums or not bool(self._sums[0].all()):
            raise DataError(
                "the references show too little: each class needs objects that are large enough for the "
                "network's input and have valid pixels, and background beside them"
            )
        count, total, square = self._sums
        mean = total / count[:, None]  # (1 + K, D)
        # (D, D) covariance within the classes
        within = (square - total.T @ mean) / count.sum()
        ridge = (
            RIDGE
            * within.diagonal().mean().clamp(min=1e-12)
            * torch.eye(len(within), dtype=within.dtype)
        )
        # (K, D) Fisher's discriminant of each class and the background
        weights = torch.linalg.solve(within + ridge, (mean[1:] - mean[:1]).T).T
        # (K,), so that it is 0 in the middle of both means
        offsets = -(weights * (mean[1:] + mean[:1])).sum(1) / 2
        return Reference(
            self.spec,
            weights.float().numpy(),
            offsets.float().numpy(),
            self._seen.hexdigest(),
        )


def read_annotations(
    masks: Sequence[Path | str | LabelMask],
    images: Sequence[ImageReader],
    card: DataCard,
) -> list[tuple[str, Annotation]]:
    """Return what masks of images mark, each with a name for errors.

    Args:
        masks: of each image, a file of labels or an array.
        images: the images.
        card: what label values mean.

    Raises:
        DataError: a mask cannot be read, or has another size than its image.
    """
    found = []
    for mask, image in zip(masks, images, strict=True):
        if isinstance(mask, str | Path):
            name = str(mask)
            values = read_mask(Path(mask))
        else:
            name = f"the mask of {image.origin}"
            values = np.asarray(mask).astype(np.int64)
        check_equal_size(name, values.shape, image.origin, image.size_hw)
        own_card = card
        if (values < 0).any():
            own_card = card.model_copy(update={"ignore": -1})
        found.append((name, label_from_mask(values, own_card, origin=name)))
    return found


def annotations_of_classes(
    annotations: Sequence[tuple[str, Annotation]],
    classes: Sequence[str | int],
    names: Mapping[int, str],
) -> tuple[list[int | None], list[Annotation]]:
    """Return the label values to look for, and the annotations with the objects of these classes alone.

    Args:
        annotations: of `read_annotations`.
        classes: names or numbers; empty for all that are marked.
        names: label value -> name.

    Raises:
        ConfigError: a class is unknown.
        DataError: an image shows no object of these classes.
    """
    present = set()
    for _, annotation in annotations:
        present |= {one.class_id for one in (*annotation.regions, *annotation.small)}
    values: list[int | None] = sorted(present, key=lambda one: one or 0)
    if classes:
        values = [*_values_of(classes, present, names)]
    chosen = []
    for name, annotation in annotations:
        regions = tuple(
            one
            for one in (*annotation.regions, *annotation.small)
            if one.class_id in values
        )
        if not regions:
            of_classes = ""
            if classes:
                of_classes = f" of class {', '.join(map(str, classes))}"
            raise DataError(
                f"{name}: marks no object{of_classes}, so it does not show what to look for"
            )
        chosen.append(replace(annotation, regions=regions, small=()))
    return values, chosen


def _values_of(
    classes: Sequence[str | int], present: set[int | None], names: Mapping[int, str]
) -> list[int]:
    """Return the label values of classes given by name or number."""
    marked = sorted(value for value in present if value is not None)
    by_name = {}
    by_number = {}
    for value in sorted({*marked, *names}):
        by_name[names.get(value, str(value))] = value
        by_number[str(value)] = value
    known = by_number | by_name
    values = []
    absent = []
    for one in map(str, classes):
        if one not in known:
            hint = f"The masks have the values {', '.join(map(str, marked))}."
            raise unknown_name("class", one, by_name, hint=hint)
        values.append(known[one])
        if known[one] not in present:
            absent.append(one)
    if absent:
        raise DataError(
            f"no reference mask marks an object of class {', '.join(map(repr, absent))}; leave it out"
        )
    return list(dict.fromkeys(values))

"""Look for what a few labelled images show, without training: a linear dense head in closed form.

Each position of the embedding of a labelled image lies on an object of a class, or beside all of them. A linear
discriminant of the two (Fisher 1936) and a linear regression of the distance to the border give the maps that a
trained dense head gives, from which `simmat.predictor.everything` clicks. A cosine with the mean feature of the
objects (PerSAM, arXiv 2305.03048) or with the nearest positions (Matcher, arXiv 2305.13310) also compares what all
positions of an image have in common; a discriminant leaves that out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.augment import cut_label
from simmat.data.card import DataCard
from simmat.data.instances import Label, check_equal_size, components, label_from_mask, read_mask
from simmat.data.pipeline import PreparedImage
from simmat.data.targets import dense_targets
from simmat.errors import DataError, unknown_name
from simmat.foundation import ImageEmbedding
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseAnswer
from simmat.types import FloatArray, ImageReader

if TYPE_CHECKING:
    from simmat.predictor.encoder import ImageEncoder

LabelMask = npt.NDArray[np.integer[Any] | np.bool_]
"""(H, W) label values; 0 is the background."""

FINEST_STRIDE = 4
"""Smallest stride, in pixels of the input, of the positions that are compared."""
RIDGE = 1.0
"""Share of the mean variance of the features that is added to each, as few positions are on objects."""
_LEAST = 1e-4
"""Smallest distance and smallest share of a map."""


def joined_levels(embedding: ImageEmbedding, finest_stride: int = FINEST_STRIDE) -> Tensor:
    """Return (D, h, w) features of one image: its levels, each of unit length at every position, one after the other.

    Levels are resized to the grid of the finest one of at least `finest_stride` input pixels.
    """
    strides = embedding.strides
    grid = next((level for level, stride in enumerate(strides) if stride >= finest_stride), len(strides) - 1)
    height, width = embedding.levels[grid].shape[-2:]
    levels = (level.float() for level in embedding.levels)
    scaled = (
        F.adaptive_avg_pool2d(level, (height, width))
        if number < grid
        else F.interpolate(level, (height, width), mode="bilinear", align_corners=False)
        for number, level in enumerate(levels)
    )
    return torch.cat([F.normalize(level[0], dim=0) for level in scaled])


@dataclass(frozen=True, eq=False)
class Reference:
    """What to look for in other images, see `Predictor.reference`.

    Attributes:
        spec: classes of the objects; index 0 of a class map is the background.
        weights: (1 + K + 1, D) float32 of background, K classes and distance.
        offsets: (1 + K + 1,) float32.
        digest: sha256 of the images and masks, by which finished images are known.
    """

    spec: DenseSpec
    weights: FloatArray
    offsets: FloatArray
    digest: str

    def __repr__(self) -> str:
        """Give classes and digest, not thousands of numbers."""
        return f"<Reference of {self.spec.classes}, {self.digest}>"

    def __call__(self, embedding: ImageEmbedding) -> DenseAnswer:
        """Return the maps of one image."""
        features = joined_levels(embedding)
        weights, offsets = (torch.from_numpy(part).to(features.device) for part in (self.weights, self.offsets))
        maps = torch.einsum("kd,dhw->khw", weights, features) + offsets[:, None, None]
        return DenseAnswer(maps[None, :-1], maps[None, -1:].clamp(_LEAST, 1 - _LEAST).logit())


class ReferenceSums:
    """What a reference is made of, added up over labelled images or windows of them."""

    def __init__(self, classes: Sequence[int | None]) -> None:
        self.spec = DenseSpec(background=True, classes=tuple(classes))
        self._sums: tuple[Tensor, ...] = ()
        self._seen = hashlib.sha256(repr(self.spec).encode())

    def add(self, embedding: ImageEmbedding, label: Label, prepared: PreparedImage) -> None:
        """Add a labelled image.

        Args:
            embedding: of a batch of this image.
            label: its objects, in pixels of the image; those of other classes have no truth.
            prepared: the network's input.
        """
        features = joined_levels(embedding).cpu().double()
        size_hw = (features.shape[1], features.shape[2])
        classes, distance = dense_targets(_in_pieces(label), prepared.frame, self.spec.index_of, 0)
        for part in (prepared.planes.numpy(), classes, distance):
            self._seen.update(np.ascontiguousarray(part).tobytes())
        planes = torch.stack([torch.from_numpy(classes == index) for index in range(self.spec.count)]).double()
        share = F.adaptive_avg_pool2d(planes, size_hw).flatten(1)  # (1 + K, N)
        far = share * F.adaptive_avg_pool2d(torch.from_numpy(distance).double()[None], size_hw).flatten(1)
        x = features.flatten(1).T  # (N, D)
        squares = torch.stack([(x * one[:, None]).T @ x for one in share])  # (1 + K, D, D)
        new = (share.sum(1), share @ x, squares, far.sum(1), far @ x)
        self._sums = tuple(a + b for a, b in zip(self._sums, new, strict=True)) if self._sums else new

    def reference(self) -> Reference:
        """Return the reference; each class and the background must have been seen."""
        count, *sums = self._sums
        mean, square, far, far_x = (part / count.view(-1, *[1] * (part.ndim - 1)) for part in sums)
        within = (square - mean[:, :, None] * mean[:, None]).mean(0)  # (D, D)
        weights = _divided(mean, within)  # (1 + K, D)
        prior = torch.cat([count.new_tensor([0.5]), count[1:] / count[1:].sum() / 2])  # (1 + K,)
        centre, distance = prior @ mean, prior @ far
        spread = torch.einsum("k,kde->de", prior, square) - centre[:, None] * centre
        slope = _divided((prior @ far_x - distance * centre)[None], spread)  # (1, D)
        offsets = torch.cat([-(weights * mean).sum(1) / 2, distance - slope @ centre])
        maps = torch.cat([weights, slope])
        return Reference(self.spec, maps.float().numpy(), offsets.float().numpy(), self._seen.hexdigest())


def _divided(vectors: Tensor, covariance: Tensor) -> Tensor:
    """Return (K, D) vectors times the inverse of a (D, D) covariance with `RIDGE`."""
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=covariance.dtype)
    found: Tensor = torch.linalg.solve(covariance + ridge, vectors.T).T
    return found


def _in_pieces(label: Label) -> Label:
    """Return a label whose regions are connected pieces, each with a middle of its own."""
    every = (*label.regions, *label.small)
    pieces = (piece for one in every for piece in components(one.crop, one.class_id, one.window[:2]))
    return replace(label, regions=tuple(pieces), small=())


def make_reference(
    encoder: ImageEncoder, images: Sequence[tuple[ImageReader, Path | str | LabelMask]], classes: Sequence[str | int]
) -> Reference:
    """Return what to look for, see `Predictor.reference`; of images that are cut, windows with objects are used."""
    from simmat.predictor.large_image import LargeImage

    card = encoder.inputs.card
    if classes and card.regions == "instances":
        card = card.model_copy(update={"regions": "classes"})
    labels = [_read_label(mask, image, card) for image, mask in images]
    present = {one.class_id for _, label in labels for one in (*label.regions, *label.small)}
    values = _chosen(classes, present, encoder.class_names) if classes else sorted(present, key=lambda one: one or 0)
    sums = ReferenceSums(values)
    for (reader, _), (name, label) in zip(images, labels, strict=True):
        regions = tuple(one for one in (*label.regions, *label.small) if one.class_id in values)
        if not regions:
            of_classes = f" of the classes {', '.join(map(str, values))}" if classes else ""
            raise DataError(
                f"{name}: marks no object{of_classes}, so it does not show what to look for in other images"
            )
        if (sum(one.area for one in regions) + label.ignore.sum()) >= label.ignore.size:
            raise DataError(f"{name}: marks every pixel; a reference needs background beside its objects")
        label = replace(label, regions=regions, small=())
        image = LargeImage(encoder, reader)
        for window in image.windows:
            part = cut_label(label, window, 0)
            pixels, encoded = image.encoded(window, keep=False) if part.regions else (None, None)
            if pixels is not None and encoded is not None:
                part = replace(part, ignore=part.ignore | ~pixels.valid.any(0))
                sums.add(encoded.embedding, part, encoded.prepared)
    return sums.reference()


def _read_label(mask: Path | str | LabelMask, image: ImageReader, card: DataCard) -> tuple[str, Label]:
    """Return the name of a mask, for errors, and what it marks."""
    if isinstance(mask, str | Path):
        name, values = str(mask), read_mask(Path(mask))
    else:
        name, values = f"the mask of {image.origin}", np.asarray(mask).astype(np.int64)
    check_equal_size(name, values.shape, image.origin, image.size_hw)
    return name, label_from_mask(values, card, origin=name)


def _chosen(classes: Sequence[str | int], present: set[int | None], names: Mapping[int, str]) -> list[int]:
    """Return the label values of classes given by name or number."""
    values = [value for value in present if value is not None]
    by_name = {names.get(value, str(value)): value for value in sorted({*values, *names})}
    known = {str(value): value for value in by_name.values()} | by_name
    for one in map(str, classes):
        if one not in known:
            hint = f"The masks have the values {', '.join(map(str, sorted(values)))}."
            raise unknown_name("class", one, by_name, hint=hint)
    return list(dict.fromkeys(known[str(one)] for one in classes))

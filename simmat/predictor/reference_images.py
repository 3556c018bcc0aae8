"""Make a reference of labelled images: read their masks, encode what shows objects, refuse what shows nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.augment import cut_label
from simmat.data.card import DataCard
from simmat.data.instances import Annotation, check_equal_size, label_from_mask, read_mask
from simmat.errors import DataError, unknown_name
from simmat.predictor.encoder import ImageEncoder
from simmat.predictor.large_image import TiledImage
from simmat.predictor.reference import Reference, ReferenceSums
from simmat.types import ImageReader

LabelMask = npt.NDArray[np.integer[Any] | np.bool_]
"""(H, W) label values; 0 is the background, and pixels below 0 are not looked at."""


def make_reference(
    encoder: ImageEncoder,
    images: Sequence[tuple[ImageReader, Path | str | LabelMask]],
    classes: Sequence[str | int] = (),
    tile: int | None = None,
) -> Reference:
    """Return what to look for, see `Predictor.reference`; of images that are cut, windows with objects are used."""
    card = encoder.image_loader.card
    if classes and card.regions == "instances":
        card = card.model_copy(update={"regions": "classes"})
    labels = [_read_label(mask, image, card) for image, mask in images]
    present = {one.class_id for _, label in labels for one in (*label.regions, *label.small)}
    values = _chosen(classes, present, encoder.class_names) if classes else sorted(present, key=lambda one: one or 0)
    sums = ReferenceSums(values)
    for (reader, _), (name, label) in zip(images, labels, strict=True):
        regions = tuple(one for one in (*label.regions, *label.small) if one.class_id in values)
        if not regions:
            of_classes = f" of class {', '.join(map(str, classes))}" if classes else ""
            raise DataError(f"{name}: marks no object{of_classes}, so it does not show what to look for")
        label = replace(label, regions=regions, small=())
        image = TiledImage(encoder, reader, tile=tile)
        for window in image.windows:
            part = cut_label(label, window, 0)
            pixels, encoded = image.encoded(window, keep=False) if part.regions else (None, None)
            if pixels is not None and encoded is not None:
                part = replace(part, ignore=part.ignore | ~pixels.valid.any(0))
                sums.add(encoded.embedding, part, encoded.prepared)
    return sums.reference()


def _read_label(mask: Path | str | LabelMask, image: ImageReader, card: DataCard) -> tuple[str, Annotation]:
    """Return the name of a mask, for errors, and what it marks."""
    if isinstance(mask, str | Path):
        name, values = str(mask), read_mask(Path(mask))
    else:
        name, values = f"the mask of {image.origin}", np.asarray(mask).astype(np.int64)
    check_equal_size(name, values.shape, image.origin, image.size_hw)
    card = card.model_copy(update={"ignore": -1}) if (values < 0).any() else card
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
    if absent := [one for one in map(str, classes) if known[one] not in present]:
        raise DataError(f"no reference mask marks an object of class {', '.join(map(repr, absent))}; leave it out")
    return list(dict.fromkeys(known[str(one)] for one in classes))

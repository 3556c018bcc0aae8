"""Read the masks of labelled images, of which a reference is made, and choose the classes to look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.card import DataCard
from simmat.data.instances import Annotation, check_equal_size, label_from_mask, read_mask
from simmat.errors import DataError, unknown_name
from simmat.types import ImageReader

LabelMask = npt.NDArray[np.integer[Any] | np.bool_]
"""(H, W) label values; 0 is the background, and pixels below 0 are not looked at."""


def read_annotations(
    masks: Sequence[Path | str | LabelMask], images: Sequence[ImageReader], card: DataCard
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
    annotations: Sequence[tuple[str, Annotation]], classes: Sequence[str | int], names: Mapping[int, str]
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
        regions = tuple(one for one in (*annotation.regions, *annotation.small) if one.class_id in values)
        if not regions:
            of_classes = ""
            if classes:
                of_classes = f" of class {', '.join(map(str, classes))}"
            raise DataError(f"{name}: marks no object{of_classes}, so it does not show what to look for")
        chosen.append(replace(annotation, regions=regions, small=()))
    return values, chosen


def _values_of(classes: Sequence[str | int], present: set[int | None], names: Mapping[int, str]) -> list[int]:
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
        raise DataError(f"no reference mask marks an object of class {', '.join(map(repr, absent))}; leave it out")
    return list(dict.fromkeys(values))

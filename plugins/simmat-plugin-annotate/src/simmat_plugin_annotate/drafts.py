"""Edit objects, and compute and apply the changes between two states of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from simmat.data.instances import Instance
from simmat.errors import DataError
from simmat_plugin_annotate.journal import Change, StoredObject
from simmat_plugin_annotate.masks import (
    Followed,
    MaskDocument,
    Objects,
    Predicted,
    decode_mask,
    encode_mask,
    subtract,
)


class StaleError(Exception):
    """The labels have changed since the version that an edit was made for."""


@dataclass(frozen=True)
class Edited:
    """The result of an edit: what has changed, and the ids of new objects, in the order of the edits."""

    changes: tuple[Change, ...] = ()
    added: Sequence[int] = ()

    @property
    def classes(self) -> dict[int, int | None]:
        """Id -> class of the objects whose class has changed."""
        both = [(one.id, one.before, one.after) for one in self.changes]
        return {
            number: new.class_id
            for number, old, new in both
            if old and new and old.class_id != new.class_id
        }


Overlap = Literal["keep", "take", "skip"]
"""For pixels of other objects: "keep" leaves them, "take" takes them, "skip" leaves them and adds no empty object."""


@dataclass
class Draft:
    """A copy of objects to edit.

    Attributes:
        objects: id -> object.
        size_hw: (height, width) of the image in pixels.
        hidden: mask value without ground truth, which no object gets as id.
        accepted: True after `accept`.
    """

    objects: Objects
    next: int
    size_hw: tuple[int, int]
    added: list[int] = field(default_factory=list)
    hidden: int | None = None
    accepted: bool = False

    def add(
        self,
        mask: MaskDocument,
        class_id: int | None,
        overlap: Overlap,
        number: int | None = None,
        *,
        predicted: bool = False,
    ) -> None:
        """Add an object.

        Args:
            number: that of an object of other frames.
            predicted: True if a model found it, and it is accepted as it is.
        """
        if number in self.objects:
            raise DataError(
                f"object {number} is in this image already; replace its pixels"
            )
        number = number or self.next + (self.next == self.hidden)
        region = self._region(mask, class_id, predicted=predicted)
        if self._put(number, region, overlap):
            self.next = max(self.next, number + 1)
            self.added.append(number)

    def replace(
        self,
        number: int,
        mask: MaskDocument,
        overlap: Overlap,
        *,
        predicted: bool = False,
    ) -> None:
        """Replace the pixels of an object, which is `predicted` if a person has not drawn the new ones either."""
        class_id = self._find(number).class_id
        self._put(number, self._region(mask, class_id, predicted=predicted), overlap)

    def set_class(self, number: int, class_id: int | None) -> None:
        """Change the class of an object."""
        self.objects[number] = replace(self._find(number), class_id=class_id)

    def remove(self, number: int) -> None:
        """Remove an object."""
        self._find(number)
        del self.objects[number]

    def accept(self) -> None:
        """Accept followed objects, which stay `Predicted`; lost ones are not in the image."""
        self.accepted = True
        for number, region in self.objects.items():
            if isinstance(region, Followed):
                self.objects[number] = as_predicted(region)

    def confirm(self, numbers: Collection[int]) -> None:
        """Take objects that a model found, all if there are no numbers, as if the user had drawn them."""
        for number in numbers:
            self._find(number)
        if not numbers:
            self.accept()
        for number in numbers or tuple(self.objects):
            self.objects[number] = as_drawn(self.objects[number])

    def follow(self, found: Mapping[int, Followed | None]) -> None:
        """Replace what was followed before by objects in free pixels, the highest score first.

        What is mostly covered by others is left out.
        """
        for number in found:
            if isinstance(self.objects.get(number), Followed):
                del self.objects[number]
        for number, region in sorted(
            found.items(), key=lambda one: -one[1].score if one[1] else 0
        ):
            rest = None if region is None else subtract(region, self.objects.values())
            if rest is not None and region is not None and 2 * rest.area > region.area:
                self.objects.setdefault(number, rest)

    def _find(self, number: int) -> Instance:
        if number not in self.objects:
            raise DataError(
                f"there is no object {number} in this image; it may have been removed"
            )
        return self.objects[number]

    def _region(
        self, mask: MaskDocument, class_id: int | None, *, predicted: bool
    ) -> Instance:
        region = replace(decode_mask(mask, self.size_hw), class_id=class_id)
        if predicted:
            return as_predicted(region)
        return region

    def _put(self, number: int, region: Instance, overlap: Overlap) -> bool:
        """Set the pixels of an object; return False if there were none left for it."""
        others = {key: other for key, other in self.objects.items() if key != number}
        if overlap == "take":
            for key, other in others.items():
                rest = subtract(other, [region])
                if rest is None:
                    del self.objects[key]
                else:
                    self.objects[key] = rest
        else:
            free = subtract(region, others.values())
            if free is None:
                if overlap == "skip":
                    return False
                raise DataError(
                    "other objects cover the whole mask; remove or change them first"
                )
            region = free
        self.objects[number] = region
        return True


def apply_changes(
    objects: Objects, changes: Sequence[Change], size_hw: tuple[int, int]
) -> Objects:
    """Return the objects of an image of (height, width) pixels after changes."""
    result = dict(objects)
    for change in changes:
        if change.after is None:
            result.pop(change.id, None)
        else:
            result[change.id] = _object_of(change.after, size_hw)
    return result


def _object_of(stored: StoredObject, size_hw: tuple[int, int]) -> Instance:
    region = replace(decode_mask(stored.mask, size_hw), class_id=stored.class_id)
    if stored.score is not None:
        place = region.class_id, region.window, region.crop
        return Followed(*place, score=stored.score)
    if stored.predicted:
        return as_predicted(region)
    return region


def as_predicted(region: Instance) -> Predicted:
    """Return an object as one that a model found."""
    return Predicted(region.class_id, region.window, region.crop)


def as_drawn(region: Instance) -> Instance:
    """Return an object as one that a person has drawn."""
    if is_predicted(region):
        return Instance(region.class_id, region.window, region.crop)
    return region


def is_predicted(region: Instance) -> bool:
    """Return whether a model found an object, and nobody has drawn, clicked or confirmed it since."""
    return isinstance(region, Predicted)


def marked_as_read(
    found: Objects, known: Mapping[int, Instance], *, listed: bool
) -> Objects:
    """Return the objects of a mask file: those that are known stay whose they are, the others are a model's if listed.

    Args:
        found: id -> object of the file.
        known: id -> object before the file was read.
        listed: True if the data set says that a model made the labels of the image.
    """
    result: Objects = {}
    for number, region in found.items():
        old = known.get(number)
        predicted = listed
        if old is not None and _same_pixels(old, region):
            predicted = is_predicted(old)
        result[number] = as_predicted(region) if predicted else region
    return result


def revert_changes(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes that undo given changes."""
    return tuple(
        Change(id=one.id, before=one.after, after=one.before) for one in changes
    )


def differences(
    before: Mapping[int, Instance], after: Mapping[int, Instance]
) -> tuple[Change, ...]:
    """Return the changes from one state to another."""
    changes = []
    for number in sorted(before.keys() | after.keys()):
        old, new = before.get(number), after.get(number)
        if old is not new and not _same(old, new):
            changes.append(
                Change(id=number, before=_stored_object(old), after=_stored_object(new))
            )
    return tuple(changes)


def frame_state(
    objects: Objects, lost: Iterable[int], absent: frozenset[int]
) -> dict[str, Any]:
    """Return the fields of a `Record` that say which objects a frame has, and which of them were followed."""
    absent -= objects.keys()
    lost = set(lost) - objects.keys() - absent
    scores = [score for one in objects.values() if (score := score_of(one)) is not None]
    return {
        "ids": tuple((number, one.class_id) for number, one in objects.items()),
        "followed": len(scores),
        "score": 0.0 if lost else min(scores, default=None),
        "lost": tuple(sorted(lost)),
        "absent": tuple(sorted(absent)),
    }


def _same(one: Instance | None, other: Instance | None) -> bool:
    if one is None or other is None:
        return one is other
    if score_of(one) != score_of(other) or is_predicted(one) != is_predicted(other):
        return False
    return one.class_id == other.class_id and _same_pixels(one, other)


def _same_pixels(one: Instance, other: Instance) -> bool:
    return one.window == other.window and bool(np.array_equal(one.crop, other.crop))


def _stored_object(region: Instance | None) -> StoredObject | None:
    if region is None:
        return None
    return StoredObject.model_validate(
        {
            "class": region.class_id,
            "mask": encode_mask(region),
            "score": score_of(region),
            "predicted": is_predicted(region),
        }
    )


def score_of(region: Instance) -> float | None:
    """Return the score of an object that was followed; None of one that the user has drawn or accepted."""
    return region.score if isinstance(region, Followed) else None

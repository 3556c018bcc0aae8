"""Edit objects, and compute and apply the changes between two states of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    ) -> None:
        """Add an object; `number` is that of an object of other frames."""
        if number in self.objects:
            raise DataError(
                f"object {number} is in this image already; replace its pixels"
            )
        number = number or self.next + (self.next == self.hidden)
        if self._put(
            number, replace(decode_mask(mask, self.size_hw), class_id=class_id), overlap
        ):
            self.next = max(self.next, number + 1)
            self.added.append(number)

    def replace(self, number: int, mask: MaskDocument, overlap: Overlap) -> None:
        """Replace the pixels of an object."""
        class_id = self._find(number).class_id
        self._put(
            number, replace(decode_mask(mask, self.size_hw), class_id=class_id), overlap
        )

    def set_class(self, number: int, class_id: int | None) -> None:
        """Change the class of an object."""
        self.objects[number] = replace(self._find(number), class_id=class_id)

    def remove(self, number: int) -> None:
        """Remove an object."""
        self._find(number)
        del self.objects[number]

    def accept(self) -> None:
        """Accept followed objects as if the user had drawn them; lost ones are not in the image."""
        self.accepted = True
        for number, region in self.objects.items():
            if isinstance(region, Followed):
                self.objects[number] = Instance(
                    region.class_id, region.window, region.crop
                )

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
            region, class_id, score = (
                decode_mask(change.after.mask, size_hw),
                change.after.class_id,
                change.after.score,
            )
            result[change.id] = (
                replace(region, class_id=class_id)
                if score is None
                else Followed(class_id, region.window, region.crop, score=score)
            )
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
    if score_of(one) != score_of(other):
        return False
    return (
        one.class_id == other.class_id
        and one.window == other.window
        and bool(np.array_equal(one.crop, other.crop))
    )


def _stored_object(region: Instance | None) -> StoredObject | None:
    if region is None:
        return None
    return StoredObject.model_validate(
        {
            "class": region.class_id,
            "mask": encode_mask(region),
            "score": score_of(region),
        }
    )


def score_of(region: Instance) -> float | None:
    """Return the score of an object that was followed; None of one that the user has drawn or accepted."""
    return region.score if isinstance(region, Followed) else None

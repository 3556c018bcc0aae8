"""Objects while they are edited, and what differs between two states of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from simmat.data.instances import Instance
from simmat.errors import DataError
from simmat_plugin_annotate.journal import Change, StoredObject
from simmat_plugin_annotate.mask_files import Objects
from simmat_plugin_annotate.masks import MaskDocument, decoded, encoded, without

Overlap = Literal["keep", "take", "skip"]
"""Pixels of others stay theirs, or are taken; "skip" keeps them, and adds nothing where no pixel is left."""


@dataclass
class Draft:
    """Objects while they are edited.

    Attributes:
        objects: id -> object.
        next: id of the next new object.
        size_hw: of the image.
        added: ids of new objects.
        hidden: value that means no ground truth, so that no object gets it.
    """

    objects: Objects
    next: int
    size_hw: tuple[int, int]
    added: list[int] = field(default_factory=list)
    hidden: int | None = None

    def add(self, mask: MaskDocument, class_id: int | None, overlap: Overlap) -> None:
        """Add an object."""
        number = self.next + (self.next == self.hidden)
        if self._put(number, replace(decoded(mask, self.size_hw), class_id=class_id), overlap):
            self.next = number + 1
            self.added.append(number)

    def replace(self, number: int, mask: MaskDocument, overlap: Overlap) -> None:
        """Give an object other pixels."""
        class_id = self._find(number).class_id
        self._put(number, replace(decoded(mask, self.size_hw), class_id=class_id), overlap)

    def set_class(self, number: int, class_id: int | None) -> None:
        """Give an object another class."""
        self.objects[number] = replace(self._find(number), class_id=class_id)

    def remove(self, number: int) -> None:
        """Remove an object."""
        self._find(number)
        del self.objects[number]

    def _find(self, number: int) -> Instance:
        if number not in self.objects:
            raise DataError(f"there is no object {number} in this image; it may have been removed")
        return self.objects[number]

    def _put(self, number: int, region: Instance, overlap: Overlap) -> bool:
        """Set the pixels of an object; returns whether any was free."""
        others = {key: other for key, other in self.objects.items() if key != number}
        if overlap == "take":
            for key, other in others.items():
                rest = without(other, [region])
                if rest is None:
                    del self.objects[key]
                else:
                    self.objects[key] = rest
        else:
            free = without(region, others.values())
            if free is None:
                if overlap == "skip":
                    return False
                raise DataError("other objects cover the whole mask; remove or change them first")
            region = free
        self.objects[number] = region
        return True


def applied(objects: Objects, changes: Sequence[Change], size_hw: tuple[int, int]) -> Objects:
    """Return objects of an image of (height, width) pixels after some changes."""
    result = dict(objects)
    for change in changes:
        if change.after is None:
            result.pop(change.id, None)
        else:
            result[change.id] = replace(decoded(change.after.mask, size_hw), class_id=change.after.class_id)
    return result


def reverted(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes that take others back."""
    return tuple(Change(id=one.id, before=one.after, after=one.before) for one in changes)


def differences(before: Mapping[int, Instance], after: Mapping[int, Instance]) -> tuple[Change, ...]:
    """Return what differs between two states."""
    found = []
    for number in sorted(before.keys() | after.keys()):
        one, other = before.get(number), after.get(number)
        if one is not other and not _same(one, other):
            found.append(Change(id=number, before=_stored(one), after=_stored(other)))
    return tuple(found)


def _same(one: Instance | None, other: Instance | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.class_id == other.class_id and one.box == other.box and bool(np.array_equal(one.crop, other.crop))


def _stored(region: Instance | None) -> StoredObject | None:
    if region is None:
        return None
    return StoredObject.model_validate({"class": region.class_id, "mask": encoded(region)})

"""Edit objects, and compute and apply the changes between two states of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from simmat.data.instances import Instance
from simmat.errors import DataError
from simmat_plugin_annotate.journal import Change, StoredObject
from simmat_plugin_annotate.mask_files import Objects
from simmat_plugin_annotate.masks import MaskDocument, decode_mask, encode_mask, subtract

Overlap = Literal["keep", "take", "skip"]
"""For pixels of other objects: "keep" leaves them, "take" takes them, "skip" leaves them and adds no empty object."""


@dataclass
class Draft:
    """A copy of objects to edit.

    Attributes:
        objects: id -> object.
        size_hw: (height, width) of the image in pixels.
        hidden: mask value without ground truth, which no object gets as id.
    """

    objects: Objects
    next: int
    size_hw: tuple[int, int]
    added: list[int] = field(default_factory=list)
    hidden: int | None = None

    def add(self, mask: MaskDocument, class_id: int | None, overlap: Overlap) -> None:
        """Add an object."""
        number = self.next + (self.next == self.hidden)
        if self._put(number, replace(decode_mask(mask, self.size_hw), class_id=class_id), overlap):
            self.next = number + 1
            self.added.append(number)

    def replace(self, number: int, mask: MaskDocument, overlap: Overlap) -> None:
        """Replace the pixels of an object."""
        class_id = self._find(number).class_id
        self._put(number, replace(decode_mask(mask, self.size_hw), class_id=class_id), overlap)

    def set_class(self, number: int, class_id: int | None) -> None:
        """Change the class of an object."""
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
                raise DataError("other objects cover the whole mask; remove or change them first")
            region = free
        self.objects[number] = region
        return True


def apply_changes(objects: Objects, changes: Sequence[Change], size_hw: tuple[int, int]) -> Objects:
    """Return the objects of an image of (height, width) pixels after changes."""
    result = dict(objects)
    for change in changes:
        if change.after is None:
            result.pop(change.id, None)
        else:
            result[change.id] = replace(decode_mask(change.after.mask, size_hw), class_id=change.after.class_id)
    return result


def revert_changes(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes that undo given changes."""
    return tuple(Change(id=one.id, before=one.after, after=one.before) for one in changes)


def differences(before: Mapping[int, Instance], after: Mapping[int, Instance]) -> tuple[Change, ...]:
    """Return the changes from one state to another."""
    changes = []
    for number in sorted(before.keys() | after.keys()):
        old, new = before.get(number), after.get(number)
        if old is not new and not _same(old, new):
            changes.append(Change(id=number, before=_stored_object(old), after=_stored_object(new)))
    return tuple(changes)


def _same(one: Instance | None, other: Instance | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.class_id == other.class_id and one.window == other.window and bool(np.array_equal(one.crop, other.crop))


def _stored_object(region: Instance | None) -> StoredObject | None:
    if region is None:
        return None
    return StoredObject.model_validate({"class": region.class_id, "mask": encode_mask(region)})

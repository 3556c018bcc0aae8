"""The labels of one image: its objects, every step back to the first, and the mask file that follows them."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simmat.data.card import DataCard
from simmat.data.instances import PANOPTIC, Instance, components, label_from_mask, read_mask, region_from_mask
from simmat.data.samples import MASK_EXTENSIONS
from simmat.errors import DataError, OutputError, SimMATError
from simmat.io.files import atomic_path, output_error
from simmat.types import BoolArray
from simmat_plugin_annotate.journal import Change, Journal, Record, StoredObject
from simmat_plugin_annotate.masks import MaskDocument, decoded, encoded, without

AT_ONCE_PX = 2**22
"""Pixels of an image whose mask file is written with every edit; that of a larger one follows a moment later."""
LARGEST_PNG = 8192
"""Longest side of a mask that is a PNG; of a TIFF a reader takes only the part it needs."""

_log = logging.getLogger(__name__)

Overlap = Literal["keep", "take"]
Objects = dict[int, Instance]


class StaleError(Exception):
    """The labels are no longer those that an edit was made for."""


@dataclass(frozen=True)
class Rule:
    """What mask values mean, for the whole folder.

    Attributes:
        card: of the data set.
        default: class of objects that were labelled before there were classes; None where there are none.
    """

    card: DataCard
    default: int | None = None

    def class_of(self, region: Instance) -> int | None:
        """Return the class of an object; None where objects have none."""
        if self.card.regions == "instances":
            return None
        return self.default if region.class_id is None else region.class_id


@dataclass
class Edited:
    """What an edit changed.

    Attributes:
        changed: id -> object, as it is now.
        removed: ids of objects that are gone.
        added: ids that new objects got, in the order of the edits.
    """

    changed: Objects = field(default_factory=dict)
    removed: list[int] = field(default_factory=list)
    added: list[int] = field(default_factory=list)


class ImageLabels:
    """The labels of one image. Every method that changes them holds `lock`.

    Attributes:
        size_hw: (height, width) of the image in pixels.
        mask: the mask file; None until the first object, or where its name follows from `place`.
        objects: id -> object.
        version: number of steps so far.
        done: the user says that every object is marked.
        unwritten: the mask file is behind the journal.
        problem: why the mask file could not be written; "" where it is not behind, or not tried yet.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        rule: Callable[[], Rule],
        journal: Path,
        mask: Path | None,
        place: Path,
        placed: Callable[[Path | None], None],
    ) -> None:
        """Read the labels: the journal, and the mask where another program changed it since.

        Args:
            size_hw: of the image.
            rule: gives the rule of the folder.
            journal: file of the history.
            mask: present mask file, or None.
            place: path of a new mask file, without ending.
            placed: called with the path of the mask file when it gets another one, and with None before it is removed.

        Raises:
            DataError: the mask cannot be read, is of another size, or cannot be edited.
        """
        self.lock = threading.RLock()
        self.size_hw, self.mask = size_hw, mask
        self._rule, self._place, self._placed = rule, place, placed
        self._journal = Journal.read(journal)
        self.objects: Objects = {}
        self.version, self.done, self.unwritten, self.problem = 0, False, False, ""
        self._undo: list[tuple[Change, ...]] = []
        self._redo: list[tuple[Change, ...]] = []
        self._next = 1
        self._ignored: Instance | None = None
        self._given = False  # there was a mask before the first object
        self._sha256: str | None = None  # of the mask file as it is on disk
        self._tried: str | None = None  # of the content that was to be written last
        self._seen: tuple[int, int] | None = None
        for record in self._journal.records:
            self._replay(record)
        self.refresh(rewrite=True)

    @property
    def undo_steps(self) -> int:
        """How many steps can be undone."""
        return len(self._undo)

    @property
    def redo_steps(self) -> int:
        """How many steps can be done again."""
        return len(self._redo)

    def class_of(self, region: Instance) -> int | None:
        """Return the class of one of the objects."""
        return self._rule().class_of(region)

    def refresh(self, *, rewrite: bool = False) -> None:
        """Take over what another program wrote into the mask file, as a step that can be undone.

        Args:
            rewrite: first write the mask where a crash came between journal and mask.
        """
        with self.lock:
            if self.unwritten and not rewrite:
                return
            self._find_mask()
            seen = _times(self.mask)
            if not rewrite and seen == self._seen and self._journal.records:
                return
            digest = self._digest()
            last = self._journal.records[-1] if self._journal.records else None
            behind = last is not None and (digest == last.was or (digest is None and last.moving))
            if rewrite and last is not None and behind and digest != last.sha256:
                self._sha256, self._seen, self.unwritten = digest, seen, True
                self._flush_or_note()
                return
            self._seen = seen
            lost = last is not None and last.objects != len(self.objects)  # journals once left out the first record
            if digest == self._sha256 and not lost and (last is not None or digest is None):
                return
            self._take_over(digest, first=rewrite and last is None)

    def _take_over(self, digest: str | None, *, first: bool) -> None:
        """Take the objects of the mask file: what there was at `first`, or a step of another program."""
        found, ignored = ({}, None) if self.mask is None or digest is None else self._read(self.mask)
        record = Record(
            kind="base" if first else "outside",
            version=self.version + (not first),
            changes=_changes(self.objects, found),
            objects=len(found),
            rule=self._rule().card.regions,
            was=self._sha256,
            sha256=digest,
            ignored=None if ignored is None else MaskDocument.model_validate(encoded(ignored)),
            done=self.done,
        )
        if first:
            self._journal.records.append(record)  # in memory only, until the first step
        else:
            self._append(record)
        self._replay(record)

    def _find_mask(self) -> None:
        """Look for a mask that another program made for an image without one."""
        if self.mask is None:
            for ending in MASK_EXTENSIONS:
                path = self._place.with_name(self._place.name + ending)
                if path.is_file():
                    self._placed(path)
                    self.mask = path
                    return

    def _digest(self) -> str | None:
        return None if self.mask is None or _times(self.mask) is None else sha256_of(self.mask)

    def edit(self, version: int, change: Callable[[Draft], None]) -> Edited:
        """Change objects in one step, which is in the journal when this returns.

        The mask file follows at once, or a moment later where it is large or cannot be written now.

        Args:
            version: that the change was made for.
            change: makes the change, all or nothing.

        Raises:
            StaleError: `version` is not the present one.
            DataError: the change cannot be made.
            OutputError: it cannot be written; nothing has changed then.
        """
        with self.lock:
            self._check(version)
            draft = Draft(dict(self.objects), self._next, self.size_hw, hidden=self._rule().card.ignore)
            change(draft)
            changes = _changes(self.objects, draft.objects)
            if changes:
                self._write("edit", changes)
                self._next = max(self._next, draft.next)
            return self._edited(changes, [number for number in draft.added if number in self.objects])

    def undo(self, version: int) -> Edited:
        """Take back the last step; see `edit`."""
        with self.lock:
            self._check(version)
            if not self._undo:
                raise DataError("there is no step to undo")
            changes = tuple(Change(id=one.id, before=one.after, after=one.before) for one in self._undo[-1])
            self._write("undo", changes)
            return self._edited(changes)

    def redo(self, version: int) -> Edited:
        """Do the step again that was undone last; see `edit`."""
        with self.lock:
            self._check(version)
            if not self._redo:
                raise DataError("there is no step to redo")
            changes = self._redo[-1]
            self._write("redo", changes)
            return self._edited(changes)

    def set_done(self, version: int, done: bool) -> Edited:
        """Mark the image as finished or not; without an object it gets an empty mask, so that it counts as labelled."""
        with self.lock:
            self._check(version)
            if done != self.done:
                self._write("done", (), done=done)
            return Edited()

    def check(self, rule: Rule) -> None:
        """Refuse a rule by which the mask could not be written.

        Raises:
            DataError: there are too many objects of a class for it.
        """
        with self.lock:
            _check_values(self.objects, rule, self._ignored)

    def keep_base(self) -> None:
        """Put what the mask held at first on disk: from then on it is known without reading the mask.

        Raises:
            OutputError: it cannot be written.
        """
        with self.lock:
            records = self._journal.records
            if records and not self._journal.path.exists():
                self._journal.records = []
                try:
                    self._journal.append(records)
                except OutputError:
                    self._journal.records = records
                    raise

    def rewrite(self) -> None:
        """Write the mask again, as the rule of the folder has changed; without a mask there is nothing to do.

        Raises:
            DataError: the rule cannot hold the objects.
            OutputError: the journal cannot be written.
        """
        with self.lock:
            if self.mask is not None or self.unwritten:
                self.unwritten = True
                self._write("written", ())

    @property
    def written_rule(self) -> str:
        """The rule by which the mask file was written."""
        return self._journal.records[-1].rule if self._journal.records else "instances"

    def flush(self) -> None:
        """Write the mask file, where it is behind the journal; what another program wrote meanwhile is a step.

        Raises:
            DataError: the mask file of another program cannot be read.
            OutputError: it cannot be written; it stays behind then.
        """
        with self.lock:
            if not self.unwritten:
                return
            self._find_mask()
            seen = _times(self.mask)
            if seen != self._seen:
                digest = self._digest()
                if digest not in (self._sha256, self._tried):
                    self._take_over(digest, first=False)
                    self._seen, self.unwritten, self.problem = seen, False, ""
                    return
                self._sha256 = digest
            rule = self._rule()
            record = Record(
                kind="written",
                version=self.version,
                done=self.done,
                objects=len(self.objects),
                rule=rule.card.regions,
                was=self._sha256,
            )
            if self.objects or self.done or self._given:
                record = self._replace_mask(record, rule)
            else:  # as it was before the first object: not looked at
                self._append(record)
                if self.mask is not None:
                    self._placed(None)
                    _remove(self.mask)
                self.mask = self._seen = None
            self._replay(record)
            self.unwritten, self.problem = False, ""

    def _replace_mask(self, record: Record, rule: Rule) -> Record:
        """Write the new mask beside the old one, then the record, then the mask in its place."""
        plane = drawn(self.objects, self.size_hw, rule, self._ignored)
        ending = mask_ending(plane, self.mask)
        content = file_of(plane, ending)
        target = self._place.with_name(self._place.name + ending) if self.mask is None else self.mask
        moved = None
        if target.suffix.lower() != ending:
            moved, target = target, target.with_suffix(ending)
        self._tried = hashlib.sha256(content).hexdigest()
        record = record.model_copy(update={"sha256": self._tried, "moving": moved is not None})
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
            self._append(record)
            if moved is not None:  # two masks of one image are refused, so the old one goes first
                _remove(moved)
                self._sha256 = self._seen = None
        self._sha256, self._seen = self._tried, _times(target)
        if self.mask != target:
            self._placed(target)
            self.mask = target
        return record

    def _flush_or_note(self) -> None:
        """Write the mask file; where that fails it stays behind, and is tried again."""
        try:
            self.flush()
        except (SimMATError, OSError) as error:
            self.problem = f"the labels are kept, but their mask file cannot be written yet: {error}"
            _log.warning("%s", self.problem)

    def _check(self, version: int) -> None:
        self.refresh()
        if version != self.version:
            raise StaleError

    def _edited(self, changes: Sequence[Change], added: Sequence[int] = ()) -> Edited:
        ids = [change.id for change in changes]
        changed = {number: self.objects[number] for number in ids if number in self.objects}
        return Edited(changed, [number for number in ids if number not in self.objects], list(added))

    def _write(self, kind: Any, changes: tuple[Change, ...], *, done: bool | None = None) -> None:
        """Write a step: the record, from when on it is done, then the mask."""
        rule, objects = self._rule(), _applied(self.objects, changes)
        _check_values(objects, rule, self._ignored)
        record = Record(
            kind=kind,
            version=self.version + (kind != "written"),
            changes=changes,
            done=self.done if done is None else done,
            objects=len(objects),
            rule=rule.card.regions,
            was=self._sha256,
            sha256="",
        )
        self._append(record)
        self._replay(record)
        self.unwritten = True
        if self.size_hw[0] * self.size_hw[1] <= AT_ONCE_PX:
            self._flush_or_note()

    def _append(self, record: Record) -> None:
        first = self._journal.records[:1] if not self._journal.path.exists() else []
        if first:
            self._journal.records = []
        try:
            self._journal.append([*first, record])
        except OutputError:
            if first:
                self._journal.records = first
            raise

    def _replay(self, record: Record) -> None:
        self.objects = _applied(self.objects, record.changes, self.size_hw)
        self.version, self.done = record.version, record.done
        self._next = max([self._next, *(change.id + 1 for change in record.changes)])
        if record.sha256 != "":
            self._sha256 = record.sha256
        if record.kind in ("base", "outside"):
            self._ignored = None if record.ignored is None else decoded(record.ignored, self.size_hw)
            self._given = record.sha256 is not None
        if record.kind in ("edit", "outside"):
            self._undo.append(record.changes)
            self._redo.clear()
        elif record.kind == "undo":
            self._redo.append(self._undo.pop())
        elif record.kind == "redo":
            self._undo.append(self._redo.pop())

    def _read(self, path: Path) -> tuple[Objects, Instance | None]:
        """Return the objects of a mask file, those the card calls too small as well, and its pixels without truth."""
        card = self._rule().card
        mask = read_mask(path)
        height, width = self.size_hw
        if mask.shape != self.size_hw:
            raise DataError(
                f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height} (width x height); "
                "they must be equal"
            )
        label = label_from_mask(mask, card, origin=str(path))
        found: Objects = {}
        for region in (*label.regions, *label.small):
            row, column = np.argwhere(region.crop)[0]
            value = int(mask[region.box[0] + row, region.box[1] + column])
            found[value if card.regions == "instances" else len(found) + 1] = region
        ignored = region_from_mask(np.asarray(mask == card.ignore), None) if card.ignore is not None else None
        return _kept_ids(found, self.objects, card.ignore), ignored


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
        """Add an object.

        Raises:
            DataError: the mask is wrong, or other objects cover it.
        """
        number = self.next + (self.next == self.hidden)
        self._put(number, replace(decoded(mask, self.size_hw), class_id=class_id), overlap)
        self.next = number + 1
        self.added.append(number)

    def replace(self, number: int, mask: MaskDocument, overlap: Overlap) -> None:
        """Give an object other pixels.

        Raises:
            DataError: there is no such object, the mask is wrong, or other objects cover it.
        """
        class_id = self._find(number).class_id
        self._put(number, replace(decoded(mask, self.size_hw), class_id=class_id), overlap)

    def set_class(self, number: int, class_id: int | None) -> None:
        """Give an object another class.

        Raises:
            DataError: there is no such object.
        """
        self.objects[number] = replace(self._find(number), class_id=class_id)

    def remove(self, number: int) -> None:
        """Remove an object.

        Raises:
            DataError: there is no such object.
        """
        self._find(number)
        del self.objects[number]

    def _find(self, number: int) -> Instance:
        if number not in self.objects:
            raise DataError(f"there is no object {number} in this image; it may have been removed")
        return self.objects[number]

    def _put(self, number: int, region: Instance, overlap: Overlap) -> None:
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
                raise DataError("other objects cover the whole mask; remove or change them first")
            region = free
        self.objects[number] = region


def _applied(objects: Objects, changes: Sequence[Change], size_hw: tuple[int, int] | None = None) -> Objects:
    """Return objects after some changes."""
    result = dict(objects)
    for change in changes:
        if change.after is None:
            result.pop(change.id, None)
        else:
            mask = change.after.mask
            region = decoded(mask, size_hw or (mask.box[3], mask.box[2]))
            result[change.id] = replace(region, class_id=change.after.class_id)
    return result


def _changes(before: Mapping[int, Instance], after: Mapping[int, Instance]) -> tuple[Change, ...]:
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


def _kept_ids(found: Objects, known: Objects, hidden: int | None) -> Objects:
    """Give objects that were read the ids of equal known ones, and new ids to those whose id another one has."""
    taken: Objects = {}
    rest: list[tuple[int, Instance]] = []
    by_box: dict[tuple[int, int, int, int], list[int]] = {}
    for number, region in known.items():
        by_box.setdefault(region.box, []).append(number)
    for number, region in found.items():
        equal = [key for key in by_box.get(region.box, []) if np.array_equal(known[key].crop, region.crop)]
        if equal and equal[0] not in taken:
            old = known[equal[0]]
            taken[equal[0]] = region if region.class_id is not None else replace(region, class_id=old.class_id)
        else:
            rest.append((number, region))
    highest = max([0, *known, *found])
    for number, region in rest:
        if number in taken or number in known:
            highest += 1 + (highest + 1 == hidden)
            number = highest
        taken[number] = region
    return taken


def drawn(
    objects: Mapping[int, Instance], size_hw: tuple[int, int], rule: Rule, ignored: Instance | None
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Draw the (H, W) label image of some objects, in the smallest type of 8, 16 or 32 bits.

    Raises:
        DataError: an image has more objects of a class than the rule can number.
    """
    values = _check_values(objects, rule, ignored)
    hidden = rule.card.ignore if ignored is not None else None
    largest = max([0, *values.values(), *([] if hidden is None else [hidden])])
    kind = next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(kind).max)
    plane = np.zeros(size_hw, kind)
    if ignored is not None and hidden is not None:
        _fill(plane, ignored, hidden)
    for number, region in objects.items():
        _fill(plane, region, values[number])
    return plane


def _check_values(objects: Mapping[int, Instance], rule: Rule, ignored: Instance | None) -> dict[int, int]:
    """Return the label value of each object.

    Raises:
        DataError: a label image cannot hold them, or the pixels without ground truth.
    """
    hidden = rule.card.ignore
    if ignored is not None and hidden is not None and hidden < 0:
        raise DataError(
            f"the card ignores {hidden}, and a label image with it cannot be written; use a positive number"
        )
    return _values(objects, rule)


def _values(objects: Mapping[int, Instance], rule: Rule) -> dict[int, int]:
    """Return the label value of each object."""
    regions, hidden = rule.card.regions, rule.card.ignore
    counts: dict[int, int] = {}
    values: dict[int, int] = {}
    for number, region in sorted(objects.items()):
        class_id = rule.class_of(region)
        if regions == "instances":
            value = number
        elif class_id is None:
            raise DataError("an object has no class; add a class first")
        elif regions == "panoptic":
            counts[class_id] = counts.get(class_id, 0) + 1
            counts[class_id] += PANOPTIC * class_id + counts[class_id] == hidden
            value = PANOPTIC * class_id + counts[class_id]
            if counts[class_id] >= PANOPTIC:
                raise DataError(
                    f"an image holds at most {PANOPTIC - 1} objects of a class in a mask; cut the image into parts"
                )
        else:
            value = class_id
        if value == hidden:
            raise DataError(f"label value {value} means no ground truth by the card; change `ignore` in card.toml")
        values[number] = value
    return values


def _fill(plane: npt.NDArray[Any], region: Instance, value: int) -> None:
    y0, x0, y1, x1 = region.box
    plane[y0:y1, x0:x1][region.crop] = value


def mask_ending(plane: npt.NDArray[Any], present: Path | None) -> str:
    """Return the ending of a mask file: that of the present one where it can hold the values, else .png or .tif."""
    ending = "" if present is None else present.suffix.lower()
    if ending in (".tif", ".tiff", ".npy"):
        return ending
    return ".png" if plane.dtype.itemsize <= 2 and max(plane.shape) <= LARGEST_PNG else ".tif"


def file_of(plane: npt.NDArray[Any], ending: str) -> bytes:
    """Return an (H, W) label image as a file: the same plane gives the same bytes."""
    stream = io.BytesIO()
    if ending == ".npy":
        np.save(stream, plane, allow_pickle=False)
    elif ending == ".png":
        from PIL import Image

        Image.fromarray(plane).save(stream, "png", compress_level=1)
    else:
        import tifffile

        tifffile.imwrite(
            stream, plane, tile=(512, 512), photometric="minisblack", compression="zlib", metadata=None, software=False
        )
    return stream.getvalue()


def touching(objects: Mapping[int, Instance], size_hw: tuple[int, int], rule: Rule) -> bool:
    """Return whether training will see fewer objects than there are, as the rule joins those of a class that touch."""
    if rule.card.regions not in ("components", "classes"):
        return False
    plane: BoolArray
    count = 0
    values = _values(objects, rule)
    for value in set(values.values()):
        plane = np.zeros(size_hw, np.bool_)
        for number in objects:
            if values[number] == value:
                _fill(plane, objects[number], 1)
        count += 1 if rule.card.regions == "classes" else len(components(plane, value))
    return count < len(objects)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check who may read it") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, path) from error


def _times(path: Path | None) -> tuple[int, int] | None:
    """Return time and size of a file; None if there is none."""
    try:
        stat = None if path is None else path.stat()
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_size)

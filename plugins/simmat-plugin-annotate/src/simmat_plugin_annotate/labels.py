"""The labels of one image: its objects, every step back to the first, and the mask file that follows them."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simmat.data.instances import Instance
from simmat.data.samples import MASK_EXTENSIONS
from simmat.errors import DataError, SimMATError
from simmat.io.files import atomic_path
from simmat_plugin_annotate.drafts import Draft, applied, differences, reverted
from simmat_plugin_annotate.journal import Change, Journal, Record
from simmat_plugin_annotate.mask_files import (
    Objects,
    Rule,
    drawn,
    file_of,
    mask_ending,
    read_objects,
    remove,
    sha256_of,
    times,
)
from simmat_plugin_annotate.masks import MaskDocument, decoded, encoded

AT_ONCE_PX = 2**22
"""Pixels of an image whose mask file is written with every edit; that of a larger one follows when edits pause."""

_log = logging.getLogger(__name__)


class StaleError(Exception):
    """The labels are no longer those that an edit was made for."""


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
        changed_s: when they became others last, by `time.monotonic`.
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
        self._journal = Journal(journal)
        self.objects: Objects = {}
        self.version, self.done, self.unwritten, self.problem = 0, False, False, ""
        self.changed_s = 0.0
        self._undo: list[int] = []  # places of records in the journal
        self._redo: list[int] = []
        self._next = 1
        self._ignored: Instance | None = None
        self._given = False  # there was a mask before the first object
        self._sha256: str | None = None  # of the mask file as it is on disk
        self._tried: str | None = None  # of the content that was to be written last
        self._seen: tuple[int, int] | None = None
        for at, record in self._journal.read():
            self._replay(record, at)
        self.refresh(rewrite=True)

    @property
    def undo_steps(self) -> int:
        """How many steps can be undone."""
        return len(self._undo)

    @property
    def redo_steps(self) -> int:
        """How many steps can be done again."""
        return len(self._redo)

    @property
    def last(self) -> Record | None:
        """The last step; None where there was no mask and no edit yet."""
        return self._journal.last

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
            seen, last = times(self.mask), self.last
            if not rewrite and seen == self._seen and last is not None:
                return
            digest = self._digest()
            behind = last is not None and (digest == last.was or (digest is None and last.moving))
            if rewrite and last is not None and behind and digest != last.sha256:
                self._sha256, self._seen, self.unwritten = digest, seen, True
                self.try_flush()
                return
            self._seen = seen
            lost = last is not None and last.objects != len(self.objects)  # journals once left out the first record
            if digest == self._sha256 and not lost and (last is not None or digest is None):
                return
            self._take_over(digest, first=rewrite and last is None)

    def _take_over(self, digest: str | None, *, first: bool) -> None:
        """Take the objects of the mask file: what there was at `first`, or a step of another program."""
        found: Objects = {}
        ignored = None
        if self.mask is not None and digest is not None:
            found, ignored = read_objects(self.mask, self.size_hw, self._rule().card, self.objects)
        record = self._record(
            "base" if first else "outside",
            found,
            version=self.version + (not first),
            changes=differences(self.objects, found),
            sha256=digest,
            ignored=None if ignored is None else MaskDocument.model_validate(encoded(ignored)),
        )
        if first:
            self._journal.hold(record)
            self._replay(record, 0)
        else:
            self._append(record)

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
        return None if self.mask is None or times(self.mask) is None else sha256_of(self.mask)

    def edit(self, version: int, change: Callable[[Draft], None]) -> Edited:
        """Change objects in one step, which is in the journal when this returns.

        The mask file follows at once, or later where it is large or cannot be written now.

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
            changes = differences(self.objects, draft.objects)
            if changes:
                self._write("edit", changes)
                self._next = max(self._next, draft.next)
            return self._edited(changes, [number for number in draft.added if number in self.objects])

    def undo(self, version: int) -> Edited:
        """Take back the last step; see `edit`."""
        return self._step(version, "undo", self._undo)

    def redo(self, version: int) -> Edited:
        """Do the step again that was undone last; see `edit`."""
        return self._step(version, "redo", self._redo)

    def _step(self, version: int, kind: Any, steps: Sequence[int]) -> Edited:
        with self.lock:
            self._check(version)
            if not steps:
                raise DataError(f"there is no step to {kind}")
            changes = self._journal.at(steps[-1]).changes
            changes = reverted(changes) if kind == "undo" else changes
            self._write(kind, changes)
            return self._edited(changes)

    def set_done(self, version: int, done: bool) -> Edited:
        """Mark the image as finished or not; without an object it gets an empty mask, so that it counts as labelled."""
        with self.lock:
            self._check(version)
            if done != self.done:
                self._write("done", (), done=done)
            return Edited()

    def prepare(self, rule: Rule) -> None:
        """Check that the mask could be written by a rule, and put what it holds on disk in the journal.

        From then on its objects are known whatever its values are said to mean.

        Raises:
            DataError: there are too many objects of a class for the rule.
            OutputError: the journal cannot be written.
        """
        with self.lock:
            rule.values(self.objects, self._ignored)
            if self._journal.held is not None:
                self._journal.append()

    def rewrite(self) -> None:
        """Write the mask again, as the rule of the folder has changed; without a mask there is nothing to do."""
        with self.lock:
            if self.mask is not None or self.unwritten:
                self._write("written", ())

    @property
    def written_rule(self) -> str:
        """The rule by which the mask file was written."""
        return "instances" if self.last is None else self.last.rule

    def flush(self) -> None:
        """Write the mask file, where it is behind the journal; what another program wrote meanwhile is a step.

        It is drawn and compressed without `lock`; edits that come meanwhile leave it for the next time.

        Raises:
            DataError: the mask file of another program cannot be read.
            OutputError: it cannot be written; it stays behind then.
        """
        with self.lock:
            if not self.unwritten:
                return
            self._find_mask()
            if self._was_replaced():
                return
            if not (self.objects or self.done or self._given):  # as it was before the first object: not looked at
                record = self._record("written", {})
                at = self._journal.append(record)
                if self.mask is not None:
                    self._placed(None)
                    remove(self.mask)
                self.mask = self._seen = None
                self._replay(record, at)
                self.unwritten, self.problem = False, ""
                return
            state = self.version, self._rule(), self.mask
            objects, ignored = self.objects, self._ignored
        plane = drawn(objects, self.size_hw, state[1], ignored)
        ending = mask_ending(plane, state[2])
        content = file_of(plane, ending)
        with self.lock:
            same = state == (self.version, self._rule(), self.mask)
            if self.unwritten and same and not self._was_replaced():
                self._replace_mask(content, ending)
                self.unwritten, self.problem = False, ""

    def _was_replaced(self) -> bool:
        """Take over the mask where another program replaced it, which is no longer behind then."""
        seen = times(self.mask)
        if seen != self._seen:
            digest = self._digest()
            if digest not in (self._sha256, self._tried):
                self._take_over(digest, first=False)
                self._seen, self.unwritten, self.problem = seen, False, ""
                return True
            self._sha256, self._seen = digest, seen
        return False

    def _replace_mask(self, content: bytes, ending: str) -> None:
        """Write the new mask beside the old one, then the record, then the mask in its place."""
        target = self._place.with_name(self._place.name + ending) if self.mask is None else self.mask
        moved = None
        if target.suffix.lower() != ending:
            moved, target = target, target.with_suffix(ending)
        self._tried = hashlib.sha256(content).hexdigest()
        record = self._record("written", self.objects, sha256=self._tried, moving=moved is not None)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
            at = self._journal.append(record)
            if moved is not None:  # two masks of one image are refused, so the old one goes first
                remove(moved)
                self._sha256 = self._seen = None
        self._seen = times(target)
        self._replay(record, at)
        if self.mask != target:
            self._placed(target)
            self.mask = target

    def try_flush(self) -> None:
        """Write the mask file; where that fails the journal has its labels, and it is tried again."""
        try:
            self.flush()
        except Exception as error:  # of this image; the others are written nevertheless
            problem = f"the labels are kept, but their mask file cannot be written yet: {error}"
            if problem != self.problem:
                self.problem = problem
                _log.warning("%s", problem, exc_info=not isinstance(error, SimMATError | OSError))

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
        objects = applied(self.objects, changes, self.size_hw)
        self._rule().values(objects, self._ignored)
        version = self.version + (kind != "written")
        more = {} if done is None else {"done": done}
        self._append(self._record(kind, objects, version=version, changes=changes, sha256="", **more))
        self.unwritten, self.changed_s = True, time.monotonic()
        if self.size_hw[0] * self.size_hw[1] <= AT_ONCE_PX:
            self.try_flush()

    def _record(self, kind: Any, objects: Objects, **more: Any) -> Record:
        """Return a record of what is so after a step."""
        rule = self._rule()
        classes = sorted({region.class_id for region in objects.values()}, key=lambda one: one or 0)
        known = {"version": self.version, "done": self.done, "was": self._sha256} | more
        return Record(kind=kind, objects=len(objects), classes=tuple(classes), rule=rule.card.regions, **known)

    def _append(self, record: Record) -> None:
        self._replay(record, self._journal.append(record))

    def _replay(self, record: Record, at: int) -> None:
        self.objects = applied(self.objects, record.changes, self.size_hw)
        self.version, self.done = record.version, record.done
        self._next = max([self._next, *(change.id + 1 for change in record.changes)])
        if record.sha256 != "":
            self._sha256 = record.sha256
        if record.kind in ("base", "outside"):
            self._ignored = None if record.ignored is None else decoded(record.ignored, self.size_hw)
            self._given = record.sha256 is not None
        if record.kind in ("edit", "outside"):
            self._undo.append(at)
            self._redo.clear()
        elif record.kind == "undo":
            self._redo.append(self._undo.pop())
        elif record.kind == "redo":
            self._undo.append(self._redo.pop())

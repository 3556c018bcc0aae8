"""The labels of one image: its objects, the history of all steps, and the mask file written from them."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from simmat.data.instances import Instance
from simmat.data.samples import MASK_EXTENSIONS
from simmat.errors import DataError, SimMATError
from simmat.io.files import atomic_path, output_errors
from simmat_plugin_annotate.drafts import (
    Draft,
    Edited,
    StaleError,
    apply_changes,
    as_drawn,
    as_predicted,
    differences,
    frame_state,
    is_predicted,
    marked_as_read,
    revert_changes,
)
from simmat_plugin_annotate.journal import Change, Journal, Record
from simmat_plugin_annotate.masks import (
    Followed,
    MaskDocument,
    Objects,
    Rule,
    decode_mask,
    draw_labels,
    encode_labels,
    encode_mask,
    file_state,
    mask_ending,
    read_objects,
    sha256_of,
)

AT_ONCE_PX = 2**22
"""Largest image whose mask file is written with every edit; for larger ones it is written when edits pause."""

_log = logging.getLogger(__name__)


class Mark(Protocol):
    """Says in the data set whether a model made labels of an image."""

    def is_set(self) -> bool:
        """Return whether it does."""

    def set(self, *, predicted: bool) -> None:
        """Say that it does, or does not."""


class LabelledImage:
    """The labels of one image. Every method that changes them acquires `lock`.

    Attributes:
        size_hw: (height, width) of the image in pixels.
        mask: the mask file; None until it is first written.
        unwritten: True if the mask file is older than the journal.
        changed_s: time of the last change, by `time.monotonic`.
        problem: why the mask file could not be written; "" if there is no problem.
        lost: of a frame, ids of objects that following did not find.
        absent: of a frame, ids of objects that the user has removed.
        steps: "undo" and "redo" -> byte offsets of such steps in the journal, the next one last.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        rule: Callable[[], Rule],
        journal: Path,
        mask: Path | None,
        place: Path,
        placed: Callable[[Path | None], None],
        mark: Mark,
    ) -> None:
        """Read the labels from the journal, and from the mask if another program has changed it since.

        Args:
            size_hw: (height, width) of the image in pixels.
            mask: the present mask file, or None.
            place: path of a new mask file, without ending.
            placed: called with the path of the mask file when it changes, and with None before the file is removed.
            mark: says in the data set whether a model made labels of the image.

        Raises:
            DataError: the mask or the journal cannot be read, is of another size, or cannot be edited.
        """
        self.lock = threading.RLock()
        self.size_hw, self.mask = size_hw, mask
        self._rule, self._new_mask, self._mask_moved = rule, place, placed
        self._mark = mark
        self._journal = Journal(journal)
        self.objects: Objects = {}
        self.version, self.done, self.unwritten, self.problem = 0, False, False, ""
        self.changed_s = 0.0
        self.lost: frozenset[int] = frozenset()
        self.absent: frozenset[int] = frozenset()
        self.steps: dict[str, list[int]] = {"undo": [], "redo": []}
        self._next = 1
        self._ignored: Instance | None = None
        self._had_mask = False  # True if there was a mask before the first object
        self._sha256: str | None = None  # of the mask file on disk
        self._intended_sha256: str | None = None  # of the last content to be written
        self._mask_stat: tuple[int, int] | None = None
        for at, record in self._journal.read():
            try:
                self._replay(record, at)
            except (DataError, IndexError) as error:
                why = (
                    error
                    if isinstance(error, DataError)
                    else f"there is nothing to {record.kind}"
                )
                raise DataError(
                    f"{journal}, byte {at}: the history does not fit this image: {why}. Put the former image back, or "
                    "move the file away: the labels are then those of the mask"
                ) from None
        if self.last is not None and self.last.sha256 != "":
            self._take_mark()
        self.refresh(rewrite=True)

    def _take_mark(self) -> None:
        """Follow the data set if somebody has listed the image there, or taken it out, since the mask was written."""
        listed = self._mark.is_set()
        if listed and not self.predicted:
            for number, region in self.objects.items():
                self.objects[number] = as_predicted(region)
        elif not listed:
            for number, region in self.objects.items():
                if not isinstance(region, Followed):
                    self.objects[number] = as_drawn(region)

    @property
    def predicted(self) -> int:
        """Number of objects that a model found, and nobody has drawn, clicked or confirmed since."""
        return sum(map(is_predicted, self.objects.values()))

    @property
    def last(self) -> Record | None:
        """The last step; None if there was neither a mask nor an edit."""
        return self._journal.last

    def class_of(self, region: Instance) -> int | None:
        """Return the class of one of the objects."""
        return self._rule().class_of(region)

    def label_values(self) -> dict[int, int]:
        """Return the value that each object has in the mask file.

        Raises:
            DataError: a mask file cannot contain the objects.
        """
        return self._rule().values(self.objects, self._ignored)

    def refresh(self, *, rewrite: bool = False) -> None:
        """Read changes of the mask file by another program, as a step that can be undone.

        Args:
            rewrite: first write the mask if a crash happened between journal and mask.
        """
        with self.lock:
            if self.unwritten and not rewrite:
                return
            self._find_mask()
            stat, last = file_state(self.mask), self.last
            if not rewrite and stat == self._mask_stat and last is not None:
                return
            digest = sha256_of(self.mask)
            is_outdated = last is not None and (
                digest == last.was or (digest is None and last.moving)
            )
            if rewrite and last is not None and is_outdated and digest != last.sha256:
                self._sha256, self._mask_stat, self.unwritten = digest, stat, True
                self.try_flush()
                return
            self._mask_stat = stat
            if digest == self._sha256 and (last is not None or digest is None):
                return
            self._read_mask(digest, first=rewrite and last is None)

    def _read_mask(self, digest: str | None, *, first: bool) -> None:
        """Read the objects of the mask file: its `first` content, or a change by another program."""
        found: Objects = {}
        ignored = None
        if self.mask is not None and digest is not None:
            found, ignored = read_objects(
                self.mask, self.size_hw, self._rule(), self.objects
            )
            found = marked_as_read(found, self.objects, listed=self._mark.is_set())
        record = self._record(
            "base" if first else "outside",
            found,
            version=self.version + (not first),
            changes=differences(self.objects, found),
            sha256=digest,
            ignored=None
            if ignored is None
            else MaskDocument.model_validate(encode_mask(ignored)),
        )
        if first:
            self._journal.last = self._journal.held = record
            self._replay(record, 0)
        else:
            self._append(record)

    def _find_mask(self) -> None:
        """Find a mask that another program wrote for an image without one."""
        if self.mask is None:
            for ending in MASK_EXTENSIONS:
                path = self._new_mask.with_name(self._new_mask.name + ending)
                if path.is_file():
                    self._mask_moved(path)
                    self.mask = path
                    return

    def edit(self, version: int, change: Callable[[Draft], None]) -> Edited:
        """Change objects in one step, which is in the journal when this returns.

        The mask file is written at once, or later if it is large or cannot be written now.

        Raises:
            StaleError: `version` is not the present one.
            DataError: the change cannot be made.
            OutputError: the journal cannot be written; then nothing has changed.
        """
        with self.lock:
            self._check(version)
            rule = self._rule()
            draft = Draft(
                dict(self.objects),
                max(self._next, rule.next_id()),
                self.size_hw,
                hidden=rule.card.ignore,
            )
            change(draft)
            changes = differences(self.objects, draft.objects)
            if changes or (draft.accepted and self.lost):
                gone: dict[str, Any] = {}
                if draft.accepted and self.lost:
                    gone = {"lost": (), "absent": self.absent | self.lost}
                self._write("edit", changes, **gone)
                self._next = max([self._next, *(number + 1 for number in draft.added)])
            return Edited(changes, draft.added)

    def follow(
        self, found: Mapping[int, Followed | None], lost: Iterable[int] = ()
    ) -> None:
        """Add objects followed from another frame; what the user has drawn or removed here stays.

        Args:
            found: id -> object; None if it was not found.
            lost: ids of objects that were in the frame before, and are to be looked for by the user.
        """
        with self.lock:
            self.refresh()
            draft = Draft(dict(self.objects), self._next, self.size_hw)
            draft.follow(
                {
                    number: region
                    for number, region in found.items()
                    if number not in self.absent
                }
            )
            changes = differences(self.objects, draft.objects)
            lost = frozenset(lost) - draft.objects.keys() - self.absent
            if not self.done and (changes or lost != self.lost):
                self._write("follow", changes, lost=lost)

    def step(self, version: int, kind: Any) -> Edited:
        """Undo the last step, or redo the one that was undone last; `version` and errors as in `edit`."""
        with self.lock:
            self._check(version)
            if not self.steps[kind]:
                raise DataError(f"there is no step to {kind}")
            changes = self._journal.at(self.steps[kind][-1]).changes
            changes = revert_changes(changes) if kind == "undo" else changes
            self._write(kind, changes)
            return Edited(changes)

    def set_done(self, version: int, done: bool, *, empty: bool = False) -> Edited:
        """Mark the image as finished or not.

        Args:
            empty: True if the user says that nothing is in the image: only then one without objects is finished. It
                gets an empty mask, so that it counts as labelled.

        Raises:
            StaleError: `version` is not the present one.
            DataError: no object is marked, and the image is not said to be empty.
        """
        with self.lock:
            self._check(version)
            if done and not self.objects and not empty:
                raise DataError(
                    "no object is marked in this image; mark one, or say that the image is empty"
                )
            if done != self.done:
                self._write("done", (), done=done)
            return Edited()

    def prepare(self, rule: Rule) -> None:
        """Check that the mask could be written by a rule, and store its present objects in the journal.

        Then the objects are known independently of the meaning of the mask values.

        Raises:
            DataError: there are too many objects of a class for the rule.
            OutputError: the journal cannot be written.
        """
        with self.lock:
            rule.values(self.objects, self._ignored)
            if self._journal.held is not None:
                self._journal.append()

    def rewrite(self) -> None:
        """Rewrite the mask after the rule of the folder has changed; do nothing without a mask."""
        with self.lock:
            if self.mask is not None or self.unwritten:
                self._write("written", ())

    def flush(self) -> None:
        """Write the mask file if it is older than the journal; a change by another program becomes a step.

        The mask is drawn and compressed without `lock`; if an edit comes meanwhile, the next call writes it.

        Raises:
            DataError: the mask file of another program cannot be read.
            OutputError: the mask cannot be written; `unwritten` stays True.
        """
        with self.lock:
            if not self.unwritten:
                return
            self._find_mask()
            if self._was_replaced():
                return
            # back to an image without labels
            if not (self.objects or self.done or self._had_mask):
                record = self._record("written", {})
                at = self._journal.append(record)
                if self.mask is not None:
                    self._mask_moved(None)
                    with output_errors(self.mask):
                        self.mask.unlink(missing_ok=True)
                self.mask = self._mask_stat = None
                self._replay(record, at)
                self._mark.set(predicted=False)
                self.unwritten, self.problem = False, ""
                return
            state = self.version, self._rule(), self.mask
            objects, ignored = self.objects, self._ignored
        plane = draw_labels(objects, self.size_hw, state[1], ignored)
        ending = mask_ending(plane, state[2])
        content = encode_labels(plane, ending)
        with self.lock:
            same = state == (self.version, self._rule(), self.mask)
            if self.unwritten and same and not self._was_replaced():
                self._replace_mask(content, ending)
                self.unwritten, self.problem = False, ""

    def _was_replaced(self) -> bool:
        """Read the mask if another program has replaced it, and return whether it has."""
        stat = file_state(self.mask)
        if stat != self._mask_stat:
            digest = sha256_of(self.mask)
            if digest not in (self._sha256, self._intended_sha256):
                self._read_mask(digest, first=False)
                self._mask_stat, self.unwritten, self.problem = stat, False, ""
                return True
            self._sha256, self._mask_stat = digest, stat
        return False

    def _replace_mask(self, content: bytes, ending: str) -> None:
        """Write the new mask to a temporary file, then the record, then rename the mask."""
        target = (
            self._new_mask.with_name(self._new_mask.name + ending)
            if self.mask is None
            else self.mask
        )
        old_mask = None
        if target.suffix.lower() != ending:
            old_mask, target = target, target.with_suffix(ending)
        self._intended_sha256 = hashlib.sha256(content).hexdigest()
        record = self._record(
            "written",
            self.objects,
            sha256=self._intended_sha256,
            moving=old_mask is not None,
        )
        if self.predicted:
            # before the mask is in place, so that a kill leaves no prediction without the mark
            self._mark.set(predicted=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
            at = self._journal.append(record)
            # two masks of one image are refused, so the old one goes first
            if old_mask is not None:
                old_mask.unlink(missing_ok=True)
                self._sha256 = self._mask_stat = None
        self._mask_stat = file_state(target)
        self._replay(record, at)
        if self.mask != target:
            self._mask_moved(target)
            self.mask = target
        if not self.predicted:
            self._mark.set(predicted=False)

    def try_flush(self) -> None:
        """Write the mask file; if that fails, the journal has the labels, and the next call tries again."""
        try:
            self.flush()
        except Exception as error:  # the masks of other images must still be written
            problem = f"the labels are saved, but their mask file cannot be written yet: {error}"
            if problem != self.problem:
                self.problem = problem
                _log.warning(
                    "%s", problem, exc_info=not isinstance(error, SimMATError | OSError)
                )

    def _check(self, version: int) -> None:
        self.refresh()
        if version != self.version:
            raise StaleError

    def _write(
        self,
        kind: Any,
        changes: tuple[Change, ...],
        *,
        done: bool | None = None,
        **given: Any,
    ) -> None:
        """Write a step: first the record, which makes it permanent, then the mask."""
        objects = apply_changes(self.objects, changes, self.size_hw)
        self._rule().values(objects, self._ignored)
        version = self.version + (kind != "written")
        if self.done and not objects and kind in ("edit", "undo", "redo"):
            done = False  # nobody said that the image is empty
        more = given if done is None else {"done": done}
        self._append(
            self._record(
                kind, objects, version=version, changes=changes, sha256="", **more
            )
        )
        self.unwritten, self.changed_s = True, time.monotonic()
        if self.size_hw[0] * self.size_hw[1] <= AT_ONCE_PX:
            self.try_flush()

    def _record(self, kind: Any, objects: Objects, **more: Any) -> Record:
        """Return the record of a step with the state after it."""
        rule = self._rule()
        classes = sorted(
            {region.class_id for region in objects.values()}, key=lambda one: one or 0
        )
        known = {"version": self.version, "done": self.done, "was": self._sha256} | more
        if rule.tracks is not None:
            removed = {
                one.id
                for one in more.get("changes", ())
                if kind in ("edit", "redo") and one.after is None
            }
            lost = (
                () if kind == "undo" or known["done"] else known.get("lost", self.lost)
            )
            known |= frame_state(
                objects, lost, known.get("absent", self.absent) | removed
            )
        return Record(
            kind=kind,
            objects=len(objects),
            predicted=sum(map(is_predicted, objects.values())),
            classes=tuple(classes),
            rule=rule.card.regions,
            **known,
        )

    def _append(self, record: Record) -> None:
        self._replay(record, self._journal.append(record))

    def _replay(self, record: Record, at: int) -> None:
        self.objects = apply_changes(self.objects, record.changes, self.size_hw)
        self.version, self.done = record.version, record.done
        self.lost, self.absent = frozenset(record.lost), frozenset(record.absent)
        self._next = max([self._next, *(change.id + 1 for change in record.changes)])
        if record.sha256 != "":
            self._sha256 = record.sha256
        if record.kind in ("base", "outside"):
            self._ignored = (
                None
                if record.ignored is None
                else decode_mask(record.ignored, self.size_hw)
            )
            self._had_mask = record.sha256 is not None
        undo, redo = self.steps["undo"], self.steps["redo"]
        if record.kind in ("edit", "outside", "follow"):
            undo.append(at)
            redo.clear()
        elif record.kind == "undo":
            redo.append(undo.pop())
        elif record.kind == "redo":
            undo.append(redo.pop())

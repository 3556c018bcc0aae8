"""Follow objects through a sequence of frames, or the slices of a stack, from the masks of a few of them."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Container,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from simmat.data.instances import Instance, LabelArray, check_equal_size
from simmat.errors import DataError
from simmat.predictor import FollowedFrame, Predictor
from simmat.types import BoolArray
from simmat_plugin_sequences.frame_encoder import FrameEncoder, open_frames
from simmat_plugin_sequences.frame_grid import GridWindow
from simmat_plugin_sequences.given_masks import (
    GivenFrame,
    GivenMasks,
    Masks,
    Regions,
    read_given_masks,
    regions_of,
    sorted_masks,
)
from simmat_plugin_sequences.labels import (
    Kind,
    LabelKey,
    Labels,
    LabelStore,
    ObjectLabel,
    blended_label,
    halfway,
    joined_label,
)
from simmat_plugin_sequences.propagation import propagate
from simmat_plugin_sequences.refining import Refiner

RECENT = 3
"""Frames before the present one whose labels are propagated, besides those with given masks."""
LOST = 2
"""Frames, at most, in which lost objects were last seen, whose labels are propagated, too."""
REACH = 1 / 10
"""Farthest that an object is looked for from its place in another frame, as a share of a window's side."""
SEEN = 0.5
"""Label of a cell from which an object is in a frame."""

Progress = Callable[[int, int], None]
"""Called with the steps done, and those of the whole work."""


def follow(
    predictor: Predictor,
    frames: Sequence[Any],
    masks: Mapping[int, LabelArray | Masks],
    *,
    tile: int | None = None,
    progress: Progress | None = None,
) -> Iterator[FollowedFrame]:
    """Find the objects of some frames in all others, as `Predictor.follow` says."""
    follower = open_follower(
        predictor, frames, read_given_masks(masks), tile=tile, progress=progress
    )
    return map(_with_masks, follower)


def open_follower(
    predictor: Predictor,
    frames: Sequence[Any],
    masks: Mapping[int, GivenFrame],
    *,
    tile: int | None = None,
    done: Container[int] = (),
    stored: MutableMapping[str, bytes] | None = None,
    progress: Progress | None = None,
) -> Follower:
    """Check the masks, encode the first frame that has some, and return what finds the objects.

    Args:
        predictor: loads and encodes frames.
        frames: as in `Predictor.follow`.
        masks: of some frames. An object that a frame does not name is propagated there, too.
        tile: as in `Predictor.follow`.
        done: frames of an earlier call, which are not found again.
        stored: keeps labels that later frames need, those of an earlier call, too; None keeps them in memory.
        progress: as in `Predictor.follow`.

    Raises:
        DataError: as `Predictor.follow` raises it.
    """
    given = sorted_masks(masks)
    areas = given.areas
    if not areas:
        raise DataError(
            "there is no object to follow; give the mask of one in at least one frame"
        )
    for frame in masks:
        if not 0 <= frame < len(frames):
            raise DataError(
                f"masks are given for frame {frame}, but the {len(frames)} frames are 0 to {len(frames) - 1}"
            )
    encoder = open_frames(predictor, frames, given.frames[0], min(areas), tile)
    for frame, of_frame in masks.items():
        if of_frame.regions:
            check_equal_size(
                f"mask of frame {frame}",
                of_frame.size_hw,
                f"frame {frame}",
                encoder.grid.frame_hw,
            )
    store = LabelStore({} if stored is None else stored)
    return Follower(encoder, given, len(frames), store, done=done, progress=progress)


@dataclass(frozen=True)
class FoundFrame:
    """The objects of a frame.

    Attributes:
        index: number of the frame.
        size_hw: (H, W) pixels of the frame.
        regions: object id -> its pixels; None where it is not found.
        scores: object id -> 0 to 1, see `FollowedFrame`.
    """

    index: int
    size_hw: tuple[int, int]
    regions: Regions
    scores: Mapping[int, float]


def _with_masks(found: FoundFrame) -> FollowedFrame:
    """Return the objects of a frame with a mask of the frame for each."""
    masks: dict[int, BoolArray] = {}
    for number, region in found.regions.items():
        if region is None:
            masks[number] = np.zeros(found.size_hw, np.bool_)
        else:
            masks[number] = region.mask(found.size_hw)
    return FollowedFrame(found.index, masks, dict(found.scores))


class FromLater(NamedTuple):
    """What later frames say of a frame.

    Attributes:
        labels: propagated back.
        shares: object id -> the share of that label in the frame's own one.
    """

    labels: Labels
    shares: Mapping[int, float]


class Follower:
    """Finds the objects of some frames in all others.

    Labels are propagated by the similarity of the network's features to those of the nearest frames with given masks,
    of the last few frames, and of those in which a lost object was last seen. Where the decoder gives the given mask of
    an object when asked, it refines the propagated one; where it nearly does, it draws the border, not propagated, in a
    window around the object. Between two frames with given masks both ways are blended. Nothing is trained.

    Attributes:
        ids: the objects, sorted.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        given: GivenMasks,
        count: int,
        store: LabelStore,
        *,
        done: Container[int] = (),
        progress: Progress | None = None,
    ) -> None:
        """Take what `open_follower` has checked and opened.

        Args:
            count: number of frames.
        """
        self.ids = given.ids
        self._encoder = encoder
        self._grid = encoder.grid
        self._given = given
        self._count = count
        self._store = store
        self._done = done
        self._progress = progress
        self._refiner = Refiner(encoder, given)
        self._reach = max(round(REACH * self._grid.side), 1)
        self._last_seen: dict[int, int] = {}  # object id -> frame
        # Objects that are named first in a later frame are followed back from it through all others.
        self._latest = max(given.first_frame(number) for number in self.ids)
        self._steps = 0

    def __iter__(self) -> Iterator[FoundFrame]:
        """Find and yield the frames that are not done: from the first one with masks forward, then from it backward."""
        frames = self._given.frames
        for frame, later in reversed([*pairwise(frames)]):
            if later <= self._latest:
                self._propagate_back(frame, later)
        for place, frame in enumerate(frames):
            before = frames[place - 1] if place > 0 else None
            following = frames[place + 1] if place + 1 < len(frames) else None
            yield from self._find_given(frame, before)
            if following is None:
                yield from self._find_all(range(frame + 1, self._count), frame, None)
                continue
            if following > self._latest:
                self._propagate_back(frame, following)
            yield from self._find_all(range(frame + 1, following), frame, following)
        self._last_seen = {}
        yield from self._find_all(range(frames[0] - 1, -1, -1), frames[0], None)

    def _find_given(self, frame: int, before: int | None) -> Iterator[FoundFrame]:
        """Keep the labels of a frame with masks, and yield it; what it does not name is propagated from `before`."""
        labels = self._given_labels(frame)
        regions: dict[int, Instance | None] = {}
        scores: dict[int, float] = {}
        is_done = frame in self._done
        if is_done:
            kept = self._store.load(LabelKey("found", frame))
            if kept is None:
                kept = self._store.load(LabelKey("back", frame))
            if kept is not None:
                labels = kept
        elif not self._given.names_all(frame):
            from_later = self._from_later(frame, frame, None)
            if before is None:
                regions, propagated = self._find(
                    frame, frame, [LabelKey("back", frame)], from_later
                )
            else:
                regions, propagated = self._find(
                    frame, before, [self._anchor(before)], from_later
                )
            scores = self._scores(regions, propagated)
            labels = self._or_given(frame, propagated)
        self._keep_found(frame, labels)
        self._advance()
        if not is_done:
            for number, region in self._given.regions[frame].items():
                regions[number] = region
                scores[number] = 0.0 if region is None else 1.0
            yield FoundFrame(frame, self._grid.frame_hw, regions, scores)

    def _find_all(
        self, frames: range, start: int, following: int | None
    ) -> Iterator[FoundFrame]:
        """Find the frames after or before one with given masks, up to the next one."""
        anchors = [self._anchor(start)]
        if following is not None and self._given.names_all(following):
            anchors.append(LabelKey("given", following))
        for frame in frames:
            if frame in self._done:
                kept = self._store.load(LabelKey("found", frame))
                if kept is not None:
                    self._note_seen(frame, kept)
                self._advance()
                continue
            regions: dict[int, Instance | None] = dict.fromkeys(self.ids)
            scores = dict.fromkeys(self.ids, 0.0)
            if self._encoder.is_measured(frame):
                regions, labels = self._find(
                    frame, start, anchors, self._from_later(frame, start, following)
                )
                scores = self._scores(regions, labels)
                self._keep_found(frame, labels)
            self._store.drop(LabelKey("back", frame))
            self._advance()
            yield FoundFrame(frame, self._grid.frame_hw, regions, scores)

    def _propagate_back(self, frame: int, following: int) -> None:
        """Propagate from a frame with masks back to the one before it, as far as frames are not done.

        Objects that have their first mask there, or later, are propagated on to that frame and beyond.
        """
        goes_on = following <= self._latest
        anchor = LabelKey("given", following)
        if following < self._latest:
            anchor = LabelKey("back", following)
        wanted = range(0, following)
        last = frame
        if not goes_on:
            wanted = range(frame + 1, following)
            last = frame + 1
        first = next((one for one in wanted if one not in self._done), following)
        for one in range(following - 1, last - 1, -1):
            key = LabelKey("back", one)
            if (
                one >= first
                and key not in self._store
                and self._encoder.is_measured(one)
            ):
                _, labels = self._step(
                    one, self._sources("back", one, following, [anchor])
                )
                if one == frame:
                    labels = self._or_given(frame, labels)
                self._store.keep(key, labels)
            self._advance()

    def _from_later(
        self, frame: int, start: int, following: int | None
    ) -> FromLater | None:
        """Return what is propagated back to a frame, which lies between `start`, or is it, and `following`."""
        if frame < start:
            return None
        labels = self._store.load(LabelKey("back", frame))
        if labels is None:
            return None
        known: set[int] = set()
        for one in self._given.frames:
            if one <= start:
                known.update(self._given.regions[one])
        shares = {}
        for number in self.ids:
            if number not in known:
                shares[number] = 1.0
            elif following is not None and number in self._given.regions[following]:
                shares[number] = (frame - start) / (following - start)
            else:
                shares[number] = 0.0
        return FromLater(labels, shares)

    def _sources(
        self, kind: Kind, frame: int, start: int, anchors: Sequence[LabelKey]
    ) -> list[LabelKey]:
        """Return the labels that are propagated to a frame, one of each other frame; drop those that are not needed.

        Args:
            kind: of the labels.
            frame: number of the frame.
            start: frame with masks from which the objects are followed.
            anchors: labels of frames with masks.
        """
        step = 1 if frame > start else -1
        recent = range(frame - step, start, -step)[:RECENT]
        wanted = list(anchors)
        for one in recent:
            wanted.append(LabelKey(kind, one))
        if kind == "found":
            near = {key.frame for key in wanted}
            for one in self._lost_frames(frame, near):
                wanted.append(LabelKey(kind, one))
            self._store.keep_only(
                kind, [*wanted, LabelKey(kind, self._given.frames[0])]
            )
        found = [key for key in wanted if key.kind == "given" or key in self._store]
        self._encoder.keep(frame, {key.frame for key in found})
        return found

    def _lost_frames(self, frame: int, near: set[int]) -> list[int]:
        """Return the nearest frames in which objects were last seen, without those that are near."""
        lost = set(self._last_seen.values()) - near
        return sorted(lost, key=lambda one: abs(one - frame))[:LOST]

    def _find(
        self,
        frame: int,
        start: int,
        anchors: Sequence[LabelKey],
        from_later: FromLater | None,
    ) -> tuple[dict[int, Instance | None], Labels]:
        """Return the objects in a frame, and their labels; borders are not in the labels."""
        found, labels = self._step(
            frame, self._sources("found", frame, start, anchors), from_later
        )
        regions: dict[int, Instance | None] = dict.fromkeys(self.ids)
        regions.update(found)
        if self._draws_borders:
            for number, region in found.items():
                label = labels.of_objects[number]
                regions[number] = self._refiner.border(frame, number, region, label)
        return regions, labels

    def _step(
        self,
        frame: int,
        sources: Sequence[LabelKey],
        from_later: FromLater | None = None,
    ) -> tuple[dict[int, Instance], Labels]:
        """Return the objects that are in a frame, refined where the decoder is trusted, and the labels of all.

        Args:
            frame: number of the frame.
            sources: labels that are propagated.
            from_later: what is blended with them.
        """
        propagated, windows = self._propagated(frame, sources, from_later)
        regions = regions_of(self._grid.strongest(propagated, windows))
        labels = dict(propagated.of_objects)
        refined = self._refiner.refined(frame, regions, propagated, windows)
        for number, region in refined.items():
            regions[number] = region
            labels[number] = halfway(labels[number], self._grid.label(region))
        return regions, Labels(labels)

    def _propagated(
        self, frame: int, sources: Sequence[LabelKey], from_later: FromLater | None
    ) -> tuple[Labels, list[GridWindow]]:
        """Return the labels that are propagated to a frame, and the windows in which they are looked for."""
        known: list[tuple[int, Labels]] = []
        covered = np.zeros(self._grid.size_hw, np.bool_)
        for key in sources:
            own = self._labels_of(key)
            if own is not None:
                known.append((key.frame, own))
                covered |= own.covered(self._grid.size_hw)
        if from_later is not None:
            covered |= from_later.labels.covered(self._grid.size_hw)
        windows = self._grid.near(covered, self._reach)
        pieces: dict[int, list[ObjectLabel]] = {}
        for window in windows:
            for number, piece in self._propagated_in(frame, window, known).items():
                pieces.setdefault(number, []).append(piece)
        labels = {}
        for number in self.ids:
            label = joined_label(pieces.get(number, ()))
            if from_later is not None:
                later = from_later.labels.of_objects.get(number)
                label = blended_label(label, later, from_later.shares[number])
            if label is not None:
                labels[number] = label
        return Labels(labels), windows

    def _propagated_in(
        self, frame: int, window: GridWindow, known: Sequence[tuple[int, Labels]]
    ) -> dict[int, ObjectLabel]:
        """Return the labels that are propagated to the core of a window, from those that are in the window.

        Args:
            frame: number of the frame.
            window: where it is encoded.
            known: numbers of other frames, and their labels.
        """
        present: set[int] = set()
        for _, own in known:
            present.update(own.touching(window.cells))
        if not present:
            return {}
        numbers = sorted(present)
        query = self._encoder.features(frame, window)
        features = []
        parts = []
        for other, own in known:
            features.append(self._encoder.features(other, window))
            part = torch.from_numpy(own.within(numbers, window.cells))  # (K, h, w)
            parts.append(part.to(self._encoder.device))
        found = propagate(query, features, parts, self._reach)
        in_core = found[:, *window.core_in_window.slices].cpu().numpy()
        return {
            number: ObjectLabel(window.core, values)
            for number, values in zip(numbers, in_core, strict=True)
        }

    @cached_property
    def _draws_borders(self) -> bool:
        """Whether borders are drawn: each costs as much as a window."""
        covered = self._given_labels(self._given.frames[0]).covered(self._grid.size_hw)
        return len(self.ids) <= len(self._grid.near(covered, self._reach))

    def _scores(self, regions: Regions, labels: Labels) -> dict[int, float]:
        """Return how surely each mask is its object: the mean label inside of it, 0 for an empty one."""
        scores = {}
        for number, region in regions.items():
            scores[number] = 0.0
            label = labels.of_objects.get(number)
            if region is not None and label is not None:
                cells, inside = self._grid.label(region)
                weighted = (inside * label.within(cells)).sum(dtype=np.float64)
                scores[number] = float(weighted / inside.sum(dtype=np.float64))
        return scores

    def _anchor(self, frame: int) -> LabelKey:
        """Return the labels of a frame with masks: the given ones where nothing is propagated to it."""
        if self._given.names_all(frame):
            return LabelKey("given", frame)
        return LabelKey("found", frame)

    def _labels_of(self, key: LabelKey) -> Labels | None:
        """Return the labels of a key; None if they are not stored."""
        if key.kind == "given":
            return self._given_labels(key.frame)
        return self._store.load(key)

    def _given_labels(self, frame: int) -> Labels:
        """Return the labels of the given masks of a frame."""
        labels = {}
        for number, region in self._given.regions[frame].items():
            if region is not None:
                labels[number] = self._grid.label(region)
        return Labels(labels)

    def _or_given(self, frame: int, labels: Labels) -> Labels:
        """Return labels of a frame with masks, those of its given masks in place of propagated ones."""
        own = dict(self._given_labels(frame).of_objects)
        for number, label in labels.of_objects.items():
            if number not in self._given.regions[frame]:
                own[number] = label
        return Labels(dict(sorted(own.items())))

    def _keep_found(self, frame: int, labels: Labels) -> None:
        """Keep the labels of a frame for later ones."""
        self._store.keep(LabelKey("found", frame), labels)
        self._note_seen(frame, labels)

    def _note_seen(self, frame: int, labels: Labels) -> None:
        """Note which objects are in a frame."""
        for number, label in labels.of_objects.items():
            if label.values.max() >= SEEN:
                self._last_seen[number] = frame

    @cached_property
    def _total(self) -> int:
        """The steps of the whole work: every frame, and those that labels are propagated back to."""
        back = 0
        for before, frame in pairwise(self._given.frames):
            back += frame - before
            if frame > self._latest:
                back -= 1
        return self._count + back

    def _advance(self) -> None:
        self._steps += 1
        if self._progress is not None:
            self._progress(self._steps, self._total)

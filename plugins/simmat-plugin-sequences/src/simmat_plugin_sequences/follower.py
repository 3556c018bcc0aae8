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
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from simmat.data.instances import LabelArray, check_equal_size
from simmat.errors import DataError
from simmat.predictor import FollowedFrame, Predictor
from simmat.types import BoolArray
from simmat_plugin_sequences.frame_encoder import FrameEncoder, open_frames
from simmat_plugin_sequences.frame_grid import GridWindow
from simmat_plugin_sequences.given_masks import GivenMasks, Masks, read_given_masks
from simmat_plugin_sequences.labels import Kind, LabelKey, LabelStore
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
    return iter(
        open_follower(
            predictor, frames, read_given_masks(masks), tile=tile, progress=progress
        )
    )


def open_follower(
    predictor: Predictor,
    frames: Sequence[Any],
    masks: Mapping[int, Masks],
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
        masks: frame -> object id -> (H, W) bool mask, all False where the object is not in that frame. An object that
            a frame does not name is propagated there, too.
        tile: as in `Predictor.follow`.
        done: frames of an earlier call, which are not found again.
        stored: keeps labels that later frames need, those of an earlier call, too; None keeps them in memory.
        progress: as in `Predictor.follow`.

    Raises:
        DataError: as `Predictor.follow` raises it.
    """
    given = GivenMasks(
        {frame: dict(sorted(masks[frame].items())) for frame in sorted(masks)}
    )
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
        for mask in of_frame.values():
            check_equal_size(
                f"mask of frame {frame}",
                mask.shape,
                f"frame {frame}",
                encoder.grid.frame_hw,
            )
    store = LabelStore(
        {} if stored is None else stored, (len(given.ids), *encoder.grid.size_hw)
    )
    return Follower(encoder, given, len(frames), store, done=done, progress=progress)


class FromLater(NamedTuple):
    """What later frames say of a frame.

    Attributes:
        labels: (K, h, w), propagated back.
        share: (K, 1, 1), of them in the frame's own labels.
    """

    labels: Tensor
    share: Tensor


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

    def __iter__(self) -> Iterator[FollowedFrame]:
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

    def _find_given(self, frame: int, before: int | None) -> Iterator[FollowedFrame]:
        """Keep the labels of a frame with masks, and yield it; what it does not name is propagated from `before`."""
        labels = self._given_labels(frame)
        masks: dict[int, BoolArray] = {}
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
                masks, propagated = self._find(
                    frame, frame, [LabelKey("back", frame)], from_later
                )
            else:
                masks, propagated = self._find(
                    frame, before, [self._anchor(before)], from_later
                )
            scores = self._scores(masks, propagated)
            labels = self._or_given(frame, propagated)
        self._keep_found(frame, labels)
        self._advance()
        if not is_done:
            for number, mask in self._given.masks[frame].items():
                masks[number] = mask
                scores[number] = float(mask.any())
            yield FollowedFrame(frame, masks, scores)

    def _find_all(
        self, frames: range, start: int, following: int | None
    ) -> Iterator[FollowedFrame]:
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
            if self._encoder.is_measured(frame):
                masks, labels = self._find(
                    frame, start, anchors, self._from_later(frame, start, following)
                )
                scores = self._scores(masks, labels)
                self._keep_found(frame, labels)
            else:
                nothing = np.zeros(self._grid.frame_hw, np.bool_)
                masks = dict.fromkeys(self.ids, nothing)
                scores = dict.fromkeys(self.ids, 0.0)
            self._store.drop(LabelKey("back", frame))
            self._advance()
            yield FollowedFrame(frame, masks, scores)

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
                known.update(self._given.masks[one])
        shares = []
        for number in self.ids:
            if number not in known:
                shares.append(1.0)
            elif following is not None and number in self._given.masks[following]:
                shares.append((frame - start) / (following - start))
            else:
                shares.append(0.0)
        return FromLater(labels, torch.tensor(shares)[:, None, None])

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
    ) -> tuple[dict[int, BoolArray], Tensor]:
        """Return the masks of the objects in a frame, and their labels (K, h, w); borders are not in the labels."""
        masks, labels = self._step(
            frame, self._sources("found", frame, start, anchors), from_later
        )
        if self._draws_borders:
            for number, label in zip(self.ids, labels, strict=True):
                border = self._refiner.border(frame, number, masks[number], label)
                if border is not None:
                    masks[number] = border
        return masks, labels

    def _step(
        self,
        frame: int,
        sources: Sequence[LabelKey],
        from_later: FromLater | None = None,
    ) -> tuple[dict[int, BoolArray], Tensor]:
        """Return the masks of the objects in a frame, refined where the decoder is trusted, and their labels (K, h, w).

        Args:
            frame: number of the frame.
            sources: labels that are propagated.
            from_later: what is blended with them.
        """
        labels, windows = self._propagated(frame, sources, from_later)
        strongest = np.zeros(self._grid.frame_hw, np.int32)
        for pixels, of_window in self._grid.strongest(labels, windows):
            strongest[pixels.slices] = of_window
        masks = {
            number: np.asarray(strongest == place)
            for place, number in enumerate(self.ids, start=1)
        }
        by_id = dict(zip(self.ids, labels, strict=True))  # views of them
        for number, mask in self._refiner.refined(frame, masks, by_id, windows).items():
            masks[number] = mask
            label = by_id[number]
            label += (self._grid.labels(mask) - label) / 2  # in place
        return masks, labels

    def _propagated(
        self, frame: int, sources: Sequence[LabelKey], from_later: FromLater | None
    ) -> tuple[Tensor, list[GridWindow]]:
        """Return the labels (K, h, w) that are propagated to a frame, and the windows in which they are looked for."""
        labels = torch.zeros(len(self.ids), *self._grid.size_hw)
        of_sources = []
        for key in sources:
            own = self._labels_of(key)
            if own is not None:
                of_sources.append(own)
        nearby = labels if from_later is None else from_later.labels
        windows = self._grid.near(
            torch.stack([nearby, *of_sources]).amax(0), self._reach
        )
        for window in windows:
            query = self._encoder.features(frame, window)
            features = [self._encoder.features(key.frame, window) for key in sources]
            parts = [
                own[:, *window.cells.slices].to(self._encoder.device)
                for own in of_sources
            ]
            found = propagate(query, features, parts, self._reach)
            labels[:, *window.core.slices] = found[
                :, *window.core_in_window.slices
            ].cpu()
        if from_later is not None:
            labels = (
                1 - from_later.share
            ) * labels + from_later.share * from_later.labels
        return labels, windows

    @cached_property
    def _draws_borders(self) -> bool:
        """Whether borders are drawn: each costs as much as a window."""
        first = self._given_labels(self._given.frames[0])
        return len(self.ids) <= len(self._grid.near(first, self._reach))

    def _scores(self, masks: Masks, labels: Tensor) -> dict[int, float]:
        """Return how surely each mask is its object: the mean label inside of it, 0 for an empty one."""
        scores = {}
        for number, label in zip(self.ids, labels, strict=True):
            scores[number] = 0.0
            if masks[number].any():
                inside = self._grid.labels(masks[number])
                scores[number] = float((inside * label).sum() / inside.sum())
        return scores

    def _anchor(self, frame: int) -> LabelKey:
        """Return the labels of a frame with masks: the given ones where nothing is propagated to it."""
        if self._given.names_all(frame):
            return LabelKey("given", frame)
        return LabelKey("found", frame)

    def _labels_of(self, key: LabelKey) -> Tensor | None:
        """Return the labels (K, h, w) of a key; None if they are not stored."""
        if key.kind == "given":
            return self._given_labels(key.frame)
        return self._store.load(key)

    def _given_labels(self, frame: int) -> Tensor:
        """Return the labels (K, h, w) of the given masks of a frame, 0 where it does not name an object."""
        masks = self._given.masks[frame]
        labels = torch.zeros(len(self.ids), *self._grid.size_hw)
        for place, number in enumerate(self.ids):
            if number in masks:
                labels[place] = self._grid.labels(masks[number])
        return labels

    def _or_given(self, frame: int, labels: Tensor) -> Tensor:
        """Return labels (K, h, w) of a frame with masks, those of its given masks in place of propagated ones."""
        is_named = torch.tensor(
            [number in self._given.masks[frame] for number in self.ids]
        )
        return torch.where(is_named[:, None, None], self._given_labels(frame), labels)

    def _keep_found(self, frame: int, labels: Tensor) -> None:
        """Keep the labels of a frame for later ones."""
        self._store.keep(LabelKey("found", frame), labels)
        self._note_seen(frame, labels)

    def _note_seen(self, frame: int, labels: Tensor) -> None:
        """Note which objects are in a frame."""
        for number, strongest in zip(
            self.ids, labels.flatten(1).amax(1).tolist(), strict=True
        ):
            if strongest >= SEEN:
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

"""Follow objects through a sequence of frames, or the slices of a stack, from the masks of a few of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simmat.data.instances import LabelArray, check_equal_size
from simmat.errors import DataError
from simmat.predictor import FollowedFrame, Predictor
from simmat.types import BoolArray
from simmat_plugin_sequences.frame_encoder import FrameEncoder, PromptKind
from simmat_plugin_sequences.frame_grid import GridWindow
from simmat_plugin_sequences.propagation import propagate

RECENT = 3
"""Frames before the present one whose labels are propagated, besides those with given masks."""
LOST = 2
"""Frames, at most, in which lost objects were last seen, whose labels are propagated, too."""
REACH = 1 / 10
"""Farthest that an object is looked for from its place in another frame, as a share of a window's side."""
SEEN = 0.5
"""Label of a cell from which an object is in a frame."""
TRUST = 0.95
"""IoU with a given mask from which the decoder is asked for an object: it answers what is meant, and not a part."""
AGREEMENT = 0.5
"""Least IoU of the decoder's mask with the propagated one."""
BORDER_TRUST = 0.8
"""As `TRUST`, where the decoder sees the object larger, and only draws its border."""
SHARE = 0.4
"""Of the decoder in such a mask; the rest is the labels'. Below half, it decides only where the labels are not sure."""
_ONE = 255
"""A label of 1 as it is stored."""

Masks = Mapping[int, BoolArray]
"""Object id -> (H, W) bool."""
_Key = tuple[str, int]
"""Labels of a frame, and its number: "f" as found, "b" propagated back from the next frame with masks, "g" given."""


def follow(
    predictor: Predictor,
    frames: Sequence[Any],
    masks: Mapping[int, LabelArray | Masks],
    *,
    tile: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[FollowedFrame]:
    """Find the objects of some frames in all others, as `Predictor.follow` says."""
    return iter(Follower(predictor, frames, given_masks(masks), tile=tile, progress=progress))


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
        encoder: Predictor,
        frames: Sequence[Any],
        masks: Mapping[int, Masks],
        *,
        tile: int | None = None,
        done: Container[int] = (),
        stored: MutableMapping[str, bytes] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Check the masks, and encode the first frame that has some.

        Args:
            encoder: a predictor.
            frames: as in `Predictor.follow`.
            masks: frame number -> object id -> (H, W) bool mask, all False where the object is not in that frame. An
                object that a frame does not name is propagated there, too.
            tile: as in `Predictor.follow`.
            done: frames of an earlier call, which are not found again.
            stored: keeps labels that later frames need, those of an earlier call, too; None keeps them in memory.
            progress: as in `Predictor.follow`.

        Raises:
            DataError: as `Predictor.follow` raises it.
        """
        areas = [int(mask.sum()) for of_frame in masks.values() for mask in of_frame.values() if mask.any()]
        if not areas:
            raise DataError("there is no object to follow; give the mask of one in at least one frame")
        if unknown := [key for key in masks if not 0 <= key < len(frames)]:
            raise DataError(
                f"masks are given for frame {unknown[0]}, but the {len(frames)} frames are 0 to {len(frames) - 1}"
            )
        self._masks = {key: dict(sorted(of_frame.items())) for key, of_frame in sorted(masks.items())}
        self._keys, self._count, self._done = list(self._masks), len(frames), done
        self._stored: MutableMapping[str, bytes] = {} if stored is None else stored
        self._encoder = FrameEncoder(encoder, frames, self._keys[0], min(areas), tile)
        self._grid = self._encoder.grid
        for key, of_frame in masks.items():
            for mask in of_frame.values():
                check_equal_size(f"mask of frame {key}", mask.shape, f"frame {key}", self._grid.frame_hw)
        self.ids = sorted({number for of_frame in masks.values() for number in of_frame})
        self._reach = max(round(REACH * self._encoder.side), 1)
        windows = self._grid.near(self._given_labels(self._keys[0]), self._reach)
        self._draws_borders = len(self.ids) <= len(windows)  # each costs as much as a window
        self._trusted: dict[int, tuple[PromptKind, int] | None] = {}
        self._borders: dict[int, int | None] = {}
        self._seen: dict[int, int] = {}  # object id -> last frame with it
        self._progress = progress or (lambda done, total: None)
        # Objects that are named first in a later frame are followed back from it through all others.
        self._latest = max(next(key for key in self._keys if number in masks[key]) for number in self.ids)
        back = sum(key - before - (key > self._latest) for before, key in pairwise(self._keys))
        self._steps, self._total = 0, len(frames) + back

    def __iter__(self) -> Iterator[FollowedFrame]:
        """Find and yield the frames that are not done: from the first one with masks forward, then from it backward."""
        for key, later in reversed([*pairwise(self._keys)]):
            if later <= self._latest:
                self._propagate_back(key, later)
        for before, key, following in zip([None, *self._keys], self._keys, [*self._keys[1:], None], strict=False):
            yield from self._given_frame(key, before)
            end = self._count if following is None else following
            if following is not None and following > self._latest:
                self._propagate_back(key, following)
            yield from self._pass(range(key + 1, end), key, following)
        first = self._keys[0]
        self._seen = {}
        yield from self._pass(range(first - 1, -1, -1), first, None)

    def _anchor(self, key: int) -> _Key:
        """Return the labels of a frame with masks: the given ones where nothing is propagated to it."""
        return ("g" if self._names_all(key) else "f"), key

    def _names_all(self, key: int) -> bool:
        return len(self._masks[key]) == len(self.ids)

    def _given_frame(self, key: int, before: int | None) -> Iterator[FollowedFrame]:
        """Keep the labels of a frame with masks, and yield it; what it does not name is propagated from `before`."""
        given, labels = self._masks[key], self._given_labels(key)
        found = FollowedFrame(key, {}, {})
        if key in self._done:
            labels = next((kept for one in "fb" if (kept := self._load((one, key))) is not None), labels)
        elif not self._names_all(key):
            start, anchor = (key, ("b", key)) if before is None else (before, self._anchor(before))
            found, propagated = self._find(key, start, [anchor], self._from_later(key, key, None))
            labels = self._or_given(key, propagated)
        self._keep(("f", key), labels)
        self._advance()
        if key not in self._done:
            scores = {number: float(mask.any()) for number, mask in given.items()}
            yield FollowedFrame(key, found.masks | given, found.scores | scores)

    def _pass(self, indices: range, key: int, following: int | None) -> Iterator[FollowedFrame]:
        """Find the frames after or before one with given masks, up to the next one."""
        anchors = [self._anchor(key)]
        if following is not None and self._names_all(following):
            anchors.append(("g", following))
        for index in indices:
            if index in self._done:
                if (labels := self._load(("f", index))) is not None:
                    self._remember(index, labels)
                self._advance()
                continue
            if self._encoder.is_measured(index):
                found, labels = self._find(index, key, anchors, self._from_later(index, key, following))
                self._keep(("f", index), labels)
            else:
                none = np.zeros(self._grid.frame_hw, np.bool_)
                found = FollowedFrame(index, dict.fromkeys(self.ids, none), dict.fromkeys(self.ids, 0.0))
            self._stored.pop(_name(("b", index)), None)
            self._advance()
            yield found

    def _propagate_back(self, key: int, following: int) -> None:
        """Propagate from a frame with masks back to the one before it, as far as frames are not done.

        Objects that have their first mask there, or later, are propagated on to that frame and beyond.
        """
        goes_on, anchor = following <= self._latest, ("b" if following < self._latest else "g", following)
        wanted = range(0 if goes_on else key + 1, following)
        first = next((index for index in wanted if index not in self._done), following)
        for index in range(following - 1, key - goes_on, -1):
            if index >= first and _name(("b", index)) not in self._stored and self._encoder.is_measured(index):
                _, labels = self._step(index, self._context("b", index, following, [anchor]))
                self._keep(("b", index), labels if index > key else self._or_given(key, labels))
            self._advance()

    def _from_later(self, index: int, key: int, following: int | None) -> tuple[Tensor, Tensor] | None:
        """Return the (K, h, w) labels that are propagated back to a frame, and the (K, 1, 1) share of them in its own.

        It lies between `key`, or is it, and `following`, which have masks.
        """
        if index < key or (labels := self._load(("b", index))) is None:
            return None
        known = {number for one in self._keys if one <= key for number in self._masks[one]}
        named = {} if following is None else self._masks[following]
        share = 0.0 if following is None else (index - key) / (following - key)
        shares = [share * (number in named) if number in known else 1.0 for number in self.ids]
        return labels, torch.tensor(shares)[:, None, None]

    def _or_given(self, key: int, labels: Tensor) -> Tensor:
        """Return (K, h, w) labels of a frame with masks, those of its given masks in place of propagated ones."""
        named = torch.tensor([number in self._masks[key] for number in self.ids])[:, None, None]
        return torch.where(named, self._given_labels(key), labels)

    def _context(self, kind: str, index: int, key: int, anchors: Sequence[_Key]) -> list[_Key]:
        """Return the labels that are propagated to a frame, one of each other frame; drop those that are not needed.

        Args:
            kind: of the labels.
            index: of the frame.
            key: frame with masks from which the objects are followed.
            anchors: labels of frames with masks.
        """
        step = 1 if index > key else -1
        recent = range(index - step, key, -step)[:RECENT]
        near = {*recent, *(number for _, number in anchors)}
        lost = sorted(set(self._seen.values()) - near, key=lambda number: abs(number - index))[:LOST]
        wanted = [*anchors, *((kind, number) for number in recent), *(("f", one) for one in lost if kind == "f")]
        if kind == "f":
            names = set(map(_name, [*wanted, ("f", self._keys[0])]))
            for name in [name for name in self._stored if name.startswith(kind) and name not in names]:
                del self._stored[name]
        found = [one for one in wanted if one[0] == "g" or _name(one) in self._stored]
        self._encoder.keep(index, {number for _, number in found})
        return found

    def _find(
        self, index: int, key: int, anchors: Sequence[_Key], other: tuple[Tensor, Tensor] | None = None
    ) -> tuple[FollowedFrame, Tensor]:
        """Find the objects in a frame, and draw the borders of those for which the decoder is trusted with that."""
        found, labels = self._step(index, self._context("f", index, key, anchors), other)
        for number, label in zip(self.ids, labels, strict=True) if self._draws_borders else ():
            mask = found.masks[number]
            window = self._grid.around(mask) if mask.any() else None
            if window and (output := self._border_output(number)) is not None:
                border = self._encoder.decode(index, window, [mask], [label], "both", SHARE)[0][output]
                found.masks[number], found.scores[number] = border, self._score(border, label)
        return found, labels

    def _step(
        self, index: int, context: Sequence[_Key], other: tuple[Tensor, Tensor] | None = None
    ) -> tuple[FollowedFrame, Tensor]:
        """Find the objects in a frame.

        Args:
            index: of the frame.
            context: labels that are propagated.
            other: (K, h, w) labels of this frame from the other side, and the (K, 1, 1) share of them.
        """
        labels = torch.zeros(len(self.ids), *self._grid.size_hw)
        of_frames = [own for one in context if (own := self._load(one)) is not None]
        windows = self._grid.near(torch.stack([labels if other is None else other[0], *of_frames]).amax(0), self._reach)
        for window in windows:
            features = [self._encoder.features(number, window) for _, number in context]
            parts = [one[:, *window.cells.slices].to(self._encoder.device) for one in of_frames]
            found = propagate(self._encoder.features(index, window), features, parts, self._reach)
            labels[:, *window.core.slices] = found[:, *window.core_in_window.slices].cpu()
        if other is not None:
            labels = (1 - other[1]) * labels + other[1] * other[0]
        chosen = np.zeros(self._grid.frame_hw, np.int32)
        for pixels, strongest in self._grid.strongest(labels, windows):
            chosen[pixels.slices] = strongest
        masks = {number: np.asarray(chosen == place) for place, number in enumerate(self.ids, start=1)}
        for number, mask in self._refined(index, masks, labels, windows).items():
            masks[number] = mask
            own = labels[self.ids.index(number)]
            own += (self._grid.labels(mask) - own) / 2  # in place
        scores = {number: self._score(masks[number], labels[place]) for place, number in enumerate(self.ids)}
        return FollowedFrame(index, masks, scores), labels

    def _score(self, mask: BoolArray, label: Tensor) -> float:
        inside = self._grid.labels(mask)
        return float((inside * label).sum() / inside.sum()) if mask.any() else 0.0

    def _refined(self, index: int, masks: Masks, labels: Tensor, windows: Sequence[GridWindow]) -> dict[int, BoolArray]:
        """Return the decoder's masks of the objects for which it is trusted, where they agree with (H, W) masks."""
        asked: dict[tuple[GridWindow, PromptKind], list[tuple[int, int]]] = {}
        for number, mask in masks.items():
            if mask.any() and (trusted := self._trust(number)) and (window := self._grid.holding(mask, windows)):
                asked.setdefault((window, trusted[0]), []).append((number, trusted[1]))
        found = {}
        for (window, kind), objects in asked.items():
            own = [masks[number] for number, _ in objects]
            likely = [labels[self.ids.index(number)] for number, _ in objects]
            answers = self._encoder.decode(index, window, own, likely, kind)
            for (number, output), mask, several in zip(objects, own, answers, strict=True):
                if iou(several[output], mask) >= AGREEMENT:
                    found[number] = several[output]
        return found

    def _trust(self, number: int) -> tuple[PromptKind, int] | None:
        """Return for which prompt, and in which output, the decoder gives the given mask; None if it does not."""
        if number not in self._trusted:
            key, mask, label = self._first_given(number)
            best, self._trusted[number] = TRUST, None
            kinds: tuple[PromptKind, ...] = ("click", "box")
            if window := self._grid.holding(mask, self._grid.near(label[None], 0)):
                for kind in kinds:
                    for output, answer in enumerate(self._encoder.decode(key, window, [mask], [label], kind)[0]):
                        if (likeness := iou(answer, mask)) >= best:
                            best, self._trusted[number] = likeness, (kind, output)
        return self._trusted[number]

    def _border_output(self, number: int) -> int | None:
        """Return which output of the decoder draws the border of an object; None if none does, or it gives the mask."""
        if number not in self._borders:
            key, mask, label = self._first_given(number)
            self._borders[number] = None
            if not self._trust(number) and (window := self._grid.around(mask)):
                likeness = [iou(one, mask) for one in self._encoder.decode(key, window, [mask], [label], "both")[0]]
                if max(likeness) >= BORDER_TRUST:
                    self._borders[number] = int(np.argmax(likeness))
        return self._borders[number]

    def _first_given(self, number: int) -> tuple[int, BoolArray, Tensor]:
        """Return the first frame with a given mask of an object, the mask, and its (h, w) label."""
        key = next(key for key in self._keys if number in self._masks[key] and self._masks[key][number].any())
        mask = self._masks[key][number]
        return key, mask, self._grid.labels(mask)

    def _given_labels(self, key: int) -> Tensor:
        """Return the (K, h, w) labels of the given masks of a frame."""
        none = torch.zeros(self._grid.size_hw)
        given = self._masks[key]
        return torch.stack([self._grid.labels(given[one]) if one in given else none for one in self.ids])

    def _keep(self, one: _Key, labels: Tensor) -> None:
        """Keep (K, h, w) labels, in 8 bits; a run that is resumed has the same ones."""
        self._stored[_name(one)] = zlib.compress((labels * _ONE).round().byte().numpy().tobytes(), 1)
        if one[0] == "f":
            self._remember(one[1], labels)

    def _load(self, one: _Key) -> Tensor | None:
        if one[0] == "g":
            return self._given_labels(one[1])
        if (stored := self._stored.get(_name(one))) is None:
            return None
        values = np.frombuffer(zlib.decompress(stored), np.uint8).reshape(len(self.ids), *self._grid.size_hw)
        return torch.from_numpy(values.astype(np.float32)) / _ONE

    def _remember(self, index: int, labels: Tensor) -> None:
        """Note which objects are in a frame."""
        for number, strongest in zip(self.ids, labels.flatten(1).amax(1).tolist(), strict=True):
            if strongest >= SEEN:
                self._seen[number] = index

    def _advance(self) -> None:
        self._steps += 1
        self._progress(self._steps, self._total)


def given_masks(masks: Mapping[int, LabelArray | Masks]) -> dict[int, dict[int, BoolArray]]:
    """Return object id -> mask for each frame; a label image says that the objects that it lacks are not there.

    Raises:
        DataError: a mask is not (H, W) bool, or a label image not (H, W) whole numbers from 0.
    """
    for key, given in masks.items():
        for one in [given] if isinstance(given, np.ndarray) else given.values():
            kinds = "iu" if isinstance(given, np.ndarray) else "b"
            if one.ndim != 2 or one.dtype.kind not in kinds or (one.size and one.min() < 0):
                raise DataError(
                    f"frame {key}: masks are (H, W) whole numbers from 0, the id of the object of each pixel, or "
                    f"{{id: (H, W) bool}}; got {one.dtype} of shape {one.shape}, from {one.min() if one.size else 0}"
                )
    ids = {
        number
        for given in masks.values()
        for number in (np.unique(given).tolist() if isinstance(given, np.ndarray) else given)
    }
    return {
        key: {one: given == one for one in sorted(ids - {0})} if isinstance(given, np.ndarray) else dict(given)
        for key, given in masks.items()
    }


def iou(one: BoolArray, other: BoolArray) -> float:
    """Return the intersection over union of two (H, W) masks, not both empty."""
    return float((one & other).sum() / (one | other).sum())


def _name(one: _Key) -> str:
    return f"{one[0]}{one[1]}"

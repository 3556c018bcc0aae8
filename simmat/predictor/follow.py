"""Follow objects through a sequence of frames, or the slices of a stack, from the masks of a few of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.clicks import center_click, tight_box
from simmat.errors import DataError
from simmat.nn.propagation import matching_features, propagate
from simmat.nn.resize import resize_planes, restore_logits
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.encoder import ImageEncoder
from simmat.predictor.reading import LoadedImage
from simmat.types import BoolArray, Frame, Prompt, SensorImage

RECENT = 3
"""Frames before the present one whose labels are propagated, besides those with given masks."""
REACH = 1 / 10
"""Farthest that an object is looked for from its place in another frame, as a share of the input's side."""
TRUST = 0.9
"""IoU with a given mask from which the decoder is asked for an object: it answers what is meant, and not a part."""
AGREEMENT = 0.5
"""Least IoU of the decoder's mask with the propagated one."""
_MASK_LOGIT = 8.0
"""Logit of a certain pixel in a mask prompt."""

Masks = Mapping[int, BoolArray]


@dataclass(frozen=True)
class FollowedFrame:
    """The objects of a frame.

    Attributes:
        index: number of the frame.
        masks: object id -> (H, W) bool; False everywhere where the object is not found.
        scores: object id -> 0 to 1, how surely its mask is the same object: the mean propagated label inside of it.
    """

    index: int
    masks: dict[int, BoolArray]
    scores: dict[int, float]


def follow(
    encoder: ImageEncoder,
    frames: Sequence[Any],
    masks: Mapping[int, Masks],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[FollowedFrame]:
    """Find the objects of some frames in all others, and yield frame by frame: forward first, then backward.

    Labels are propagated by the similarity of the network's features to those of the frames with given masks and of
    the last few frames. Where the decoder gives the given mask of an object when asked, it refines the propagated one.
    Between two frames with given masks both ways are averaged. Nothing is trained, and memory does not grow with the
    number of frames, but for the labels of the gap between two frames with masks.

    Args:
        encoder: a predictor.
        frames: T frames, each as `Predictor.set_image` takes it, such as a `simmat.Sequence`.
        masks: frame number -> object id -> (H, W) bool mask. A frame has all objects that are visible in it.
        progress: called with the number of frames done and to do.

    Raises:
        DataError: there is no mask, a frame number is unknown, or a mask is empty or not of the frame's size.
    """
    keys = sorted(masks)
    _check(frames, masks)
    follower = _Follower(encoder, frames, masks)
    total = len(frames)
    plan: list[tuple[int, ...]] = [(key, following) for key, following in zip(keys, [*keys[1:], total], strict=True)]
    for done, found in enumerate(follower.all(plan, keys[0]), start=1):
        if progress is not None:
            progress(done, total)
        yield found


def _check(frames: Sequence[Any], masks: Mapping[int, Masks]) -> None:
    if not any(masks.values()):
        raise DataError("there is no object to follow; give the masks of at least one frame")
    if unknown := [key for key in masks if not 0 <= key < len(frames)]:
        raise DataError(
            f"masks are given for frame {unknown[0]}, but the {len(frames)} frames are 0 to {len(frames) - 1}"
        )
    for key, of_frame in masks.items():
        for number, mask in of_frame.items():
            if mask.dtype != np.bool_ or mask.ndim != 2:
                raise DataError(f"frame {key}, object {number}: a mask is (H, W) bool, got {mask.dtype} {mask.shape}")
            if not mask.any():
                raise DataError(f"frame {key}, object {number}: the mask is empty; leave the object out of this frame")


@dataclass(frozen=True)
class _Seen:
    """A frame with its labels.

    Attributes:
        features: (D, h, w), see `matching_features`.
        labels: (1 + K, h, w): background, then the objects.
    """

    features: Tensor
    labels: Tensor


class _Follower:
    """The network, the objects and the frames with given masks."""

    def __init__(self, encoder: ImageEncoder, frames: Sequence[Any], masks: Mapping[int, Masks]) -> None:
        self.encoder, self.frames, self.masks = encoder, frames, masks
        self.ids = sorted({number for of_frame in masks.values() for number in of_frame})
        self.first: LoadedImage | None = None
        self.mask_hw: tuple[int, ...] | None = None
        self.trusted: dict[int, int] = {}
        """Object id -> output of the decoder that gave its mask."""
        self.given: dict[int, _Seen] = {}
        for key in sorted(masks):
            image, encoded = self.encoded(key)
            if wrong := [one.shape for one in masks[key].values() if one.shape != image.size_hw]:
                raise DataError(
                    f"frame {key} is {image.size_hw} pixels, but a mask of it {wrong[0]}; give its own masks"
                )
            own = np.stack([masks[key].get(number, np.zeros(image.size_hw, np.bool_)) for number in self.ids])
            features = matching_features(encoded.embedding)
            labels = with_background(labels_of(own, encoded.prepared.frame, features.shape[-2:]))
            self.given[key] = _Seen(features, labels)
            for place, number in enumerate(self.ids):
                if number not in self.trusted and own[place].any():
                    answers = self.decode(encoded, own[place], labels[1 + place])
                    ious = [iou(answer, own[place]) for answer in answers]
                    if max(ious) >= TRUST:
                        self.trusted[number] = int(np.argmax(ious))

    def encoded(self, index: int) -> tuple[SensorImage, EncodedImage]:
        """Load and encode a frame, normalized as the first one that was loaded."""
        image = self.encoder.inputs.load(self.frames[index], ())
        self.first = self.first or LoadedImage(image)
        return image, self.encoder.encode(image, self.first)

    def all(self, plan: Sequence[tuple[int, ...]], first: int) -> Iterator[FollowedFrame]:
        """Yield every frame."""
        for key, following in plan:
            yield self.as_given(key)
            last = key + len(range(key, following)) - 1
            behind = self.backward(key, following) if following in self.given else {}
            seen = self.given[key]
            recent = deque([seen], maxlen=RECENT)
            for index in range(key + 1, last + 1):
                other = None
                if behind:
                    share = (index - key) / (following - key)
                    other = (behind.pop(index), share)
                found, now = self.step(index, recent, other)
                recent.append(now)
                yield found
        recent = deque([self.given[first]], maxlen=RECENT)
        for index in range(first - 1, -1, -1):
            found, now = self.step(index, recent)
            recent.append(now)
            yield found

    def as_given(self, key: int) -> FollowedFrame:
        """Return a frame whose masks are given."""
        size_hw = next(iter(self.masks[key].values())).shape if self.masks[key] else self.encoded(key)[0].size_hw
        masks = {number: self.masks[key].get(number, np.zeros(size_hw, np.bool_)) for number in self.ids}
        return FollowedFrame(key, masks, dict.fromkeys(self.ids, 1.0))

    def backward(self, key: int, following: int) -> dict[int, Tensor]:
        """Return the labels of the frames between two with given masks, propagated from the later one, in 16 bits."""
        recent, found = deque([self.given[following]], maxlen=RECENT), {}
        for index in range(following - 1, key, -1):
            _, now = self.step(index, recent)
            recent.append(now)
            found[index] = now.labels.half()
        return found

    def step(
        self, index: int, recent: Sequence[_Seen], other: tuple[Tensor, float] | None = None
    ) -> tuple[FollowedFrame, _Seen]:
        """Find the objects in a frame.

        Args:
            recent: the frames before it.
            other: labels of this frame from the other side, and their share.
        """
        _, encoded = self.encoded(index)
        features, frame = matching_features(encoded.embedding), encoded.prepared.frame
        known = [*(one for one in self.given.values() if all(one is not near for near in recent)), *recent]
        radius = max(round(REACH * features.shape[-1]), 1)
        labels = propagate(features, [one.features for one in known], [one.labels for one in known], radius)
        if other is not None:
            labels = (1 - other[1]) * labels + other[1] * other[0].float()
        chosen = restore_logits(labels[None], frame)[0].argmax(0).cpu().numpy()  # (H, W)
        masks, scores = dict[int, BoolArray](), dict[int, float]()
        for place, number in enumerate(self.ids, start=1):
            mask: BoolArray = chosen == place
            if mask.any() and number in self.trusted:
                answer = self.decode(encoded, mask, labels[place])[self.trusted[number]]
                if iou(answer, mask) >= AGREEMENT:
                    mask = answer
                    own = labels_of(mask[None], frame, features.shape[-2:])[0]
                    labels[place] = (labels[place] + own.to(labels)) / 2
            masks[number] = mask
            inside = labels_of(mask[None], frame, features.shape[-2:])[0].to(labels)
            scores[number] = float((inside * labels[place]).sum() / inside.sum().clamp(min=1e-6)) if mask.any() else 0.0
        return FollowedFrame(index, masks, scores), _Seen(features, with_background(labels[1:]))

    def decode(self, encoded: EncodedImage, mask: BoolArray, label: Tensor) -> list[BoolArray]:
        """Return the decoder's masks of an object: those for a click with a mask, then those for a box with a mask.

        Args:
            mask: (H, W) bool, where it may be, not empty.
            label: (h, w), how likely it is where.
        """
        none, on = np.zeros((0, 2), np.float32), np.ones(1, np.int64)
        prompts = [
            Prompt(np.array([center_click(mask)], np.float32), on),
            Prompt(none, on[:0], tight_box(mask)),
        ]
        if self.mask_hw is None:
            self.mask_hw = tuple(encoded.decode(prompts[:1]).logits.shape[-2:])
        logits = F.interpolate(label[None, None].float(), self.mask_hw, mode="bilinear", align_corners=False)
        given = (2 * logits - 1) * _MASK_LOGIT
        answers = [encoded.decode([prompt], mask_input=given).logits.float() for prompt in prompts]
        found = restore_logits(torch.cat(answers, dim=1), encoded.prepared.frame)[0] > 0  # (2·M, H, W)
        return list(found.cpu().numpy())


def labels_of(masks: BoolArray, frame: Frame, grid_hw: Sequence[int]) -> Tensor:
    """Return (K, h, w): the share of each position of the grid that (K, H, W) masks cover."""
    planes = torch.from_numpy(masks.astype(np.float32))
    covered = resize_planes(planes, torch.ones(planes.shape, dtype=torch.bool), frame)  # (K, S, S)
    height, width = grid_hw
    return F.adaptive_avg_pool2d(covered[None], (height, width))[0]


def with_background(labels: Tensor) -> Tensor:
    """Return (1 + K, h, w): what is left of 1, then the objects (K, h, w)."""
    return torch.cat([(1 - labels.sum(0, keepdim=True)).clamp(min=0), labels])


def iou(one: BoolArray, other: BoolArray) -> float:
    """Return the intersection over union of two (H, W) masks, not both empty."""
    return float((one & other).sum() / (one | other).sum())

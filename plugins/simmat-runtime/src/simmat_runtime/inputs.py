"""What a user gives, checked: an image in the sensor's units, and a prompt in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat_runtime.letterbox import BoolArray, FloatArray, IntArray, Letterbox
from simmat_runtime.manifest import Channel
from simmat_runtime.objects import Window
from simmat_runtime.windows import mask_in


def checked_planes(image: npt.NDArray[Any], channels: Sequence[Channel]) -> FloatArray:
    """Return an image as (C, H, W) float32; ValueError for another shape or kind of values."""
    wanted = f"({len(channels)}, H, W) of " + ", ".join(
        f"{one.name} [{one.unit}]" for one in channels
    )
    planes = np.asarray(image)
    if planes.dtype.kind not in "buif":
        raise ValueError(
            f"the image must be an array of numbers, {wanted}; got dtype {planes.dtype}"
        )
    if planes.ndim == 2 and len(channels) == 1:
        planes = planes[None]  # (1, H, W)
    if planes.ndim != 3 or len(planes) != len(channels) or 0 in planes.shape:
        raise ValueError(
            f"the image must be an array {wanted}; got shape {planes.shape}"
        )
    # values beyond float32 become infinite and therefore invalid
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(planes, np.float32)


def measured_pixels(planes: FloatArray, channels: Sequence[Channel]) -> BoolArray:
    """Return (H, W) bool, True where a channel is valid; ValueError if there is no such pixel."""
    measured = np.zeros(planes.shape[1:], np.bool_)
    for plane, channel in zip(planes, channels, strict=True):
        low, high = channel.valid_range or (-np.inf, np.inf)
        measured |= np.isfinite(plane) & (plane >= low) & (plane <= high)
    if measured.any():
        return measured
    ranges = ", ".join(
        f"{one.name}, {one.valid_range[0]:g} to {one.valid_range[1]:g} {one.unit}"
        for one in channels
        if one.valid_range is not None
    )
    raise ValueError(
        "no pixel has a valid measurement" + (f"; valid are {ranges}" if ranges else "")
    )


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        coords: (N, 2) xy in pixels of the image.
        labels: (N,) 1 on the object, 0 beside it.
        box: (4,) XYXY, outer edges of the object; None without a box.
        mask: (h, w) logits of an earlier mask; None without one.
        mask_window: the part of the image that they cover; None if it is not known.
    """

    coords: FloatArray
    labels: IntArray
    box: FloatArray | None
    mask: FloatArray | None
    mask_window: Window | None = None

    @classmethod
    def of(
        cls,
        points: Sequence[tuple[float, float]],
        labels: Sequence[int] | None,
        box: Sequence[float] | None,
        mask: FloatArray | None,
        mask_window: Window | None = None,
    ) -> Prompt:
        """Return the prompt of the arguments of `Model.predict`; ValueError for another number of numbers."""
        coords = (
            np.asarray(points, np.float32)
            if len(points)
            else np.zeros((0, 2), np.float32)
        )
        if coords.ndim != 2 or coords.shape[1] != 2:
            raise ValueError(f"points must be a list of (x, y), got {points}")
        corners = None if box is None else np.asarray(box, np.float32)
        if corners is not None and corners.shape != (4,):
            raise ValueError(f"box must be x0, y0, x1, y1, got {box}")
        return cls(
            coords,
            np.ones(len(coords), np.int64)
            if labels is None
            else np.asarray(labels, np.int64).reshape(-1),
            corners,
            None if mask is None else np.asarray(mask, np.float32),
            mask_window,
        )

    def check(self, size_hw: tuple[int, int], mask_size: tuple[int, int]) -> None:
        """Raise ValueError for an empty prompt, or one that does not fit an image or the decoder's masks."""
        height, width = size_hw
        coords, labels, box, mask = self.coords, self.labels, self.box, self.mask
        if not len(coords) and box is None and mask is None:
            raise ValueError("a prompt needs at least one point, a box or a mask")
        if labels.shape != (len(coords),) or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"labels must be 0 or 1, one for each of {len(coords)} points; got {labels.tolist()}"
            )
        if not ((coords >= 0) & (coords < (width, height))).all():
            raise ValueError(
                f"points {coords.tolist()} must be on the image, which is {width} wide and {height} high"
            )
        if box is not None and not (
            (box[:2] < box[2:]).all()
            and (box >= 0).all()
            and (box[2:] <= (width, height)).all()
        ):
            raise ValueError(
                f"box must be x0, y0, x1, y1 with x0 < x1 <= {width} and y0 < y1 <= {height}; got {box.tolist()}"
            )
        if mask is not None and mask.shape != mask_size:
            raise ValueError(
                f"mask must be {mask_size} logits, the low_res_logits of an earlier prediction; got shape {mask.shape}"
            )

    def extent(self) -> tuple[FloatArray, FloatArray]:
        """Return the smallest and the largest xy of what is on the object; ValueError if nothing is."""
        on = self.coords[self.labels == 1]
        every = on if self.box is None else np.concatenate([on, self.box.reshape(2, 2)])
        if not len(every):
            raise ValueError("no point is on the object; add one, or its box")
        return every.min(0), every.max(0)

    def in_window(
        self, window: Window, letterbox: Letterbox
    ) -> tuple[FloatArray, IntArray, FloatArray | None, FloatArray | None]:
        """Return a prompt of the image as `EncodedImage.decode` takes it, K = 1, without what is beside a window.

        Args:
            window: the part of the image.
            letterbox: position of that part in the network's input.
        """
        y0, x0, y1, x1 = window
        first = np.asarray([x0, y0], np.float32)
        kept = ((self.coords >= first) & (self.coords < (x1, y1))).all(1) | (
            self.labels == 1
        )
        mask = self.mask
        if mask is not None:
            mask = mask_in(mask, self.mask_window or window, window, letterbox)
        return (
            letterbox.points_to_input(self.coords[kept] - first)[None],
            self.labels[kept][None],
            None
            if self.box is None
            else letterbox.box_to_input(self.box - np.tile(first, 2))[None],
            None if mask is None else mask[None, None],
        )

"""Bring images, prompts and labels to the input of a network, and its masks back to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.instances import (
    Annotation,
    Instance,
    distance_inside,
    number_map,
    pixels_under_centres,
    region_from_mask,
)
from simmat.foundation import PromptBatch
from simmat.nn.dense_head import upsample_logits
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.normalize import normalize
from simmat.types import (
    Aspect,
    BoolArray,
    Channel,
    FloatArray,
    Letterbox,
    Prompt,
    SensorImage,
)

if TYPE_CHECKING:
    from scipy import sparse

LEAST_SHARE = 0.5 - 1e-5
"""Least valid share of the input under an output pixel: below 1/2, so that rounding does not decide exact halves."""

NO_TRUTH = -1
"""Class of a pixel without ground truth."""


class PreparedImage(NamedTuple):
    """An image ready for a network.

    Attributes:
        planes: (C, S, S) float32, normalized; invalid and padded pixels are exactly 0.
        content: (S, S) bool, False where there is only padding.
        letterbox: position of the original image in the input.
    """

    planes: Tensor
    content: Tensor
    letterbox: Letterbox


@dataclass(frozen=True)
class Pipeline:
    """Transform, normalize, resize and pad a loaded image.

    Attributes:
        adapter: the sensor.
        channels: C fitted channels (with mean and std).
        size: S, the side of the input in pixels.
        aspect: how an image is fitted into the square, see `Letterbox`.
    """

    adapter: ModalityAdapter
    channels: tuple[Channel, ...]
    size: int
    aspect: Aspect = "pad"

    def __call__(self, image: SensorImage) -> PreparedImage:
        """Prepare an image in physical units; raise SpecError if its channels are not those of the pipeline."""
        seen = self.adapter.transform(image)
        letterbox = Letterbox(seen.size_hw, self.size, self.aspect)
        planes = torch.from_numpy(normalize(seen, self.channels))
        return PreparedImage(
            resize_planes(planes, torch.from_numpy(seen.valid), letterbox),
            content_mask(letterbox),
            letterbox,
        )


def resize_planes(planes: Tensor, valid: Tensor, letterbox: Letterbox) -> Tensor:
    """Resize and pad the planes of an image to the input of a network.

    Antialiased bilinear over the valid pixels (normalized convolution, Knutsson and Westin 1993), so missing values
    affect no others. If the size does not change, the values keep their bits. Padding is on the right and at the
    bottom, as in segment-anything.

    Args:
        planes: (C, H, W) float on the CPU, 0 at invalid pixels, as `normalize` returns them.
        valid: (C, H, W) bool.
        letterbox: position of the image in the input.

    Returns:
        (C, S, S) float; exactly 0 in the padding and where less than half of the input under a pixel is valid.
    """
    complete = bool(valid.numpy().all())  # many times faster than torch.all
    if letterbox.scaled_hw != tuple(planes.shape[-2:]):
        scaled = _antialiased(planes, letterbox.scaled_hw)  # (C, h, w)
        if not complete:
            same = bool((valid == valid[:1]).all())
            share = _antialiased(
                (valid[:1] if same else valid).float(), letterbox.scaled_hw
            )
            scaled /= share.clamp(min=0.5)
            np.copyto(scaled.numpy(), 0, where=(share < LEAST_SHARE).numpy())
        planes = scaled
    height, width = letterbox.scaled_hw
    return F.pad(planes, (0, letterbox.size - width, 0, letterbox.size - height))


def content_mask(letterbox: Letterbox) -> Tensor:
    """Return (S, S) bool: True on the image, False on padding."""
    height, width = letterbox.scaled_hw
    mask = np.zeros((letterbox.size, letterbox.size), np.bool_)
    mask[:height, :width] = True
    return torch.from_numpy(mask)


def _antialiased(planes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (C, H, W) to (C, *size_hw).

    If the result is one pixel wide, torch (seen in 2.13) uses the weights of the first row for all rows. One pixel high
    is correct, so such planes are transposed.
    """
    if size_hw[1] == 1 and size_hw[0] > 1:
        # (C, 1, h) -> (C, h, 1)
        return _antialiased(planes.mT.contiguous(), (1, size_hw[0])).mT
    return F.interpolate(
        planes[None], size_hw, mode="bilinear", align_corners=False, antialias=True
    )[0]


def prompt_batch(
    prompts: Sequence[Prompt], letterbox: Letterbox, device: torch.device
) -> PromptBatch:
    """Convert K prompts of one image, all with as many points and the same fields, to pixels of the input."""
    # (K, N, 2)
    coords = np.stack(
        [letterbox.points_to_input(prompt.point_coords) for prompt in prompts]
    )
    labels = np.stack([prompt.point_labels for prompt in prompts])  # (K, N)
    boxes = None
    if prompts[0].box is not None:
        corners = np.stack([prompt.box for prompt in prompts if prompt.box is not None])
        boxes = torch.from_numpy(letterbox.boxes_to_input(corners)).to(device)
    masks = None
    if prompts[0].mask_input is not None:
        logits = np.stack(
            [p.mask_input for p in prompts if p.mask_input is not None],
            dtype=np.float32,
        )
        masks = torch.from_numpy(logits[:, None]).to(device)  # (K, 1, h, w)
    return PromptBatch(
        image_index=torch.zeros(len(prompts), dtype=torch.int64, device=device),
        point_coords=torch.from_numpy(coords).to(device),
        point_labels=torch.from_numpy(labels).to(device),
        boxes=boxes,
        mask_input=masks,
    )


def restore_logits(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """Resize mask logits to the original image, in the steps of `segment_anything.Sam.postprocess_masks`.

    Args:
        logits: (K, M, h, w) over the whole S×S input, with padding.
        letterbox: position of the image in the input.

    Returns:
        (K, M, H, W) logits of the original image.
    """
    height, width = letterbox.scaled_hw
    # (K, M, height, width)
    content = upsample_logits(logits, (letterbox.size, letterbox.size))[
        ..., :height, :width
    ]
    return upsample_logits(content, letterbox.original_hw)


def regions_from_logits(
    logits: Tensor, letterbox: Letterbox, size_hw: tuple[int, int] | None = None
) -> list[list[Instance | None]]:
    """Return where (K, M, h, w) logits of the S×S input are above 0: K times M regions, None if a mask is empty.

    They are those of `restore_logits`, up to rounding, in pixels of the original image; with `size_hw` those of
    `upsample_logits` on a grid of that height and width over the whole input. Only the pixels near logits above 0 are
    computed, so that thousands of small objects in a large image do not take minutes.
    """
    rows, columns = (
        _resize_weights(logits.shape[2 + axis], letterbox, size_hw, axis)
        for axis in (0, 1)
    )

    def region(mask: FloatArray) -> Instance | None:
        positive = mask > 0
        if not positive.any():
            return None
        y, low_y = _reached(rows, np.asarray(positive.any(axis=1)))
        x, low_x = _reached(columns, np.asarray(positive.any(axis=0)))
        values = rows[y, low_y] @ mask[low_y, low_x] @ columns[x, low_x].T
        return region_from_mask(values > 0, None, (y.start, x.start))

    return [[region(mask) for mask in masks] for masks in logits.detach().cpu().numpy()]


def _reached(weights: FloatArray, positive: BoolArray) -> tuple[slice, slice]:
    """Return the range of pixels in which (n,) positive logits have a weight, and of all logits in these pixels."""
    pixels = np.flatnonzero(weights[:, positive].any(axis=1))
    reached = _range_of(pixels)
    return reached, _range_of(np.flatnonzero(weights[reached].any(axis=0)))


def _range_of(indices: npt.NDArray[np.intp]) -> slice:
    """Return the slice from the first to the last index, of Python's integers; an empty one if there is none."""
    if indices.size:
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return slice(0, 0)


@lru_cache(maxsize=4)
def _resize_weights(
    low: int, letterbox: Letterbox, size_hw: tuple[int, int] | None, axis: int
) -> FloatArray:
    """Return (N, low): the weight of each logit along one axis in each of N pixels."""
    unit = torch.eye(low)[None, None]  # (1, 1, low, low)
    if size_hw is not None:
        whole = upsample_logits(unit, (size_hw[axis], low))
    else:
        whole = upsample_logits(unit, (letterbox.size, low))[
            :, :, : letterbox.scaled_hw[axis]
        ]
        whole = upsample_logits(whole, (letterbox.original_hw[axis], low))
    weights: FloatArray = whole[0, 0].numpy()
    return weights


def dense_targets(
    label: Annotation,
    letterbox: Letterbox,
    index_of: Mapping[int | None, int],
    background: int,
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Draw the objects of a label at the input; where objects overlap, the smaller one is in front.

    Args:
        label: of the original image; what is too small to be prompted for is drawn, too.
        index_of: class of an object -> its index in the class map; other classes have no truth.
        background: index of pixels outside of objects; `NO_TRUTH` if unmarked objects may be there.

    Returns:
        (S, S) index of the class, `NO_TRUTH` in the padding and where the label says nothing; and (S, S) distance to
        the border of the object as a part of the largest one in it, 0 outside of objects.
    """
    rows, columns = map(pixels_under_centres, label.size_hw, letterbox.scaled_hw)
    whole = (*label.regions, *label.small)
    every = [region.picked(rows, columns) for region in whole]
    seen = number_map(every, letterbox.scaled_hw, [region.area for region in whole])
    classes = np.full((letterbox.size, letterbox.size), background, np.int64)
    distance = np.zeros((letterbox.size, letterbox.size), np.float32)
    for number, region in enumerate(every, start=1):
        place = region.window.slices
        inside = seen[place] == number
        if inside.any():
            np.copyto(
                classes[place], index_of.get(region.class_id, NO_TRUTH), where=inside
            )
            far = distance_inside(inside)
            np.copyto(distance[place], far / far.max(), where=inside)
    classes[ignored_pixels(label, letterbox)] = NO_TRUTH
    return classes, distance


def ignored_pixels(label: Annotation, letterbox: Letterbox) -> BoolArray:
    """Return (S, S) True in the padding, and where the pixel of the original under a pixel's centre is ignored."""
    height, width = letterbox.scaled_hw
    ignore = np.ones((letterbox.size, letterbox.size), np.bool_)
    rows, columns = map(pixels_under_centres, label.size_hw, letterbox.scaled_hw)
    if label.ignore.any():
        ignore[:height, :width] = label.ignore.take(rows, axis=0).take(columns, axis=1)
    else:
        ignore[:height, :width] = False
    return ignore


def resized_region(region: Instance, letterbox: Letterbox) -> Instance:
    """Return the pixels of the input that a region of the original covers by more than half.

    How much it covers is what `resize_planes` makes of its mask. A region thinner than a pixel keeps
    its strongest pixels, so that every prompt has a target.
    """
    rows, columns = map(_antialias_weights, letterbox.original_hw, letterbox.scaled_hw)
    y0, x0, y1, x1 = region.window
    part = rows[:, y0:y1] @ region.crop.astype(np.float32)  # (h, x1 - x0)
    reached = np.flatnonzero(part.any(axis=1))
    top = int(reached[0])
    bottom = int(reached[-1]) + 1
    covered = (columns[:, x0:x1] @ part[top:bottom].T).T  # (bottom - top, w)
    resized = region_from_mask(
        covered > min(0.5, covered.max() * 0.999), region.class_id, (top, 0)
    )
    assert resized is not None
    return resized


@lru_cache(maxsize=8)
def _antialias_weights(full: int, scaled: int) -> sparse.csr_array:
    """Return (scaled, full): torch's antialiased bilinear weights of pixels of the original in those of the content."""
    from scipy import sparse  # slow to import, and a prediction needs none

    reach = max(full / scaled, 1.0)
    centres = (np.arange(scaled) + 0.5) * (full / scaled)
    # scipy would look at each int64
    first = np.maximum((centres - reach + 0.5).astype(np.int32), 0)
    # (scaled, taps)
    pixels = first[:, None] + np.arange(int(2 * reach) + 2, dtype=np.int32)
    weights = np.maximum(1 - np.abs(pixels + 0.5 - centres[:, None]) / reach, 0)
    weights[pixels >= full] = 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    ends = np.arange(0, weights.size + 1, weights.shape[1], dtype=np.int32)
    return sparse.csr_array(
        (weights.ravel(), np.minimum(pixels, full - 1).ravel(), ends),
        shape=(scaled, full),
    )

"""Choose the windows of a training, and divide images that are too few or too large to be held out as a whole.

A training on windows takes another window of an image in each step; validation and test take whole images. Of one or
two images, and of large ones, no split can have whole images. They are divided into blocks, each of one split, because
neighbouring pixels are alike: random windows of one image would put nearly the same pixels into training and test. A
block is 1 to 4 windows on a side. Val and test samples are then the windows of their blocks, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simmat.data.formats.coco import CocoLabels
from simmat.data.instances import check_equal_size
from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems, equal_problems
from simmat.io.images import image_size
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.types import SMALL_SIDE, Window

_MIN_BLOCKS = 20
"""Blocks of one image that give each split several, at 15 % for val and test; with fewer, blocks are made smaller."""
_MAX_CROPS = 4
"""Crops on a side of a block."""
_MIN_IMAGES = 3
"""Images that are not divided: each split gets at least one."""
MAX_WHOLE_PX = 2048**2
"""Pixels of an image that is not divided."""
_MIN_GAIN = 1.5
_SHARE = 0.25
"""Windows are taken if they enlarge this share of the objects so many times; see `choose_crop`."""


def divide_images(
    samples: Sequence[Sample],
    adapter: ModalityAdapter,
    crop: int,
    coco: CocoLabels | None,
) -> list[Sample]:
    """Divide images into blocks, in order and row by row; of several images only those that are large.

    Args:
        crop: side of a window in pixels.
        coco: the labels if a COCO file holds them.

    Raises:
        DataError: an image cannot be read, or has another size than its label; lists all that fail.
    """
    blocks: list[Sample] = []
    problems: list[str] = []
    drawn = _images_to_draw(samples)
    few = len(drawn) < _MIN_IMAGES
    for sample in samples:
        is_one_of_few = few and sample.paths[0] in drawn
        try:
            if not (is_one_of_few or _is_large(sample, adapter)):
                blocks.append(sample)
                continue
            size_hw = _checked_size(sample, adapter, coco)
        except DataError as error:
            problems.append(str(error))
            continue
        for window in plan_blocks(size_hw, crop):
            blocks.append(sample.within(window))
    if problems:
        raise DataError(
            all_problems("images that --crop cannot divide:", equal_problems(problems))
        )
    return blocks


def _images_to_draw(samples: Sequence[Sample]) -> set[str]:
    """Return the images, each by its reference file, of which splits are drawn; see `decide_splits`."""
    named = {sample.split for sample in samples if sample.split}
    if named and ("val" in named or "train" not in named):
        return set()
    drawn = set()
    for sample in samples:
        may_be_held_out = sample.split in ("", "train") and not sample.predicted
        if may_be_held_out and not sample.sequence:
            drawn.add(sample.paths[0])
    return drawn


def _is_large(sample: Sample, adapter: ModalityAdapter) -> bool:
    """Return whether an image has more than `MAX_WHOLE_PX`; one that is always decoded as a whole has not."""
    size_hw = adapter.window_size(sample.files)
    return size_hw is not None and math.prod(size_hw) > MAX_WHOLE_PX


def _checked_size(
    sample: Sample, adapter: ModalityAdapter, coco: CocoLabels | None
) -> tuple[int, int]:
    """Return the (H, W) of an image, which is that of its label."""
    size_hw = adapter.window_size(sample.files)
    if size_hw is None:
        size_hw = load_sample(adapter, sample.files).size_hw
    if coco is not None:
        label_hw = coco.sizes_hw[sample.id]
        check_equal_size(
            f"COCO annotations of {sample.id}", label_hw, sample.reference, size_hw
        )
    elif sample.mask is not None and not sample.has_polygons:
        label_hw = image_size(sample.mask, labels=True)
        check_equal_size(sample.mask, label_hw, sample.reference, size_hw)
    return size_hw


def choose_crop(
    object_sides: npt.NDArray[np.float64],
    image_sides: npt.NDArray[np.float64],
    input_side: int,
) -> tuple[int, str]:
    """Choose whether a training takes windows of its images, so that small objects are large enough in the input.

    An object is small if its side is less than `SMALL_SIDE` there when the whole image is scaled to it. Windows are
    taken if at least `_SHARE` of the objects are small, and windows enlarge these more than `_MIN_GAIN` times. Windows
    are as large as objects of the lower quartile allow, at most at full scale, and hold nearly every object twice in
    width.

    Args:
        object_sides: (N,) side of each object in pixels: the root of its area.
        image_sides: (N,) longer side of the image that the object is in.
        input_side: side of the network's input.

    Returns:
        The side of a window in pixels, 0 for whole images; and a sentence for the user with the reason.
    """
    if not len(object_sides):
        return 0, ""
    quarter = float(np.quantile(object_sides, 0.25))
    largest = float(np.quantile(object_sides, 0.95))
    side = max(quarter * input_side / SMALL_SIDE, input_side, 2 * largest)
    is_small = object_sides * input_side / image_sides < SMALL_SIDE
    enlarged = is_small & (image_sides > _MIN_GAIN * side)
    if np.mean(enlarged) < _SHARE:
        median = np.median(object_sides)
        image = np.median(image_sides)
        return 0, (
            f"Objects measure {median:.0f} px in the median, in images of {image:.0f} px: training takes whole images, "
            f"scaled to {input_side} px (--crop N takes windows)."
        )
    crop = round(side)
    scale = "at full scale"
    if crop > input_side:
        scale = f"scaled to {input_side} px"
    return crop, (
        f"A quarter of the objects measure {quarter:.0f} px or less, in images of up to {image_sides.max():.0f} px: "
        f"training takes windows of {crop} px {scale} (--crop 0 takes whole images)."
    )


def windows_to_draw(
    samples: Sequence[Sample], sizes_hw: Sequence[tuple[int, int]], crop: int
) -> tuple[Sample, ...]:
    """Return training samples with an image that is larger than a window several times: as often as it has blocks."""
    drawn: list[Sample] = []
    for sample, size_hw in zip(samples, sizes_hw, strict=True):
        count = 1
        if sample.window is None:
            count = len(plan_blocks(size_hw, crop))
        drawn += [sample] * count
    return tuple(drawn)


def divide_blocks(blocks: Iterable[Sample], crop: int) -> Iterator[Sample]:
    """Yield blocks of train as they are, and the windows of others."""
    for block in blocks:
        if block.split == "train" or block.window is None:
            yield block
        else:
            for window in crop_windows(block.window, crop):
                yield block.within(window)


def plan_blocks(size_hw: tuple[int, int], crop: int) -> list[Window]:
    """Divide an (H, W) image into blocks, row by row; each pixel is in one.

    Blocks start at multiples of the crop; the last ones take the rest. They are as large as possible with at least
    `_MIN_BLOCKS` of them, and at most about `_MAX_CROPS` crops on a side.
    """
    height, width = size_hw
    crops_down = max(height // crop, 1)  # whole ones
    crops_across = max(width // crop, 1)
    for side in range(_MAX_CROPS, 0, -1):
        rows = max(crops_down // side, 1)
        columns = max(crops_across // side, 1)
        if rows * columns >= _MIN_BLOCKS:
            break
    blocks = []
    for y0, y1 in pairwise(_edges(height, crops_down, rows, crop)):
        for x0, x1 in pairwise(_edges(width, crops_across, columns, crop)):
            blocks.append(Window(y0, x0, y1, x1))
    return blocks


def _edges(length: int, crops: int, blocks: int, crop: int) -> list[int]:
    """Return where the blocks along one side begin, and where the last one ends."""
    starts = [index * crops // blocks * crop for index in range(blocks)]
    return [*starts, length]


def crop_windows(block: Window, crop: int) -> list[Window]:
    """Return the windows of crop x crop pixels in a block, side by side; a block smaller than a crop is one window.

    What is left over belongs to no window, so no pixel is scored twice.
    """
    height = min(block.size_hw[0], crop)
    width = min(block.size_hw[1], crop)
    windows = []
    for y in range(block.y0, block.y1 - height + 1, height):
        for x in range(block.x0, block.x1 - width + 1, width):
            windows.append(Window(y, x, y + height, x + width))
    return windows

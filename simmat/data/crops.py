"""Divide large images into blocks, each of one split, and blocks into windows of the size of a crop.

Neighbouring pixels are alike, so random windows of one image would put nearly the same pixels into training and test. A
block is 1 to 4 crops on a side. Each step of training takes another crop of a train block; val and test samples are the
windows of their blocks, side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from simmat.data.formats.coco import CocoLabels
from simmat.data.instances import check_equal_size
from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems, equal_problems
from simmat.io.images import image_size
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.types import Window

_MIN_BLOCKS = 20
"""Blocks of one image that give each split several, at 15 % for val and test; with fewer, blocks are made smaller."""
_MAX_CROPS = 4
"""Crops on a side of a block."""


def divide_images(
    samples: Sequence[Sample],
    adapter: ModalityAdapter,
    crop: int,
    coco: CocoLabels | None,
) -> list[Sample]:
    """Return the blocks of some images, in order and row by row.

    Args:
        crop: side of a window in pixels.
        coco: the labels if a COCO file holds them.

    Raises:
        DataError: an image cannot be read, or has another size than its label; lists all that fail.
    """
    blocks: list[Sample] = []
    problems: list[str] = []
    for sample in samples:
        try:
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

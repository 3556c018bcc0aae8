"""Divide large images into blocks, each of one split, and blocks into windows of the size of a crop.

Neighbouring pixels are alike, so random windows of one image would put nearly the same pixels into training and test. A
block is 1 to 4 crops on a side. Each step of training takes another crop of a train block; val and test samples are the
windows of their blocks, side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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
    samples: Sequence[Sample], adapter: ModalityAdapter, crop: int, coco: CocoLabels | None
) -> list[Sample]:
    """Return the blocks of some images, in order and row by row.

    Args:
        crop: side of a window in pixels.
        coco: the labels if a COCO file holds them.

    Raises:
        DataError: an image cannot be read, or has another size than its label; lists all that fail.
    """
    found: list[Sample] = []
    problems: list[str] = []
    for sample in samples:
        try:
            size_hw = adapter.window_size(sample.files) or load_sample(adapter, sample.files).size_hw
            if coco is not None:
                label_hw = coco.images[sample.id].size_hw
                check_equal_size(f"COCO annotations of {sample.id}", label_hw, sample.reference, size_hw)
            elif sample.mask is not None and not sample.has_polygons:
                check_equal_size(sample.mask, image_size(sample.mask, labels=True), sample.reference, size_hw)
            found += [sample.within(window) for window in plan_blocks(size_hw, crop)]
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(all_problems("images that --crop cannot divide:", equal_problems(problems)))
    return found


def divide_blocks(blocks: Iterable[Sample], crop: int) -> Iterator[Sample]:
    """Yield blocks of train as they are, and the windows of others."""
    for block in blocks:
        if block.split == "train" or block.window is None:
            yield block
        else:
            yield from (block.within(window) for window in crop_windows(block.window, crop))


def plan_blocks(size_hw: tuple[int, int], crop: int) -> list[Window]:
    """Divide an (H, W) image into blocks, row by row; each pixel is in one.

    Blocks start at multiples of the crop; the last ones take the rest. They are as large as possible with at least
    `_MIN_BLOCKS` of them, and at most about `_MAX_CROPS` crops on a side.
    """
    counts = [max(length // crop, 1) for length in size_hw]  # whole crops along each side
    for side in range(_MAX_CROPS, 0, -1):
        rows, columns = (max(count // side, 1) for count in counts)
        if rows * columns >= _MIN_BLOCKS:
            break
    edges = []
    for length, count, blocks in zip(size_hw, counts, (rows, columns), strict=True):
        edges.append([*(index * count // blocks * crop for index in range(blocks)), length])
    return [
        Window(y0, x0, y1, x1)
        for y0, y1 in zip(edges[0], edges[0][1:], strict=False)
        for x0, x1 in zip(edges[1], edges[1][1:], strict=False)
    ]


def crop_windows(block: Window, crop: int) -> list[Window]:
    """Return the windows of crop x crop pixels in a block, side by side; a block smaller than a crop is one window.

    What is left over belongs to no window, so no pixel is scored twice.
    """
    height, width = (min(length, crop) for length in block.size_hw)
    return [
        Window(y, x, y + height, x + width)
        for y in range(block.y0, block.y1 - height + 1, height)
        for x in range(block.x0, block.x1 - width + 1, width)
    ]

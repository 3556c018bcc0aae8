"""The grid on which frames of a sequence are compared: cells of the network's features, in one window or in many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.instances import Instance, tight_box
from simmat.types import BoolArray, SensorImage, Window
from simmat_plugin_sequences.labels import Labels, ObjectLabel

IntArray = npt.NDArray[np.int64]

HALO = 8
"""A window answers for its cells without 1/8 of its side along each border, where another window overlaps it."""
FILL = 0.65
"""Share of a window's side that the object fills around which the window is cut for the decoder."""
FINER = 0.75
"""Largest such window, as a share of the side of the grid's windows."""


@dataclass(frozen=True)
class GridWindow:
    """A window of the frame.

    Attributes:
        pixels: of the frame, and beyond its right and bottom border.
        cells: of the grid.
        core: the cells that no other window answers for.
    """

    pixels: Window
    cells: Window
    core: Window

    @property
    def core_in_window(self) -> Window:
        """The core, counted from the window's first cell."""
        y0 = self.cells.y0
        x0 = self.cells.x0
        core = self.core
        return Window(core.y0 - y0, core.x0 - x0, core.y1 - y0, core.x1 - x0)


class FrameGrid:
    """The cells of all frames of a sequence.

    Attributes:
        frame_hw: (H, W) pixels of every frame.
        side: cells along each side of a window.
        windows: they cover the frame; one where it fits.
        size_hw: (h, w) cells of the grid.
    """

    def __init__(
        self, frame_hw: tuple[int, int], tile: int, side: int, *, padded: bool
    ) -> None:
        """Cover a frame with windows.

        Args:
            frame_hw: (H, W) pixels.
            tile: side of a window in pixels; a window that is not the whole frame has whole pixels in each cell, so it
                may be a little larger.
            side: cells along each side of a window.
            padded: whether the network pads a window to a square, or stretches it.
        """
        self.frame_hw = frame_hw
        self.side = side
        self._is_one = tile >= max(frame_hw)
        if self._is_one:
            whole = Window(0, 0, side, side)
            self.windows = [GridWindow(Window(0, 0, *frame_hw), whole, whole)]
            self.size_hw = side, side
            longest = max(frame_hw)
            self._padded_hw = (longest, longest) if padded else frame_hw
            return
        cell = max(math.ceil(tile / side), 1)
        halo = side // HALO
        step = side - 2 * halo
        rows = _count(frame_hw[0], side * cell, step * cell)
        columns = _count(frame_hw[1], side * cell, step * cell)
        self.size_hw = side + (rows - 1) * step, side + (columns - 1) * step
        self._padded_hw = self.size_hw[0] * cell, self.size_hw[1] * cell
        self.windows = []
        for row in range(rows):
            top, bottom = _core(row, rows, side, halo)
            for column in range(columns):
                left, right = _core(column, columns, side, halo)
                y = row * step
                x = column * step
                cells = Window(y, x, y + side, x + side)
                core = Window(y + top, x + left, y + bottom, x + right)
                pixels = Window(
                    cells.y0 * cell, cells.x0 * cell, cells.y1 * cell, cells.x1 * cell
                )
                self.windows.append(GridWindow(pixels, cells, core))

    def cut(self, image: SensorImage, pixels: Window) -> SensorImage:
        """Return the part of a frame in a window; beyond its right and bottom border nothing is measured."""
        height, width = self.frame_hw
        if pixels == (0, 0, height, width):
            return image
        part = image.cut(
            Window(pixels.y0, pixels.x0, min(pixels.y1, height), min(pixels.x1, width))
        )
        below = max(pixels.y1 - height, 0)
        right = max(pixels.x1 - width, 0)
        padding = (0, 0), (0, below), (0, right)
        return replace(
            part,
            data=np.pad(part.data, padding),
            valid=np.pad(part.valid, padding),
            georeference=None,
        )

    def holding(
        self, regions: Sequence[Instance], windows: Sequence[GridWindow]
    ) -> list[GridWindow | None]:
        """Return the window that holds the whole of each region, farthest from its borders; None if none does."""
        if not regions or not windows:
            return [None] * len(regions)
        inner = np.array([region.window for region in regions])[:, None]  # (K, 1, 4)
        outer = np.array([window.pixels for window in windows])  # (n, 4)
        above_and_left = inner[..., :2] - outer[:, :2]
        below_and_right = outer[:, 2:] - inner[..., 2:]
        margin = np.minimum(above_and_left, below_and_right).min(-1)  # (K, n)
        found: list[GridWindow | None] = []
        for best, of_region in zip(margin.argmax(1).tolist(), margin, strict=True):
            if of_region[best] < 0:
                found.append(None)
            else:
                found.append(windows[best])
        return found

    def around(self, region: Instance) -> Window | None:
        """Return the square window of which a region fills `FILL`, in the frame where it fits.

        None if it is not much smaller than the grid's windows: it would show no finer borders.
        """
        box = tight_box(region)
        side = math.ceil(float((box[2:] - box[:2]).max()) / FILL)
        if side > FINER * max(self.windows[0].pixels.size_hw):
            return None
        center_x, center_y = ((box[:2] + box[2:]) / 2).tolist()
        height, width = self.frame_hw
        x0 = _start(center_x, side, width)
        y0 = _start(center_y, side, height)
        return Window(y0, x0, y0 + side, x0 + side)

    def sampled(
        self, label: ObjectLabel, window: Window, size_hw: tuple[int, ...]
    ) -> Tensor:
        """Return a label (height, width), linear between its cells, at the places of a raster in a window."""
        covered_hw = window.size_hw
        if covered_hw == self.frame_hw:
            covered_hw = self._padded_hw
        y = _places(window.y0, covered_hw[0], size_hw[0], self._padded_hw[0])
        x = _places(window.x0, covered_hw[1], size_hw[1], self._padded_hw[1])
        # (h, w, 2)
        places = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
        # numpy's zeros take no time, and no memory but for the cells that are read
        cells = np.zeros(self.size_hw, np.float32)
        cells[label.cells.slices] = label.values
        return F.grid_sample(
            torch.from_numpy(cells)[None, None],
            places[None],
            padding_mode="border",
            align_corners=False,
        )[0, 0]

    def label(self, region: Instance) -> ObjectLabel:
        """Return the share of each cell that a region covers."""
        y0, x0, y1, x1 = region.window
        top, rows = self._cells_between(y0, y1, 0)
        left, columns = self._cells_between(x0, x1, 1)
        # (height + 1, width + 1): pixels of the region above and to the left
        before = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.int64)
        before[1:, 1:] = region.crop.cumsum(0).cumsum(1)
        until = before[np.clip(rows - y0, 0, y1 - y0)]  # (2, h, width + 1)
        of_rows = until[1] - until[0]
        until = of_rows[:, np.clip(columns - x0, 0, x1 - x0)]  # (h, 2, w)
        covered = until[:, 1] - until[:, 0]
        heights = (rows[1] - rows[0]).astype(np.float32)
        widths = (columns[1] - columns[0]).astype(np.float32)
        values = covered.astype(np.float32) / heights[:, None] / widths
        height, width = values.shape
        return ObjectLabel(Window(top, left, top + height, left + width), values)

    def _cells_between(self, start: int, end: int, axis: int) -> tuple[int, IntArray]:
        """Return the first cell with pixels between two on an axis, and (2, n): the first and last + 1 of each cell.

        Cells share a pixel where the border between them is in it, as those of `adaptive_avg_pool2d`.
        """
        length = self._padded_hw[axis]
        count = self.size_hw[axis]
        first = start * count // length
        cells = np.arange(first, -(-end * count // length))
        return first, np.stack(
            [cells * length // count, -(-(cells + 1) * length // count)]
        )

    def near(self, covered: BoolArray, reach: int) -> list[GridWindow]:
        """Return the windows whose core has cells at most `reach` from one of those (h, w) that labels cover."""
        labelled = torch.from_numpy(covered.astype(np.float32))[None]
        near = F.max_pool2d(labelled, 2 * reach + 1, 1, reach)[0]
        return [window for window in self.windows if near[window.core.slices].any()]

    def strongest(self, labels: Labels, windows: Sequence[GridWindow]) -> IntArray:
        """Return (H, W): the id of the object whose label is the strongest, in the cores of windows.

        It is 0 where the background is, the rest of each cell.
        """
        found = np.zeros(self.frame_hw, np.int64)
        for window in windows:
            numbers = labels.touching(window.cells)
            if not numbers:
                continue
            known = torch.from_numpy(labels.within(numbers, window.cells))
            background = 1 - known.sum(0, keepdim=True)
            all_labels = torch.cat([background, known])  # (1 + K, h, w)
            size_hw = self._padded_hw if self._is_one else window.pixels.size_hw
            full = F.interpolate(
                all_labels[None], size_hw, mode="bilinear", align_corners=False
            )[0]
            place = self.pixels(window.core)
            height, width = place.size_hw
            inner = self.pixels(window.core_in_window)
            part = full[:, inner.y0 : inner.y0 + height, inner.x0 : inner.x0 + width]
            best = part.numpy().argmax(0)  # takes a tenth of the time of torch's
            found[place.slices] = np.array([0, *numbers])[best]
        return found

    def pixels(self, cells: Window) -> Window:
        """Return the pixels of the frame in cells."""
        height, width = self.frame_hw
        if self._is_one:
            return Window(0, 0, height, width)
        cell = self._padded_hw[0] // self.size_hw[0]
        return Window(
            cells.y0 * cell,
            cells.x0 * cell,
            min(cells.y1 * cell, height),
            min(cells.x1 * cell, width),
        )


def _count(length: int, side: int, step: int) -> int:
    """Return how many windows of a side, a step apart, cover a length; all in pixels."""
    return 1 + max(math.ceil((length - side) / step), 0)


def _core(number: int, count: int, side: int, halo: int) -> tuple[int, int]:
    """Return from and up to which of its cells a window answers, the first and last one up to the frame's border."""
    start = halo if number > 0 else 0
    end = side - halo if number < count - 1 else side
    return start, end


def _start(center: float, side: int, length: int) -> int:
    """Return where a window of a side starts around a center, inside of a length where it fits."""
    start = round(center - side / 2)
    return min(max(start, 0), max(length - side, 0))


def _places(start: int, covered: int, count: int, whole: int) -> Tensor:
    """Return the centers of `count` parts of `covered` pixels from `start` on, as -1 to 1 of the whole length."""
    centers = start + (torch.arange(count) + 0.5) * covered / count
    return 2 * centers / whole - 1

"""The grid on which frames of a sequence are compared: cells of the network's features, in one window or in many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.clicks import tight_box
from simmat.types import BoolArray, SensorImage, Window

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
        (y, x), core = self.cells[:2], self.core
        return Window(core.y0 - y, core.x0 - x, core.y1 - y, core.x1 - x)


class FrameGrid:
    """The cells of all frames of a sequence.

    Attributes:
        windows: they cover the frame; one where it fits.
        size_hw: (h, w) cells of the grid.
    """

    def __init__(self, frame_hw: tuple[int, int], tile: int, side: int, *, padded: bool) -> None:
        """Cover a frame with windows.

        Args:
            frame_hw: (H, W) pixels.
            tile: side of a window in pixels; a window that is not the whole frame has whole pixels in each cell, so it
                may be a little larger.
            side: cells along each side of a window.
            padded: whether the network pads a window to a square, or squashes it.
        """
        self.frame_hw, self._side = frame_hw, side
        self._one = tile >= max(frame_hw)
        cell = max(math.ceil(tile / side), 1)
        halo = side // HALO
        step = side - 2 * halo
        counts = [1 if self._one else 1 + max(math.ceil((n - side * cell) / (step * cell)), 0) for n in frame_hw]
        rows, columns = counts
        self.size_hw = side + (rows - 1) * step, side + (columns - 1) * step
        whole = (max(frame_hw),) * 2 if padded else frame_hw
        self._padded_hw = whole if self._one else (self.size_hw[0] * cell, self.size_hw[1] * cell)
        self.windows: list[GridWindow] = []
        for y in range(0, rows * step, step):
            for x in range(0, columns * step, step):
                cells = Window(y, x, y + side, x + side)
                core = Window(
                    y + halo * (y > 0),
                    x + halo * (x > 0),
                    y + side - halo * (y < (rows - 1) * step),
                    x + side - halo * (x < (columns - 1) * step),
                )
                pixels = Window(0, 0, *frame_hw) if self._one else Window(*(value * cell for value in cells))
                self.windows.append(GridWindow(pixels, cells, core))

    def cut(self, image: SensorImage, pixels: Window) -> SensorImage:
        """Return the part of a frame in a window; beyond its right and bottom border nothing is measured."""
        (height, width), (bottom, right) = self.frame_hw, pixels[2:]
        if pixels == (0, 0, height, width):
            return image
        part = image.cut(Window(*pixels[:2], min(bottom, height), min(right, width)))
        around = ((0, 0), (0, max(bottom - height, 0)), (0, max(right - width, 0)))
        data, valid = np.pad(part.data, around), np.pad(part.valid, around)
        return replace(part, data=data, valid=valid, georeference=None)

    def holding(self, mask: BoolArray, windows: Sequence[GridWindow]) -> GridWindow | None:
        """Return the window that holds a whole (H, W) mask, farthest from its borders; None if none does."""
        x0, y0, x1, y1 = tight_box(mask).tolist()

        def margin(one: GridWindow) -> float:
            top, left, bottom, right = one.pixels
            return float(min(y0 - top, x0 - left, bottom - y1, right - x1))

        best = max(windows, key=margin, default=None)
        return best if best is not None and margin(best) >= 0 else None

    def around(self, mask: BoolArray) -> Window | None:
        """Return the square window of which an (H, W) mask fills `FILL`, in the frame where it fits.

        None if it is not much smaller than the grid's windows: it would show no finer borders.
        """
        box = tight_box(mask)
        side = math.ceil(float((box[2:] - box[:2]).max()) / FILL)
        if side > FINER * max(self.windows[0].pixels.size_hw):
            return None
        center = (box[:2] + box[2:]) / 2
        x0, y0 = (
            min(max(round(float(middle) - side / 2), 0), max(length - side, 0))
            for middle, length in zip(center, self.frame_hw[::-1], strict=True)
        )
        return Window(y0, x0, y0 + side, x0 + side)

    def sampled(self, label: Tensor, window: Window, size_hw: tuple[int, ...]) -> Tensor:
        """Return a label (h, w) of the grid, linear between its cells, at the places of a raster in a window."""
        covered_hw = self._padded_hw if window.size_hw == self.frame_hw else window.size_hw
        y, x = (
            2 * (start + (torch.arange(count) + 0.5) * covered / count) / whole - 1
            for start, covered, count, whole in zip(window[:2], covered_hw, size_hw, self._padded_hw, strict=True)
        )
        places = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
        return F.grid_sample(label[None, None], places[None], padding_mode="border", align_corners=False)[0, 0]

    def labels(self, mask: BoolArray) -> Tensor:
        """Return (h, w): the share of each cell that an (H, W) mask covers."""
        (height, width), (bottom, right) = self.frame_hw, self._padded_hw
        covered = F.pad(torch.from_numpy(mask.astype(np.float32)), (0, right - width, 0, bottom - height))
        return F.adaptive_avg_pool2d(covered[None], self.size_hw)[0]

    def near(self, labels: Tensor, reach: int) -> list[GridWindow]:
        """Return the windows whose core has cells at most `reach` from one with labels (K, h, w)."""
        where = F.max_pool2d((labels.amax(0, keepdim=True) > 0).float(), 2 * reach + 1, 1, reach)[0]
        return [one for one in self.windows if where[one.core.slices].any()]

    def strongest(self, labels: Tensor, windows: list[GridWindow]) -> Iterator[tuple[Window, npt.NDArray[np.int64]]]:
        """Yield the pixels of the core of each window, and there which label (K, h, w) is the strongest.

        It is 0 where the background is, the rest of each cell, and else the number of the label from 1.
        """
        for one in windows:
            known = labels[:, *one.cells.slices]
            known = torch.cat([1 - known.sum(0, keepdim=True), known])
            place, inner = self.pixels(one.core), self.pixels(one.core_in_window)
            size_hw = self._padded_hw if self._one else one.pixels.size_hw
            full = F.interpolate(known[None], size_hw, mode="bilinear", align_corners=False)[0]
            height, width = place.size_hw
            top, left = inner[:2]
            part = full[:, top : top + height, left : left + width]
            yield place, part.numpy().argmax(0)  # takes a tenth of the time of torch's

    def pixels(self, cells: Window) -> Window:
        """Return the pixels of the frame in cells."""
        if self._one:
            return Window(0, 0, *self.frame_hw)
        (height, width), cell = self.frame_hw, self._padded_hw[0] // self.size_hw[0]
        y0, x0, y1, x1 = (value * cell for value in cells)
        return Window(y0, x0, min(y1, height), min(x1, width))

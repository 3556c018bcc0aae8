"""The frames of a sequence as a network sees them: loaded one by one, encoded in windows where objects are small."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from simmat.data.instances import Instance, center_click, region_from_mask, tight_box
from simmat.data.pipeline import restore_logits
from simmat.errors import DataError
from simmat.foundation import MAX_PROMPTS
from simmat.predictor import (
    EncodedImage,
    NoValidPixelsError,
    Predictor,
    matching_features,
)
from simmat.types import BoolArray, Prompt, SensorImage, Window
from simmat_plugin_sequences.frame_grid import FrameGrid, GridWindow
from simmat_plugin_sequences.labels import ObjectLabel

CELLS = 10
"""Side of the smallest object in cells, at least, for which frames are cut into windows."""
LEVELS = 2
"""Levels of the embedding that are compared: all four of `lite` cost a third more time, and find no more."""
_MASK_LOGIT = 8.0
"""Logit of a certain pixel in a mask prompt."""

PromptKind = Literal["click", "box", "both"]
"""What a decoder is asked with beside a mask."""


def open_frames(
    predictor: Predictor,
    frames: Sequence[Any],
    first: int,
    smallest_area: int,
    tile: int | None,
) -> FrameEncoder:
    """Load and encode a frame, and lay out the grid of all frames.

    Args:
        predictor: loads and encodes frames.
        frames: as in `Predictor.follow`.
        first: number of the frame whose values say how all are normalized.
        smallest_area: pixels of the smallest object.
        tile: side of windows in pixels; None as `smallest_area` needs it.
    """
    reference = predictor.image_loader.load(frames[first], ())
    embedding = predictor.encode(reference, reference).embedding
    features = matching_features(embedding, LEVELS)  # (D, h, w)
    cells = int(features.shape[-1])
    pixels_in_a_cell = max(round(smallest_area**0.5 / CELLS), 1)
    window_side = tile or pixels_in_a_cell * cells
    grid = FrameGrid(
        reference.size_hw, window_side, cells, padded=predictor.pipeline.aspect == "pad"
    )
    return FrameEncoder(predictor, frames, first, reference, grid, features.device)


class FrameEncoder:
    """Encodes the frames of a sequence, normalized as one of them.

    Attributes:
        grid: the cells and windows of all frames.
        device: where the features are.
    """

    def __init__(
        self,
        predictor: Predictor,
        frames: Sequence[Any],
        first: int,
        reference: SensorImage,
        grid: FrameGrid,
        device: torch.device,
    ) -> None:
        """Take what `open_frames` has found.

        Args:
            first: number of the frame `reference`, as which all are normalized.
        """
        self.grid = grid
        self.device = device
        self._predictor = predictor
        self._frames = frames
        self._reference = reference
        self._loaded = first, reference
        self._mask_hw: tuple[int, ...] | None = None
        self._features: dict[tuple[int, GridWindow], Tensor] = {}
        self._encoded: dict[tuple[int, GridWindow], EncodedImage] = {}

    def is_measured(self, index: int) -> bool:
        """Return whether a frame has a pixel with a measurement."""
        try:
            self._load(index)
        except NoValidPixelsError:
            return False
        return True

    def keep(self, index: int, others: Collection[int]) -> None:
        """Drop what is known of frames but one, and the features of some others."""
        for key in list(self._encoded):
            if key[0] != index:
                del self._encoded[key]
        for key in list(self._features):
            if key[0] != index and key[0] not in others:
                del self._features[key]

    def features(self, index: int, window: GridWindow) -> Tensor:
        """Return (D, s, s) features of a window of a frame, see `matching_features`."""
        key = index, window
        if key not in self._features:
            self._features[key] = matching_features(
                self._encode(index, window).embedding, LEVELS
            )
        return self._features[key]

    def decode(
        self,
        index: int,
        window: GridWindow | Window,
        regions: Sequence[Instance],
        labels: Sequence[ObjectLabel],
        kind: PromptKind,
        share: float = 1.0,
    ) -> list[list[Instance | None]]:
        """Return the decoder's M masks of each of K objects, for a click, a box or both with a mask.

        Args:
            index: of the frame.
            window: where it is encoded; of the grid, it is kept for the next call.
            regions: where each object may be, in the window.
            labels: of the grid, how likely it is where.
            kind: of the prompts.
            share: of the decoder in the masks; the rest is that of the labels.
        """
        if isinstance(window, GridWindow):
            place = window.pixels
            encoded = self._encode(index, window)
        else:
            place = window
            encoded = self._predictor.encode(
                self.grid.cut(self._load(index), window), self._reference
            )
        prompts = [_prompt(region, place, kind) for region in regions]
        if self._mask_hw is None:
            self._mask_hw = tuple(encoded.decode(prompts[:1]).logits.shape[-2:])
        likely = [self.grid.sampled(label, place, self._mask_hw) for label in labels]
        likelihood = torch.stack(likely)[:, None].to(self.device)  # (K, 1, h, w)
        found = []
        for start in range(0, len(prompts), MAX_PROMPTS):
            together = slice(start, start + MAX_PROMPTS)
            logits = _logits(encoded, prompts[together], likelihood[together], share)
            in_window = restore_logits(logits, encoded.prepared.letterbox) > 0
            for masks in in_window.cpu().numpy():
                found.append([self._region(mask, place) for mask in masks])
        return found

    def _region(self, mask: BoolArray, place: Window) -> Instance | None:
        """Return the pixels of a mask in a window, without those beyond the frame; None if there are none."""
        height, width = self.grid.frame_hw
        inside = mask[: height - place.y0, : width - place.x0]
        return region_from_mask(inside, None, (place.y0, place.x0))

    def _load(self, index: int) -> SensorImage:
        """Load a frame; the last one is kept."""
        if self._loaded[0] != index:
            image = self._predictor.image_loader.load(self._frames[index], ())
            self._check_size(index, image)
            self._loaded = index, image
        return self._loaded[1]

    def _check_size(self, index: int, image: SensorImage) -> None:
        """Raise DataError for a frame that is not as large as the others."""
        if image.size_hw == self.grid.frame_hw:
            return
        height, width = image.size_hw
        other_height, other_width = self.grid.frame_hw
        raise DataError(
            f"{image.origin}: frame {index} is {width}x{height} pixels, but {self._reference.origin} of the "
            f"same sequence is {other_width}x{other_height}; make two sequences of them"
        )

    def _encode(self, index: int, window: GridWindow) -> EncodedImage:
        """Encode a window of a frame once, until it is dropped."""
        key = index, window
        if key not in self._encoded:
            image = self.grid.cut(self._load(index), window.pixels)
            self._encoded[key] = self._predictor.encode(image, self._reference)
        return self._encoded[key]


def _logits(
    encoded: EncodedImage, prompts: Sequence[Prompt], likelihood: Tensor, share: float
) -> Tensor:
    """Return (K, M, h, w), above 0 inside of the masks of K prompts with a mask of how likely each pixel is."""
    mask_input = (2 * likelihood - 1) * _MASK_LOGIT
    logits = encoded.decode(prompts, mask_input=mask_input).logits.float()
    if share < 1:
        return share * logits.sigmoid() + (1 - share) * likelihood - 0.5
    return logits


def _prompt(region: Instance, place: Window, kind: PromptKind) -> Prompt:
    """Return a click in a region, a box around it or both, in pixels of a window."""
    corner_xy = np.array([place.x0, place.y0], np.float32)
    clicks = np.array([center_click(region)], np.float32) - corner_xy
    if kind == "box":
        clicks = clicks[:0]
    box = None
    if kind != "click":
        box = tight_box(region) - np.tile(corner_xy, 2)
    return Prompt(clicks, np.ones(len(clicks), np.int64), box)

"""The frames of a sequence as a network sees them: loaded one by one, encoded in windows where objects are small."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from simmat.data.clicks import center_click, tight_box
from simmat.errors import DataError
from simmat.nn.matching import matching_features
from simmat.nn.resize import restore_logits
from simmat.predictor import EncodedImage, Predictor
from simmat.predictor.reading import LoadedImage, NoValidPixelsError
from simmat.types import BoolArray, Prompt, SensorImage, Window
from simmat_plugin_sequences.frame_grid import FrameGrid, GridWindow

CELLS = 10
"""Side of the smallest object in cells, at least, for which frames are cut into windows."""
LEVELS = 2
"""Levels of the embedding that are compared: all four of `lite` cost a third more time, and find no more."""
_MASK_LOGIT = 8.0
"""Logit of a certain pixel in a mask prompt."""

PromptKind = Literal["click", "box", "both"]
"""Of what a decoder is asked with beside a mask."""


class FrameEncoder:
    """Encodes the frames of a sequence, normalized as the first one.

    Attributes:
        grid: the cells and windows of all frames.
        side: cells along each side of a window.
    """

    def __init__(self, encoder: Predictor, frames: Sequence[Any], first: int, area: int, tile: int | None) -> None:
        """Load the first frame.

        Args:
            encoder: a predictor.
            frames: as in `Predictor.follow`.
            first: number of the frame whose values say how all are normalized.
            area: pixels of the smallest object.
            tile: side of windows in pixels; None as `area` needs it.
        """
        self._encoder, self._frames = encoder, frames
        self._image = first, encoder.image_loader.load(frames[first], ())
        self._first = LoadedImage(self._image[1])
        self._mask_hw: tuple[int, ...] | None = None
        self._features: dict[tuple[int, GridWindow], Tensor] = {}
        self._encoded: dict[tuple[int, GridWindow], EncodedImage] = {}
        whole = matching_features(encoder.encode(self._first.image, self._first).embedding, LEVELS)
        self.device, self.side = whole.device, int(whole.shape[-1])
        side_px = tile or max(round(area**0.5 / CELLS), 1) * self.side
        self.grid = FrameGrid(self._first.size_hw, side_px, self.side, padded=encoder.pipeline.aspect == "keep")

    def is_measured(self, index: int) -> bool:
        """Return whether a frame has a pixel with a measurement."""
        try:
            self._load(index)
        except NoValidPixelsError:
            return False
        return True

    def keep(self, index: int, others: Collection[int]) -> None:
        """Drop what is known of frames but one, and the features of some others."""
        self._encoded = {key: value for key, value in self._encoded.items() if key[0] == index}
        self._features = {key: value for key, value in self._features.items() if key[0] == index or key[0] in others}

    def features(self, index: int, window: GridWindow) -> Tensor:
        """Return (D, s, s) features of a window of a frame, see `matching_features`."""
        if (index, window) not in self._features:
            self._features[index, window] = matching_features(self._encode(index, window).embedding, LEVELS)
        return self._features[index, window]

    def decode(
        self,
        index: int,
        window: GridWindow | Window,
        masks: Sequence[BoolArray],
        labels: Sequence[Tensor],
        kind: PromptKind,
        share: float = 1.0,
    ) -> list[BoolArray]:
        """Return the decoder's (M, H, W) masks of each of K objects, for a click, a box or both with a mask.

        Args:
            index: of the frame.
            window: where it is encoded; of the grid, it is kept for the next call.
            masks: (H, W) bool, where the object may be, in the window, not empty.
            labels: (h, w) of the grid, how likely it is where.
            kind: of the prompts.
            share: of the decoder in the masks; the rest is that of the labels.
        """
        if isinstance(window, GridWindow):
            place, encoded = window.pixels, self._encode(index, window)
        else:
            place, encoded = window, self._encoder.encode(self.grid.cut(self._load(index), window), self._first)
        corner = np.array([place.x0, place.y0], np.float32)
        clicks = 0 if kind == "box" else 1
        prompts = [
            Prompt(
                np.array([center_click(mask)], np.float32)[:clicks] - corner,
                np.ones(clicks, np.int64),
                None if kind == "click" else tight_box(mask) - np.tile(corner, 2),
            )
            for mask in masks
        ]
        if self._mask_hw is None:
            self._mask_hw = tuple(encoded.decode(prompts[:1]).logits.shape[-2:])
        likely = torch.stack([self.grid.sampled(one, place, self._mask_hw) for one in labels])[:, None]
        likely = likely.to(self.device)  # (K, 1, h, w)
        answers = encoded.decode(prompts, mask_input=(2 * likely - 1) * _MASK_LOGIT).logits.float()
        if share < 1:
            answers = share * answers.sigmoid() + (1 - share) * likely - 0.5
        inside = (restore_logits(answers, encoded.prepared.letterbox) > 0).cpu().numpy()  # (K, M, …) of the window
        found = np.zeros((*inside.shape[:2], *self.grid.frame_hw), np.bool_)
        part = found[..., place.y0 : place.y1, place.x0 : place.x1]  # without what is beyond the frame
        part[...] = inside[..., : part.shape[-2], : part.shape[-1]]
        return list(found)

    def _load(self, index: int) -> SensorImage:
        """Load a frame; the last one is kept."""
        if self._image[0] != index:
            image = self._encoder.image_loader.load(self._frames[index], ())
            if image.size_hw != self.grid.frame_hw:
                (height, width), (first_height, first_width) = image.size_hw, self.grid.frame_hw
                raise DataError(
                    f"{image.origin}: frame {index} is {width}x{height} pixels, {self._first.origin} of the same "
                    f"sequence {first_width}x{first_height}; make two sequences of them"
                )
            self._image = index, image
        return self._image[1]

    def _encode(self, index: int, window: GridWindow) -> EncodedImage:
        if (index, window) not in self._encoded:
            image = self.grid.cut(self._load(index), window.pixels)
            self._encoded[index, window] = self._encoder.encode(image, self._first)
        return self._encoded[index, window]

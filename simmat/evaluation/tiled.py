"""Score prompts in an image that is cut into windows, in the windows that `predict` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simmat.data.instances import Instance
from simmat.data.pipeline import regions_from_logits
from simmat.evaluation.prompts import Protocol, ScoredPrompts, Target
from simmat.evaluation.scores import mask_iou
from simmat.foundation import MaskPrediction
from simmat.nn.device import wait_for
from simmat.predictor import TiledImage
from simmat.predictor.prompts import groups_of_one_kind, prompt_in
from simmat.predictor.tiles import reaches_border
from simmat.types import BoolArray, Letterbox, Prompt, Window


class _Answer(NamedTuple):
    """The answer to a prompt: M masks.

    Attributes:
        window: the part of the image that the decoder saw.
        logits: (M, h', w') of the decoder.
        iou: (M,) predicted.
        masks: M masks in pixels of the image; None for an empty one.
    """

    window: Window
    logits: Tensor
    iou: Tensor
    masks: list[Instance | None]


class ScoredWindows(ScoredPrompts):
    """An image of several windows with its objects: each prompt is decoded in a window around it.

    As in `TiledImage.predict`, the window is widened while the single mask reaches its border.
    """

    def __init__(
        self,
        tiled: TiledImage,
        letterbox: Letterbox,
        targets: Sequence[Target],
        scored: BoolArray,
        protocol: Protocol,
    ) -> None:
        """Take an image; masks are compared at its original size."""
        super().__init__(letterbox, targets, scored, protocol)
        self._tiled = tiled
        self._windows: dict[int, Window] = {}  # of the last answer, by target
        self.encode_s = 0.0

    def decode(
        self,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        *,
        mask_input: Tensor | None = None,
        alternatives: bool = False,
    ) -> tuple[MaskPrediction, list[Instance | None], npt.NDArray[np.float64]]:
        """Decode prompts and compare the masks with the truth, see `ScoredPrompts`."""
        asked = list(prompts)
        if mask_input is not None:
            for k, target in enumerate(targets):
                earlier = mask_input[k, 0].float().cpu().numpy()
                window = self._windows[target.index]
                asked[k] = replace(asked[k], mask_input=earlier, mask_window=window)
        answers = self._tiled.answer_widening(asked, self._answers_in, self._is_cut)
        count = None if alternatives else 1
        ious = []
        for answer, target in zip(answers, targets, strict=True):
            self._windows[target.index] = answer.window
            ious.append(
                [
                    mask_iou(mask, target.truth, self.scored)
                    for mask in answer.masks[:count]
                ]
            )
        logits = torch.stack([answer.logits[:count] for answer in answers])
        predicted = torch.stack([answer.iou[:count] for answer in answers])
        singles = [answer.masks[0] for answer in answers]
        return MaskPrediction(logits, predicted), singles, np.asarray(ious)

    def _answers_in(self, window: Window, prompts: Sequence[Prompt]) -> list[_Answer]:
        """Answer prompts in one window."""
        start = perf_counter()
        _, encoded = self._tiled.encode_around_prompt(window)
        wait_for(encoded.embedding.levels[0].device)
        self.encode_s += perf_counter() - start
        letterbox = encoded.prepared.letterbox
        moved = [prompt_in(prompt, window, letterbox) for prompt in prompts]
        found: dict[int, _Answer] = {}
        for rows in groups_of_one_kind(moved):
            start = perf_counter()
            answer = encoded.decode([moved[row] for row in rows])
            wait_for(answer.logits.device)
            self.decode_s.append((perf_counter() - start) / len(rows))
            logits = answer.logits.float()
            masks = regions_from_logits(logits, letterbox, None)
            for place, row in enumerate(rows):
                in_image = [_moved(mask, window) for mask in masks[place]]
                found[row] = _Answer(
                    window, logits[place], answer.iou[place].float(), in_image
                )
        return [found[row] for row in range(len(prompts))]

    def _is_cut(self, answer: _Answer) -> bool:
        """Return whether the single mask reaches a border of its window that is not a border of the image."""
        mask = answer.masks[0]
        if mask is None:
            return False
        window = answer.window
        return reaches_border(mask.within(window), window, self._tiled.size_hw)


def _moved(mask: Instance | None, window: Window) -> Instance | None:
    """Return a mask of a window in pixels of the image."""
    if mask is None:
        return None
    return replace(mask, window=mask.window.moved(window.y0, window.x0))

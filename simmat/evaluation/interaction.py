"""An image with its objects: prompts are answered, and the answers compared with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from simmat.data.instances import Instance
from simmat.data.pipeline import PreparedImage
from simmat.evaluation.grid import MaskGrid
from simmat.evaluation.protocol import Protocol
from simmat.evaluation.scores import mask_iou
from simmat.evaluation.targets import Targets
from simmat.model import SimMAT
from simmat.nn.device import wait_for
from simmat.predictor import EncodedImage
from simmat.types import Prompt

PROMPTS_AT_ONCE = 16
"""Prompts decoded and brought to the grid together, at most; see `ScoredImage.together`."""

_MOST_ELEMENTS = 2**26
"""Pixels of all their masks on the grid, at most, as each may cover all of it: a byte a pixel."""

_ALTERNATIVES = 4
"""Masks to a prompt where alternatives are looked at, those of SAM."""


class Answer(NamedTuple):
    """What came back to K prompts.

    Attributes:
        masks: K single answers, mask 0 of each, on the grid; None where it is empty.
        ious: (K, M) float64 with the truth.
        predicted: (K, M), what the model thinks they are.
        low: (K, 1, h', w') logits of mask 0 at the decoder's own size, to be fed back.
    """

    masks: tuple[Instance | None, ...]
    ious: npt.NDArray[np.float64]
    predicted: Tensor
    low: Tensor


class ScoredImage:
    """One image with its objects, encoded once and asked any number of times.

    Attributes:
        targets: the objects.
        grid: where masks are compared.
        together: prompts to ask at once; fewer on a large grid, so that memory does not grow with their number.
        encode_s: seconds it took to encode.
        decode_s: seconds a prompt, one number a decoding.
    """

    def __init__(self, model: SimMAT, prepared: PreparedImage, targets: Targets, protocol: Protocol) -> None:
        self.targets = targets
        self.grid = MaskGrid(prepared.frame, protocol)
        self._device = next(model.parameters()).device
        masks = _ALTERNATIVES if protocol.alternatives else 1
        fitting = _MOST_ELEMENTS // (masks * targets.scored.size)
        self.together = max(min(fitting, PROMPTS_AT_ONCE), 1)
        start = self._now()
        self._image = EncodedImage(model, prepared)
        self.encode_s = self._now() - start
        self.decode_s: list[float] = []

    def ask(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[int],
        *,
        mask_input: Tensor | None = None,
        alternatives: bool = False,
    ) -> Answer:
        """Decode prompts and compare the answers with the truth.

        Args:
            prompts: K prompts in pixels of the original image, all of one kind.
            rows: K numbers of targets, what each prompt means.
            mask_input: (K, 1, h', w') logits of earlier answers.
            alternatives: whether the decoder's alternative masks are looked at, and not mask 0 alone.
        """
        start = self._now()
        answer = self._image.decode(prompts, mask_input=mask_input)
        self.decode_s.append((self._now() - start) / len(prompts))
        kept = slice(None) if alternatives else slice(1)
        logits = answer.logits[:, kept].float()
        singles, ious = [], []
        for masks, row in zip(self.grid.masks(logits), rows, strict=True):
            singles.append(masks[0])
            truth = self.targets.found[row].truth
            ious.append([mask_iou(mask, truth, self.targets.scored) for mask in masks])
        return Answer(tuple(singles), np.asarray(ious), answer.iou[:, kept].float(), logits[:, :1])

    def single_ious(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[float]:
        """Return the IoU of the single mask of each of any number of prompts, see `ask`."""
        ious: list[float] = []
        for start in range(0, len(prompts), self.together):
            part = slice(start, start + self.together)
            ious += self.ask(prompts[part], rows[part]).ious[:, 0].tolist()
        return ious

    def _now(self) -> float:
        wait_for(self._device)
        return perf_counter()


def box_prompt(box: npt.NDArray[np.float32]) -> Prompt:
    """Make a prompt of a (4,) XYXY box alone."""
    return Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box)

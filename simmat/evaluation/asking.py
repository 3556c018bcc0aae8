"""An image encoded once, and asked any number of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simmat.data.pipeline import PreparedImage, prompt_batch
from simmat.evaluation.metrics import mask_iou
from simmat.evaluation.protocol import Protocol
from simmat.evaluation.targets import Targets, grid_hw
from simmat.model import SimMAT
from simmat.nn.device import wait_for
from simmat.nn.resize import restore_logits, upsample_logits
from simmat.types import BoolArray, Prompt

PROMPTS_AT_ONCE = 16
"""Prompts decoded and brought to the grid together, at most; see `EncodedImage.together`."""

_MOST_ELEMENTS = 2**26
"""Values of all their masks on the grid, at most: about a GiB while they are compared."""

_ALTERNATIVES = 4
"""Masks to a prompt where alternatives are looked at, those of SAM."""


class Answer(NamedTuple):
    """What came back to K prompts.

    Attributes:
        masks: (K, M, h, w) bool on the grid; mask 0 is the single answer.
        ious: (K, M) with the truth.
        predicted: (K, M), what the model thinks they are.
        low: (K, 1, h', w') logits of mask 0 at the decoder's own size, to be fed back.
    """

    masks: Tensor
    ious: Tensor
    predicted: Tensor
    low: Tensor

    def single_masks(self) -> BoolArray:
        """Return mask 0 of each: (K, h, w)."""
        masks: BoolArray = self.masks[:, 0].cpu().numpy()
        return masks


class EncodedImage:
    """One image with its objects.

    Attributes:
        targets: the objects.
        together: prompts to ask at once; fewer on a large grid, so that memory does not grow with their number.
        encode_s: seconds it took to encode.
        decode_s: seconds a prompt, one number a decoding.
    """

    def __init__(self, model: SimMAT, prepared: PreparedImage, targets: Targets, protocol: Protocol) -> None:
        self.targets = targets
        self._model = model
        self._frame = prepared.frame
        self._protocol = protocol
        self._device = next(model.parameters()).device
        masks = _ALTERNATIVES if protocol.alternatives else 1
        fitting = _MOST_ELEMENTS // (masks * targets.scored.size)
        self.together = max(min(fitting, PROMPTS_AT_ONCE), 1)
        self._scored = torch.from_numpy(targets.scored).to(self._device)
        start = self._now()
        self._embedding = model.encode(prepared.planes[None].to(self._device), prepared.content[None].to(self._device))
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
        batch = replace(prompt_batch(prompts, self._frame, self._device), mask_input=mask_input)
        start = self._now()
        answer = self._model.decode(self._embedding, batch)
        self.decode_s.append((self._now() - start) / len(prompts))
        kept = slice(None) if alternatives else slice(1)
        logits = answer.logits[:, kept].float()
        masks = self._on_grid(logits) > 0
        truth = torch.from_numpy(np.stack([self.targets.found[row].truth() for row in rows])).to(self._device)
        ious = mask_iou(masks, truth, self._scored)
        return Answer(masks, ious, answer.iou[:, kept].float(), logits[:, :1])

    def single_ious(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[float]:
        """Return the IoU of the single mask of each of any number of prompts, see `ask`."""
        ious: list[float] = []
        for start in range(0, len(prompts), self.together):
            part = slice(start, start + self.together)
            ious += self.ask(prompts[part], rows[part]).ious[:, 0].tolist()
        return ious

    def _on_grid(self, logits: Tensor) -> Tensor:
        if self._protocol.grid == "original":
            return restore_logits(logits, self._frame)
        return upsample_logits(logits, grid_hw(self._frame, self._protocol))

    def _now(self) -> float:
        wait_for(self._device)
        return perf_counter()


def box_prompt(box: npt.NDArray[np.float32]) -> Prompt:
    """Make a prompt of a (4,) XYXY box alone."""
    return Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box)

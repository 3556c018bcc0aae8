"""The decoder's part in following: it refines masks and draws borders of the objects for which it is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from simmat.data.instances import Instance
from simmat_plugin_sequences.frame_encoder import FrameEncoder, PromptKind
from simmat_plugin_sequences.frame_grid import GridWindow
from simmat_plugin_sequences.given_masks import GivenMasks, iou
from simmat_plugin_sequences.labels import Labels, ObjectLabel

TRUST = 0.95
"""IoU with a given mask from which the decoder is asked for an object: it answers what is meant, and not a part."""
AGREEMENT = 0.5
"""Least IoU of the decoder's mask with the propagated one."""
BORDER_TRUST = 0.8
"""As `TRUST`, where the decoder sees the object larger, and only draws its border."""
SHARE = 0.4
"""Of the decoder in such a mask; the rest is the labels'. Below half, it decides only where the labels are not sure."""
_KINDS: tuple[PromptKind, ...] = ("click", "box")


class Refiner:
    """Asks the decoder for the objects whose given masks it answers with the same.

    Whether it does is measured once for each object, in the first frame that has a mask of it.
    """

    def __init__(self, encoder: FrameEncoder, given: GivenMasks) -> None:
        """Measure nothing yet."""
        self._encoder = encoder
        self._grid = encoder.grid
        self._given = given
        # of each object, measured once
        self._trust = cache(self._measure_trust)
        self._border_output = cache(self._measure_border)

    def refined(
        self,
        frame: int,
        regions: Mapping[int, Instance],
        labels: Labels,
        windows: Sequence[GridWindow],
    ) -> dict[int, Instance]:
        """Return the decoder's masks of trusted objects, where they agree with the propagated ones.

        Args:
            frame: number of the frame.
            regions: object id -> its pixels, as propagated.
            labels: of these objects.
            windows: those in which the frame is encoded.
        """
        trusted = {}
        for number in regions:
            trust = self._trust(number)
            if trust is not None:
                trusted[number] = trust
        held_in = self._grid.holding([regions[number] for number in trusted], windows)
        asked: dict[tuple[GridWindow, PromptKind], list[tuple[int, int]]] = {}
        for (number, trust), window in zip(trusted.items(), held_in, strict=True):
            kind, output = trust
            if window is not None:
                asked.setdefault((window, kind), []).append((number, output))
        found = {}
        for (window, kind), objects in asked.items():
            own_regions = [regions[number] for number, _ in objects]
            own_labels = [labels.of_objects[number] for number, _ in objects]
            answers = self._encoder.decode(frame, window, own_regions, own_labels, kind)
            for (number, output), region, outputs in zip(
                objects, own_regions, answers, strict=True
            ):
                answer = outputs[output]
                if answer is not None and iou(answer, region) >= AGREEMENT:
                    found[number] = answer
        return found

    def border(
        self, frame: int, number: int, region: Instance, label: ObjectLabel
    ) -> Instance | None:
        """Return an object's pixels with the border that the decoder draws in a finer window; None if it draws none.

        They stay as they are if the decoder is not asked.
        """
        window = self._grid.around(region)
        if window is None:
            return region
        output = self._border_output(number)
        if output is None:
            return region
        answers = self._encoder.decode(frame, window, [region], [label], "both", SHARE)
        return answers[0][output]

    def _measure_trust(self, number: int) -> tuple[PromptKind, int] | None:
        """Return for which prompt, and in which output, the decoder gives the given mask; None if it does not."""
        frame, region = self._given.first_region(number)
        label = self._grid.label(region)
        covered = Labels({number: label}).covered(self._grid.size_hw)
        window = self._grid.holding([region], self._grid.near(covered, 0))[0]
        if window is None:
            return None
        best = TRUST
        found: tuple[PromptKind, int] | None = None
        for kind in _KINDS:
            outputs = self._encoder.decode(frame, window, [region], [label], kind)[0]
            for output, answer in enumerate(outputs):
                likeness = iou(answer, region)
                if likeness >= best:
                    best = likeness
                    found = kind, output
        return found

    def _measure_border(self, number: int) -> int | None:
        """Return which output of the decoder draws the border of an object; None if none does, or it gives the mask."""
        if self._trust(number) is not None:
            return None
        frame, region = self._given.first_region(number)
        window = self._grid.around(region)
        if window is None:
            return None
        label = self._grid.label(region)
        outputs = self._encoder.decode(frame, window, [region], [label], "both")[0]
        likeness = [iou(answer, region) for answer in outputs]
        best = int(np.argmax(likeness))
        return best if likeness[best] >= BORDER_TRUST else None

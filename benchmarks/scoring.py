"""Measure what scoring an object costs, against the same computed on the whole image: CPU ms, both timed in turn.

    python benchmarks/scoring.py [--runs 5] [--json FILE]

One click an object by the protocol `one-click`: targets, clicks, IoU of four masks, boundary IoU; without the model,
whose answers are discs about as large as the object, or everything. Logits are 256 x 256 as those of SAM. The baseline
scores 16 of the objects the plain way. Both must give the same figures, or it ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from measuring import Line, parser_of, report
from scipy import ndimage
from torch import Tensor, nn

from simmat.data.instances import Annotation, region_from_mask
from simmat.data.pipeline import (
    PreparedImage,
    content_mask,
    prompt_batch,
    restore_logits,
)
from simmat.evaluation import ONE_CLICK, ObjectScore
from simmat.evaluation.prompts import (
    ScoredImage,
    find_targets,
    score_objects,
    scored_pixels,
)
from simmat.evaluation.scores import boundary_width
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.plugins.loader import installed
from simmat.predictor import encode_image
from simmat.types import BoolArray, Letterbox, Prompt

INPUT, LOW = 1024, 256
BASELINE_OBJECTS, TOGETHER, MOST_VALUES = 16, 16, 2**26


class Case(NamedTuple):
    """One line of the table: pixels to a side of the image and of the objects, their number, and what is answered."""

    side: int
    objects: int
    object_px: int
    answer: str = "the object"


CASES = [
    *(Case(side, 200, 24) for side in (512, 1024, 2048, 4096)),
    *(Case(1024, count, 24) for count in (50, 1000)),
    *(Case(1024, 200, size) for size in (48, 96, 192)),
    Case(1024, 16, 24, "everything"),
]


class Discs(nn.Module):
    """A model that answers a click with four discs around it, or with everything.

    Attributes:
        seconds: CPU seconds it took to answer, so far.
    """

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.device_holder = nn.Parameter(torch.zeros(1))
        self.radius = (
            case.object_px / 2 * LOW / case.side
            if case.answer == "the object"
            else 2.0 * LOW
        )
        self.seconds = 0.0

    def encode(self, planes: Tensor, content: Tensor) -> ImageEmbedding:
        """Do nothing."""
        return ImageEmbedding((planes,), (1,))

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Answer with (K, 4, LOW, LOW) logits."""
        start = time.process_time()
        x, y = (prompts.point_coords[:, 0] * LOW / INPUT).T[:, :, None]  # (K, 1) each
        steps = torch.arange(LOW)
        # (K, LOW, LOW)
        distance = ((steps - y)[:, :, None] ** 2 + (steps - x)[:, None] ** 2).sqrt_()
        logits = (
            self.radius * torch.tensor([1.0, 0.7, 1.1, 1.3])[:, None, None]
            - distance[:, None]
        )
        self.seconds += time.process_time() - start
        return MaskPrediction(
            logits, torch.tensor([0.9, 0.8, 0.7, 0.6]).expand(len(logits), 4)
        )


def make_label(case: Case) -> Annotation:
    """Return discs anywhere in an image, a border of which is ignored."""
    rng = np.random.default_rng(0)
    size = case.object_px
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    disc = rows**2 + columns**2 < (size / 2) ** 2
    corners = rng.integers(0, case.side - size + 1, (case.objects, 2)).tolist()
    regions = [
        region
        for y, x in corners
        if (region := region_from_mask(disc, 1, (y, x))) is not None
    ]
    ignore = np.zeros((case.side, case.side), dtype=np.bool_)
    ignore[:4] = True
    return Annotation((case.side, case.side), tuple(regions), ignore)


def within_boxes(label: Annotation, model: Discs) -> list[ObjectScore]:
    """Score as `simmat eval` does."""
    frame = Letterbox(label.size_hw, INPUT)
    targets, _ = find_targets(label, frame, ONE_CLICK)
    scored = scored_pixels(label, frame, ONE_CLICK)
    prepared = PreparedImage(torch.zeros(1, 1, 1), content_mask(frame), frame)
    image = ScoredImage(
        encode_image(cast(SimMAT, model), prepared), targets, scored, ONE_CLICK
    )
    return score_objects(image, "image", [installed().get("metric", "boundary_iou")])


def on_the_whole_image(label: Annotation, model: Discs) -> list[tuple[float, ...]]:
    """Score with every mask at the size of the image: (x, y, IoU of the single mask, of the best one, boundary IoU)."""
    frame, scored = Letterbox(label.size_hw, INPUT), torch.from_numpy(~label.ignore)
    together = max(min(MOST_VALUES // (4 * label.ignore.size), TOGETHER), 1)
    embedding = model.encode(torch.zeros(1), torch.zeros(1))
    scores: list[tuple[float, ...]] = []
    for start in range(0, len(label.regions), together):
        truths = np.stack(
            [
                region.mask(label.size_hw)
                for region in label.regions[start : start + together]
            ]
        )
        clicks = [centre(truth & ~label.ignore) for truth in truths]
        prompts = prompt_batch(
            [Prompt.points([xy]) for xy in clicks], frame, torch.device("cpu")
        )
        masks = restore_logits(model.decode(embedding, prompts).logits, frame) > 0
        seen, truth = masks & scored, (torch.from_numpy(truths) & scored)[:, None]
        shared, union = (
            (seen & truth).flatten(2).sum(-1),
            (seen | truth).flatten(2).sum(-1),
        )
        ious = shared.double() / union.clamp(min=1)  # (K, 4)
        for k, xy in enumerate(clicks):
            border = boundary_iou(masks[k, 0].numpy(), truths[k], ~label.ignore)
            scores.append((*xy, float(ious[k, 0]), float(ious[k, 1:].max()), border))
    return scores


def centre(mask: BoolArray) -> tuple[float, float]:
    """Return the pixel of a mask that is farthest from everything outside of it."""
    y0, x0, y1, x1 = around(mask)
    distance = ndimage.distance_transform_edt(np.pad(mask[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return float(x0 + column), float(y0 + row)


def boundary_iou(mask: BoolArray, truth: BoolArray, scored: BoolArray) -> float:
    """Return the boundary IoU from distances to the outside."""
    width, bands = boundary_width((mask.shape[0], mask.shape[1])), []
    for one in (mask, truth):
        y0, x0, y1, x1 = around(one)
        distance = ndimage.distance_transform_cdt(
            np.pad(one[y0:y1, x0:x1], 1), metric="chessboard"
        )[1:-1, 1:-1]
        band = np.zeros_like(one)
        band[y0:y1, x0:x1] = one[y0:y1, x0:x1] & (distance <= width)
        bands.append(band & scored)
    return float(
        np.count_nonzero(bands[0] & bands[1]) / np.count_nonzero(bands[0] | bands[1])
    )


def around(mask: BoolArray) -> tuple[int, int, int, int]:
    """Return the box of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def check(found: Sequence[ObjectScore], expected: Sequence[tuple[float, ...]]) -> None:
    """End where the figures differ in a bit."""
    for score, figures in zip(found, expected, strict=False):
        if (
            *score.click_xy,
            score.iou,
            score.iou_oracle,
            score.metrics["boundary_iou"],
        ) != figures:
            raise SystemExit(
                f"the figures of {score} are not those of the whole image, {figures}"
            )


def measure(case: Case, runs: int) -> Line:
    """Score the objects of a case both ways."""
    label = make_label(case)
    few = Annotation(label.size_hw, label.regions[:BASELINE_OBJECTS], label.ignore)
    boxes: list[float] = []
    whole: list[float] = []
    for run in range(runs + 1):  # the first warms up
        model = Discs(case)
        start = time.process_time()
        scores = within_boxes(label, model)
        boxes.append(1e3 * (time.process_time() - start - model.seconds) / len(scores))
        model = Discs(case)
        start = time.process_time()
        expected = on_the_whole_image(few, model)
        whole.append(
            1e3 * (time.process_time() - start - model.seconds) / len(expected)
        )
        if run == 0:
            check(scores, expected)
            boxes.clear()
            whole.clear()
    path = f"scoring, {case.side} px, {case.objects} objects of {case.object_px} px, answer is {case.answer}"
    return Line(path, "CPU ms", boxes, "whole image", whole)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    report([measure(case, given.runs) for case in CASES], given.json)


if __name__ == "__main__":
    main()

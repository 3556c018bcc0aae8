"""A network that answers prompts as a test says, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from data_sets import open_planes, save_image, save_mask
from torch import Tensor, nn

from simmat.data.dataset import Dataset
from simmat.data.pipeline import Pipeline
from simmat.evaluation import EvalRequest, ObjectScore, Protocol, Scores, evaluate
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.predictor import Predictor
from simmat.types import BoolArray, SensorImage

Answers = Callable[[PromptBatch], Tensor]


class Scripted(nn.Module):
    """Answers with the (K, M, h, w) masks that `answers` gives for a batch of prompts; predicted IoU falls with M.

    Attributes:
        encoded: planes of every image that was encoded.
        asked: every batch of prompts.
        given: the logits of every answer.
    """

    dense = None

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answers = answers
        self.encoded: list[Tensor] = []
        self.asked: list[PromptBatch] = []
        self.given: list[Tensor] = []

    def for_image(self, image: SensorImage) -> Scripted:
        """Return itself."""
        return self

    def encode(self, planes: Tensor, content: Tensor) -> ImageEmbedding:
        """Keep the planes."""
        self.encoded.append(planes)
        return ImageEmbedding((planes,), (1,))

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Keep the prompts and answer them."""
        self.asked.append(prompts)
        masks = self.answers(prompts)
        logits = torch.where(masks, 5.0, -5.0)
        self.given.append(logits)
        count = masks.shape[1]
        return MaskPrediction(
            logits, torch.linspace(0.9, 0.5, count).expand(len(masks), count)
        )


def one_mask(mask: BoolArray) -> Answers:
    """Answer every prompt with this single (h, w) mask."""
    return lambda prompts: torch.from_numpy(mask).expand(
        len(prompts.image_index), 1, *mask.shape
    )


def make_set(root: Path, *masks: np.ndarray, **card: object) -> Dataset:
    """A data set of one noisy plane an image, all in the test split, with these label images."""
    rows = ["id,split,planes,mask"]
    for index, mask in enumerate(masks):
        noise = np.random.default_rng(index).normal(300, 5, (1, *mask.shape))
        save_image(root / f"images/s{index}.npy", noise)
        save_mask(root / f"masks/s{index}.png", mask)
        rows.append(f"s{index},test,images/s{index}.npy,masks/s{index}.png")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return open_planes(root, **card)


def score(
    model: Scripted,
    dataset: Dataset,
    size: int,
    protocol: Protocol,
    *,
    only: int | None = None,
    everything: bool = False,
    share: float = 1.0,
) -> Scores:
    """Score a data set of `make_set`, or one of its samples, by a network of input size S."""
    channels = tuple(channel.with_statistics(300, 5) for channel in dataset.channels())
    samples = dataset.samples if only is None else dataset.samples[only : only + 1]
    pipeline = Pipeline(dataset.adapter, channels, size)
    predictor = Predictor(cast(SimMAT, model), pipeline)
    return evaluate(
        predictor,
        dataset,
        samples,
        request=EvalRequest(protocol=protocol, everything=everything, share=share),
    )


def object_score(iou: float = 0.5, **changes: object) -> ObjectScore:
    """A score with everything else at some value."""
    values: dict[str, object] = {
        "sample": "s0",
        "region": 0,
        "class_id": None,
        "area": 100,
        "click_xy": (0.0, 0.0),
        "iou": iou,
        "iou_best_predicted": None,
        "iou_oracle": None,
        "predicted_iou": 0.5,
    }
    return ObjectScore(**(values | changes))  # type: ignore[arg-type]

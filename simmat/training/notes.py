"""What a user should know before the first step of a training."""

from __future__ import annotations

from collections.abc import Sequence

from simmat.assemble import Parts
from simmat.config import TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.index import DataIndex
from simmat.data.samples import Sample
from simmat.training.validation import MAX_OBJECTS

_SLOW_FOR_RANDOM = 1e-4
"""A peak learning rate below this is meant for pretrained weights."""


def few_note(dataset: Dataset, val: int) -> str:
    """Say that a validation chooses nothing, and what its score is worth."""
    return (
        f"Validation has {val} of {len(dataset.samples)} labelled images, too few to choose a step by: the bundle gets "
        "the last weights (--keep best chooses), and the score of so few is a first impression."
    )


def share_note(index: DataIndex, val: Sequence[Sample], share: float) -> str:
    """Say that a validation prompts for a share of the objects; "" if for all."""
    if share == 1:
        return ""
    objects = len(index.table_of(val).instances)
    return (
        f"Validation prompts for about {MAX_OBJECTS} of the {objects} objects in its images, always the same ones; "
        "`simmat eval` prompts for all."
    )


def notes_on_data(
    config: TrainConfig,
    index: DataIndex,
    train: Sequence[Sample],
    val: Sequence[Sample],
) -> list[str]:
    """Return what a user should know of the samples, besides what `simmat data check` finds."""
    notes = [
        index.dataset.split_note,
        index.dataset.predicted_note,
        index.dataset.skipped_note,
    ]
    every = len(index.training_samples())
    if len(train) != every:
        notes.append(
            f"{len(train)} of {every} training samples are used, drawn by seed {config.seed}."
        )
    every = len(index.dataset.split("val"))
    if len(val) != every:
        why = ", enough to compare the steps (--val-images sets how many)"
        if config.val_images:
            why = ""
        notes.append(
            f"Validation uses {len(val)} of {every} samples, drawn by seed {config.seed}{why}; `simmat eval` scores "
            "all."
        )
    return notes


def rate_warning(config: TrainConfig, parts: Parts) -> str:
    """Warn that a decoder with random weights learns at a rate that is meant for pretrained ones; "" if not so."""
    starts_random = parts.weights is None or not parts.foundation.promptable
    if config.lr is not None or config.init is not None or not starts_random:
        return ""
    if parts.learning_rate >= _SLOW_FOR_RANDOM:
        return ""
    return (
        f"Warning: the decoder of '{config.foundation}' starts from random weights, and the learning rate of "
        f"--tune {config.tune}, {parts.learning_rate:g}, is meant for pretrained weights; try --lr 1e-3"
    )


def settings_note(config: TrainConfig, size: int, parts: Parts) -> str:
    """Say which settings are those that suit the foundation model, and which the user has replaced."""
    foundation = parts.foundation
    if not foundation.training:
        return ""
    recommended = {
        "image_size": (size, foundation.image_size),
        "tune": (parts.tuner.name, foundation.tune),
    }
    for name, value in foundation.training.items():
        recommended[name] = (getattr(config, name), value)
    suits = []
    replaced = []
    for name, (value, own) in recommended.items():
        if value == own or own == "auto":
            suits.append(f"{name} = {value}")
        else:
            replaced.append(f"{name} = {value} (default: {own})")
    rate = f"lr = {config.lr or parts.learning_rate:g}"
    if config.lr is None:
        suits.append(rate)
    elif config.lr != parts.learning_rate:
        replaced.append(f"{rate} (default: {parts.learning_rate:g})")
    note = f"Defaults of {foundation.name!r}: {', '.join(suits) or 'none'}."
    if replaced:
        note += f" Changed by you: {', '.join(replaced)}."
    return note

"""Plan a training: its samples, the network, the number of steps. Only the cache of a data set is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from simmat.assemble import Parts, find_parts
from simmat.bundle import BundleSpec, ImageDigests
from simmat.callbacks import Callback
from simmat.config import MIN_TO_CHOOSE, TrainConfig, fold_of
from simmat.data.augment import Augmentation
from simmat.data.batches import TrainingItems
from simmat.data.copy_paste import check_repeats
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.digest import DatasetDigest
from simmat.data.formats.coco import ANNOTATIONS
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.formats.frames import FRAMES
from simmat.data.index import DataIndex, read_index
from simmat.data.pipeline import Pipeline
from simmat.data.samples import Sample, draw_samples
from simmat.errors import ConfigError
from simmat.evaluation import find_protocol, grid_hw, nothing_to_score
from simmat.io.weights import find_weights
from simmat.model_spec import ModelSpec
from simmat.nn.losses import Loss, MaskLoss, PromptLoss
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import Registry, import_from_string
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.contract import InputContract
from simmat.sensors.options import is_sensor_file, modality_parts
from simmat.training.length import OpenEnd, find_length
from simmat.training.network import check_init, choose_network, network_spec
from simmat.training.validation import (
    MAX_OBJECTS,
    prompted_share,
    validation_subset,
    work_of_validation,
)
from simmat.types import Letterbox


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a training does, known before anything is built or written.

    Attributes:
        config: the settings, with defaults chosen for those that were left open.
        dataset: the samples.
        contents: digests of the data set's files, compared on resume.
        train: training samples, each with a region.
        epoch_samples: the samples of which an epoch takes one item each: `train`, in which a large image that is cut
            into windows is there several times.
        val: samples of every validation: those of the split, or some of them, see `validation_subset`.
        val_every: steps between validations.
        val_share: share of the objects that a validation prompts for.
        spec: the network.
        parts: what it is built of.
        pipeline: image in physical units -> network input.
        loss: what is minimised.
        steps: number of optimiser steps; the most if the end is open.
        open_end: how the validations decide the end; None if the number of steps is fixed.
        warmup: number of steps of linear warm-up.
        peak_rate: the learning rate after warm-up.
        notes: what a user should know before the first step.
        init_spec: the spec of the bundle that the training starts from; of a resumed run, its own bundle's. None
            without --init.
        inputs: what the values of the training images are like; None if they are too few.
    """

    config: TrainConfig
    dataset: Dataset
    contents: DatasetDigest
    train: tuple[Sample, ...]
    epoch_samples: tuple[Sample, ...]
    val: tuple[Sample, ...]
    val_every: int
    val_share: float
    spec: ModelSpec
    parts: Parts
    pipeline: Pipeline
    loss: Loss
    steps: int
    open_end: OpenEnd | None
    warmup: int
    peak_rate: float
    notes: tuple[str, ...] = ()
    init_spec: BundleSpec | None = None
    inputs: InputContract | None = None

    def items(self) -> TrainingItems:
        """Return the stream of training items."""
        config = self.config
        augmentation = Augmentation.none()
        if config.augment:
            augmentation = Augmentation(rotate=config.rotate, paste=config.paste)
        if self.loss.whole_images:
            augmentation = replace(
                augmentation, flip=False, rotate=False, scale=(1, 1), paste=0
            )
        return TrainingItems(
            dataset=self.dataset,
            samples=self.epoch_samples,
            pipeline=self.pipeline,
            augmentation=augmentation,
            prompts=config.prompts_per_image,
            clicks=config.clicks,
            batch_size=config.batch_size,
            seed=config.seed,
            dense=self.spec.dense,
            extra=self.loss.item,
        )

    @cached_property
    def seen(self) -> dict[str, ImageDigests | None]:
        """Field of a bundle -> digests of the images that it was trained or validated on.

        They are those of this training and of the bundle that it started from; None if the latter are not known.
        """
        seen: dict[str, ImageDigests | None] = {}
        for name, samples in (("trained_on", self.train), ("validated_on", self.val)):
            digests = self.contents.reference_digests(samples)
            seen[name] = ImageDigests.of(digests, [sample.window for sample in samples])
        if self.init_spec is None:
            return seen
        return joined(seen, {name: getattr(self.init_spec, name) for name in seen})


def joined(
    seen: Mapping[str, ImageDigests | None], other: Mapping[str, ImageDigests | None]
) -> dict[str, ImageDigests | None]:
    """Return the digests of two `TrainingPlan.seen` together; None for a field that one of them does not know."""
    both: dict[str, ImageDigests | None] = {}
    for name, digests in seen.items():
        others = other[name]
        both[name] = digests and others and digests.joined(others)
    return both


def plan_run(
    config: TrainConfig,
    registry: Registry,
    callback: Callback | None = None,
    *,
    dataset: Dataset | None = None,
    loss: Loss | MaskLoss | None = None,
    resumed_spec: ModelSpec | None = None,
    own_bundle: Path | None = None,
) -> TrainingPlan:
    """Plan the training that a config describes: read its data, and choose the settings that it leaves open.

    Nothing is written except the cache of a data set, which keeps what was read of its images.

    Args:
        config: the settings.
        registry: what is installed.
        callback: told how much of the data was read.
        dataset: the samples; by default those of the config's folder.
        loss: what is minimised, in place of the loss that the config names.
        resumed_spec: the spec of a resumed run, whose statistics are used; of a new run None, which computes them.
        own_bundle: the bundle of a resumed run, which is read instead of that of --init; None if it has none.

    Raises:
        ConfigError: the settings do not suit each other or the data.
        SimMATError: names, data or weights are wrong.
    """
    callback = callback or Callback()
    # the network, as far as it needs no data
    found_loss = _find_loss(config, registry, loss, resumed=resumed_spec is not None)
    network, foundation, init_spec = choose_network(
        config, registry, own_bundle=own_bundle, fetch=resumed_spec is None
    )
    size = network["image_size"] or foundation.image_size
    from_random = config.from_scratch or (
        init_spec is not None and init_spec.foundation_sha256 is None
    )
    weights = None if from_random else find_weights(foundation, config.checkpoint)
    # the data
    adapter = _sensor(config, registry, resumed_spec)
    # a given data set stays as it is, a resumed run has what was chosen, and a loss of whole images takes no windows
    chooses_crop = (
        dataset is None and resumed_spec is None and not found_loss.whole_images
    )
    if dataset is None:
        dataset = open_data(config, registry, adapter)
    # raises DataError without validation samples, before all files are read
    dataset.split("val")

    callback.preparing("data", len(dataset.samples))
    index = read_index(dataset, callback.advanced)
    crop_reason = ""
    if chooses_crop:
        config, index, crop_reason = _choose_crop(
            config, registry, adapter, index, size
        )
    dataset = index.dataset
    # what validation needs, before the run's folder is made
    if resumed_spec is None:
        if not index.with_regions(dataset.split("val"), "validation"):
            raise nothing_to_score(dataset, dataset.split("val"))
        # raises ConfigError if the protocol does not suit the network's input
        grid_hw(Letterbox((1, 1), size, "stretch"), find_protocol(config.protocol))
    train = subset_of(index.training_samples(), config)
    epoch_samples = index.windows_to_draw(train)

    chosen = {**network, "heads": _heads(config, foundation, dataset, resumed_spec)}
    if loss is not None:
        chosen["loss"] = "custom"
    config = config.model_copy(update=chosen)

    # the network, with what is measured in the data
    spec = network_spec(
        config,
        registry,
        index,
        train,
        foundation,
        weights,
        adapter,
        resumed_spec,
        init_spec,
    )
    if init_spec is not None:
        check_init(config, init_spec, spec)
    parts = find_parts(spec, registry, weights)
    # validation, and the number of steps
    val = validation_subset(index, config, spec)
    val_share = prompted_share(index, val)
    work = work_of_validation(index, val, config, spec)
    length = find_length(config, len(epoch_samples), len(val), work)
    if config.epochs is None:
        config = config.model_copy(update={"steps": length.steps_setting})
    notes = [
        crop_reason,
        *notes_on_data(config, index, train, val),
        settings_note(config, size, parts),
        index.shrunk_warning(train, size),
        rate_warning(config, parts),
        length.note,
        share_note(index, val, val_share),
    ]
    if config.keep is None:
        keep = "best"
        if resumed_spec is None and len(val) < MIN_TO_CHOOSE:
            keep = "last"
            notes.append(
                f"Validation has {len(val)} of {len(dataset.samples)} labelled images, too few to choose a step by: "
                "the bundle gets the last weights (--keep best chooses), and the score of so few is a first impression."
            )
        config = config.model_copy(update={"keep": keep})
    return TrainingPlan(
        config=config,
        dataset=dataset,
        contents=index.contents,
        train=train,
        epoch_samples=epoch_samples,
        val=val,
        val_every=length.val_every,
        val_share=val_share,
        spec=spec,
        parts=parts,
        pipeline=Pipeline(dataset.adapter, spec.channels, size, config.aspect),
        loss=found_loss,
        steps=length.steps,
        open_end=length.open_end,
        warmup=length.warmup,
        peak_rate=parts.learning_rate if config.lr is None else config.lr,
        notes=tuple(filter(None, notes)),
        init_spec=init_spec,
        inputs=index.input_contract(train),
    )


def _heads(
    config: TrainConfig,
    foundation: FoundationSpec,
    dataset: Dataset,
    resumed_spec: ModelSpec | None,
) -> str:
    """Return the heads of a network; "auto" has a dense one if every object is marked, and on resume if it had one."""
    if config.heads != "auto":
        return config.heads
    if resumed_spec is not None:
        has_dense = resumed_spec.dense is not None
    else:
        has_dense = foundation.dense_head and dataset.card.zero_means != "unlabelled"
    if has_dense:
        return "prompt,dense"
    return "prompt"


def _find_loss(
    config: TrainConfig,
    registry: Registry,
    given: Loss | MaskLoss | None,
    *,
    resumed: bool,
) -> Loss:
    """Return the loss that a config names, or the one that was given in Python."""
    named = config.loss != "custom"
    if given is None and not named:
        raise ConfigError(
            f"loss = 'custom' in {config.out / 'config.toml'} stands for a function; pass it in Python, to "
            "simmat.train(loss=…) or simmat.training.resume(loss=…)"
        )
    if given is not None and named and resumed:
        raise ConfigError(
            f"the run in {config.out} was started with the loss {config.loss!r}, and a run keeps its loss; "
            "leave loss=… out, or start a new run with simmat.train(loss=…)"
        )
    if given is None:
        loss: Loss = import_from_string(registry.loss(config.loss).build)(config.data)
        return loss
    if isinstance(given, Loss):
        return given
    return PromptLoss(given)


def open_data(
    config: TrainConfig, registry: Registry, adapter: ModalityAdapter | None = None
) -> Dataset:
    """Open the data set of a config as `train` does; None takes the sensor of the config."""
    dataset = open_dataset(
        config.data, adapter or _sensor(config, registry, None), config.card_overrides()
    )
    if config.paste:
        check_repeats(config.paste, dataset.card, dataset.root)
    if config.fold is not None:
        dataset = dataset.with_fold(*fold_of(config.fold))
    return dataset


def _choose_crop(
    config: TrainConfig,
    registry: Registry,
    adapter: ModalityAdapter,
    index: DataIndex,
    input_side: int,
) -> tuple[TrainConfig, DataIndex, str]:
    """Choose the windows of a training, where neither config nor card states them.

    Returns:
        The config and the index with them, and the reason; "" if they are stated.
    """
    if index.dataset.card.crop is not None or config.protocol == "simmat-compat":
        return config, index, ""
    crop, reason = index.choose_crop(index.training_samples(), input_side)
    if not crop:
        return config, index, reason
    config = config.model_copy(update={"crop": crop})
    dataset = open_data(config, registry, adapter)
    # no image is larger than a window: these are the same samples with the same labels
    if dataset.samples == index.dataset.samples:
        return config, index.with_card(dataset.card), reason
    # each window is a sample of its own
    return config, read_index(dataset), reason


def check_out_outside_data(config: TrainConfig) -> None:
    """Check that a run's folder is not among the images, masks or annotations of its data set."""
    for name in (IMAGES, FRAMES, MASKS, ANNOTATIONS):
        if config.out.is_relative_to(config.data / name):
            raise ConfigError(
                f"--out {config.out} is in {name}/ of the data set and would be read as part of it; choose a folder "
                f"outside of {config.data / name}"
            )


def _sensor(
    config: TrainConfig, registry: Registry, resumed_spec: ModelSpec | None
) -> ModalityAdapter:
    """Return the sensor; a resumed run without its `sensor.toml` uses the description in its spec."""
    files = [
        Path(part) for part in modality_parts(config.modality) if is_sensor_file(part)
    ]
    if resumed_spec is not None and not all(file.exists() for file in files):
        return registry.modality(
            resumed_spec.modality,
            resumed_spec.modality_options,
            channels=resumed_spec.selected_channels,
            sensor_definitions=resumed_spec.sensor_definitions,
        )
    return registry.modality(
        config.modality, config.modality_options, channels=config.channels
    )


def subset_of(samples: Sequence[Sample], config: TrainConfig) -> tuple[Sample, ...]:
    """Return the training samples selected by `train_images` or `train_share`, in the order of the data set.

    They are the first by sha256 of seed and id: the same for every network trained with that seed, and a smaller
    subset is part of a larger one.
    """
    count = len(samples)
    if config.train_share is not None:
        # 0.1 of 30 is 3 in spite of rounding
        count = max(math.ceil(config.train_share * count - 1e-9), 1)
    if config.train_images is not None:
        count = config.train_images
    if count > len(samples):
        raise ConfigError(
            f"--train-images {count} is more than the {len(samples)} training samples with a region in {config.data}; "
            f"use at most {len(samples)}, or leave it out"
        )
    return draw_samples(samples, count, config.seed)


_SLOW_FOR_RANDOM = 1e-4
"""A peak learning rate below this is meant for pretrained weights."""


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

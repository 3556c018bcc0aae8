"""Prepare a run before its first step: data, statistics, the training subset and the network's spec."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simmat.bundle import BundleSpec, ImageDigests
from simmat.callbacks import Callback
from simmat.config import TrainConfig, default_steps
from simmat.data.augment import Augmentation
from simmat.data.batches import TrainingItems
from simmat.data.copy_paste import check_repeats
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.fingerprint import DatasetDigest
from simmat.data.formats.coco import ANNOTATIONS
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.formats.frames import FRAMES
from simmat.data.index import DataIndex, neighbour_warning, normalized_warning, read_index
from simmat.data.pipeline import Pipeline
from simmat.data.samples import Sample
from simmat.errors import ConfigError
from simmat.evaluation import find_protocol
from simmat.evaluation.job import nothing_to_score
from simmat.evaluation.protocol import grid_hw
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.model import Parts, find_parts
from simmat.model_spec import MEASURED_FIELDS, DenseSpec, ModelSpec, as_json, complete_options
from simmat.nn.losses import Loss, MaskLoss, PromptLoss
from simmat.plugin_specs import FoundationSpec, import_from_string
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, options_of
from simmat.sensors.normalize import fit_channels, zero_shot_map
from simmat.sensors.options import is_sensor_file, modality_parts
from simmat.sensors.sensor_toml import sensor_definitions_of
from simmat.training.compatibility import MEASURED_WITH_WEIGHTS, check_start, read_start, with_network_of
from simmat.training.subsets import subset_of, validation_interval, validation_subset
from simmat.types import Letterbox


@dataclass(frozen=True)
class TrainingPlan:
    """A prepared run.

    Attributes:
        config: the resolved config.
        contents: digests of its files, compared on resume.
        train: training samples, each with a region.
        val: samples of every validation of the run: those of the split, or some of them, see `validation_subset`.
        val_every: steps between validations.
        spec: spec of the network.
        steps: total optimiser steps.
        start: the spec of the bundle that the run starts from; of a resumed run, its own bundle's.
    """

    config: TrainConfig
    dataset: Dataset
    contents: DatasetDigest
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    val_every: int
    spec: ModelSpec
    parts: Parts
    pipeline: Pipeline
    steps: int
    notes: tuple[str, ...] = ()
    start: BundleSpec | None = None

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up: from the config, by default 5 % of the run, at most 100."""
        given = self.config.warmup_steps
        return given if given is not None else min(self.steps // 20, 100)

    def items(self, loss: Loss | None = None) -> TrainingItems:
        """Return the run's stream of training items, with what the loss needs to know of each."""
        loss = loss or PromptLoss()
        config = self.config
        augmentation = Augmentation(rotate=config.rotate, paste=config.paste) if config.augment else Augmentation.none()
        if loss.whole_images:
            augmentation = replace(augmentation, flip=False, rotate=False, scale=(1, 1), paste=0)
        return TrainingItems(
            dataset=self.dataset,
            samples=self.train,
            pipeline=self.pipeline,
            augmentation=augmentation,
            prompts=config.prompts_per_image,
            clicks=config.clicks,
            batch_size=config.batch_size,
            seed=config.seed,
            dense=self.spec.dense,
            extra=loss.item,
        )

    @cached_property
    def seen(self) -> dict[str, ImageDigests | None]:
        """The images of training and validation, and those of the bundle it started from, as a bundle records them."""
        seen = {
            name: ImageDigests.of(self.contents.reference_digests(samples), [sample.window for sample in samples])
            for name, samples in (("trained_on", self.train), ("validated_on", self.val))
        }
        if self.start is None:
            return seen
        return joined(seen, {name: getattr(self.start, name) for name in seen})


def joined(
    seen: Mapping[str, ImageDigests | None], other: Mapping[str, ImageDigests | None]
) -> dict[str, ImageDigests | None]:
    """Return the images of both, see `TrainingPlan.seen`; None where one is not known."""
    pairs = {name: (own, other[name]) for name, own in seen.items()}
    return {name: own and another and own.joined(another) for name, (own, another) in pairs.items()}


_SLOW_FOR_RANDOM = 1e-4
"""A peak learning rate below this is meant for pretrained weights."""


def _notes(
    config: TrainConfig, index: DataIndex, train: Sequence[Sample], val: int, size: int, parts: Parts
) -> Iterator[str]:
    """Yield what a user should know before the first step."""
    yield index.dataset.split_note
    yield index.dataset.skipped_note
    yield index.contents.shared_warning()
    yield neighbour_warning(index)
    yield normalized_warning(index)
    yield index.joined_note(train)
    count, every = len(train), len(index.training_samples())
    if count != every:
        yield f"{count} of {every} training samples are used, drawn by seed {config.seed}."
    if val != (every := len(index.dataset.split("val"))):
        why = "" if config.val_images else ", enough to compare the steps (--val-images sets how many)"
        yield f"Validation uses {val} of {every} samples, drawn by seed {config.seed}{why}; `simmat eval` scores all."
    yield index.shrunk_warning(train, size)
    starts_random = parts.weights is None or not parts.foundation.promptable
    if config.lr is None and starts_random and parts.learning_rate < _SLOW_FOR_RANDOM:
        yield (
            f"Warning: the decoder of '{config.foundation}' starts from random weights, and the learning rate of "
            f"--tune {config.tune}, {parts.learning_rate:g}, is meant for pretrained weights; try --lr 1e-3"
        )


def prepare(
    config: TrainConfig,
    registry: Registry,
    callback: Callback,
    *,
    known: ModelSpec | None = None,
    own: Path | None = None,
) -> TrainingPlan:
    """Open the data, compute its statistics and make the network's spec.

    Args:
        known: the saved spec of a resumed run, whose statistics are used; None computes them.
        own: the bundle of a resumed run, which is read in place of that of --init; None if it has none.
    """
    config, foundation, start = choose_network(config, registry, own=own, fetch=known is None)
    layer, tuner = registry.transfer_layer(config.mat or foundation.mat), registry.tuner(config.tune or foundation.tune)
    size = config.image_size or foundation.image_size
    weights = None if config.from_scratch else find_weights(foundation, config.checkpoint)
    adapter = _sensor(config, registry, known)
    dataset = open_data(config, registry, adapter)
    dataset.split("val")  # refused before all files are read
    if config.heads == "auto":  # a resumed run keeps those that it has
        marked = foundation.dense_head and dataset.card.zero_means != "unlabelled"
        dense = marked if known is None else known.dense is not None
        config = config.model_copy(update={"heads": "prompt,dense" if dense else "prompt"})
    callback.preparing("data", len(dataset.samples))
    index = read_index(dataset, callback.advanced)
    dataset = index.dataset
    every = index.training_samples()
    if known is None:  # check what validation needs before the run's folder is made
        if not index.with_regions(dataset.split("val"), "validation"):
            raise nothing_to_score(dataset, dataset.split("val"))
        grid_hw(Letterbox((1, 1), size, "stretch"), find_protocol(config.protocol))
    train = subset_of(every, config)
    contents = index.contents
    digest = None
    if weights is not None:
        digest = sha256_of(weights)
        if config.checkpoint is None:  # else the user gave the file
            check_digest(foundation, weights, digest)
    measured = (
        known.model_dump(include=set(MEASURED_FIELDS)) if known else _measured_fields(config, foundation, index, train)
    )
    if start is not None and not config.new_sensor:
        measured |= {name: getattr(start, name) for name in MEASURED_WITH_WEIGHTS}
    spec = ModelSpec(
        modality=dataset.adapter.name,
        modality_options=options_of(adapter),
        selected_channels=config.channels,
        sensor_channels=dataset.loaded_channels,
        foundation=config.foundation,
        foundation_sha256=digest,
        seed=config.seed,
        image_size=size,
        aspect=config.aspect,
        mat=layer.name,
        mat_options=as_json(complete_options(layer, config.mat_options)),
        tune=tuner.name,
        tune_options=as_json(complete_options(tuner, config.tune_options)),
        card=dataset.card.model_copy(update={"class_names": dict(sorted(dataset.class_names.items()))}),
        sensor_definitions=sensor_definitions_of(dataset.adapter),
        **measured,
    )
    if start is not None:
        check_start(config, start, spec)
    parts = find_parts(spec, registry, weights)
    pipeline = Pipeline(dataset.adapter, spec.channels, size, config.aspect)
    if config.epochs is not None:
        steps = max(math.ceil(config.epochs * len(train) / config.batch_size), 1)
    else:
        steps = config.steps or default_steps(len(train))
        config = config.model_copy(update={"steps": steps})
    val = validation_subset(index, config, spec)
    notes = tuple(filter(None, _notes(config, index, train, len(val), size, parts)))
    val_every = validation_interval(index, val, config, spec, steps)
    return TrainingPlan(config, dataset, contents, train, val, val_every, spec, parts, pipeline, steps, notes, start)


def find_loss(config: TrainConfig, registry: Registry, given: Loss | MaskLoss | None = None) -> Loss:
    """Return the loss that a config names, or for "custom" the one given in Python.

    Raises:
        ConfigError: the config names one and another is given, or it is custom and none is given.
        SimMATError: there is none of that name, or what it needs is not in the data set.
    """
    if (config.loss == "custom") != (given is not None):
        raise ConfigError(
            f"loss = {config.loss!r} in {config.out / 'config.toml'}: 'custom' stands for a function, which "
            "simmat.train(loss=…) and simmat.training.resume(loss=…) take in Python; it cannot be named otherwise"
        )
    if given is None:
        loss: Loss = import_from_string(registry.loss(config.loss).build)(config.data)
        return loss
    return given if isinstance(given, Loss) else PromptLoss(given)


def choose_network(
    config: TrainConfig, registry: Registry, *, own: Path | None = None, fetch: bool = True
) -> tuple[TrainConfig, FoundationSpec, BundleSpec | None]:
    """Choose foundation model, transfer layer and tuner, and check their names and options; this needs no data.

    Returns:
        The config with what it left open, its foundation model, and the bundle that a training starts from.
    """
    start = read_start(config, own)
    if start is not None:
        config = with_network_of(config, start)
    elif not config.foundation:
        config = config.model_copy(update={"foundation": registry.default_foundation()})
    foundation = registry.foundation(config.foundation, fetch=fetch)
    foundation.check_image_size(config.image_size or foundation.image_size)
    layer = {"mat": foundation.mat, "mat_options": {**foundation.mat_options, **config.mat_options}}
    config = config.model_copy(
        update=(layer if config.mat is None else {}) | ({"tune": foundation.tune} if config.tune is None else {})
    )
    complete_options(registry.transfer_layer(config.mat or foundation.mat), config.mat_options)
    complete_options(registry.tuner(config.tune or foundation.tune), config.tune_options)
    return config, foundation, start


def open_data(config: TrainConfig, registry: Registry, adapter: ModalityAdapter | None = None) -> Dataset:
    """Open the data set of a config as `train` does; None takes the sensor of the config."""
    dataset = open_dataset(config.data, adapter or _sensor(config, registry, None), config.card_overrides())
    check_repeats(config.paste, dataset.card, dataset.root)
    return dataset


def check_out_outside_data(config: TrainConfig) -> None:
    """Check that a run's folder is not among the images, masks or annotations of its data set."""
    for name in (IMAGES, FRAMES, MASKS, ANNOTATIONS):
        if config.out.is_relative_to(config.data / name):
            raise ConfigError(
                f"--out {config.out} is in {name}/ of the data set and would be read as part of it; choose a folder "
                f"outside of {config.data / name}"
            )


def _sensor(config: TrainConfig, registry: Registry, known: ModelSpec | None) -> ModalityAdapter:
    """Return the sensor; a resumed run without its `sensor.toml` uses the description in its spec."""
    files = [Path(part) for part in modality_parts(config.modality) if is_sensor_file(part)]
    if known is not None and not all(file.exists() for file in files):
        return registry.modality(
            known.modality,
            known.modality_options,
            channels=known.selected_channels,
            sensor_definitions=known.sensor_definitions,
        )
    return registry.modality(config.modality, config.modality_options, channels=config.channels)


def _measured_fields(
    config: TrainConfig, foundation: FoundationSpec, index: DataIndex, train: Sequence[Sample]
) -> dict[str, Any]:
    """Return the fields of the spec that come from the training split."""
    dataset, statistics = index.dataset, index.statistics(train)
    zero, dense = dataset.card.zero_means, None
    if config.heads != "prompt":
        if zero == "unlabelled":
            raise ConfigError(
                f"--heads {config.heads} needs images in which every object is marked, but the card of {config.data} "
                "says that unmarked ones may be there (zero_means = 'unlabelled'); use --heads prompt"
            )
        dense = DenseSpec(background=zero == "background", classes=index.classes(train))
    channels = fit_channels(
        dataset.channels(), statistics, pixel_mean=foundation.pixel_mean, pixel_std=foundation.pixel_std
    )
    return {
        "dense": dense,
        "image_side": int(np.median(index.image_sides(train))),
        "channels": channels,
        "statistics": statistics,
        "zero_shot": zero_shot_map(channels, statistics, foundation.pixel_std).tolist(),
    }

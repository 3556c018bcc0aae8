"""Choose the network of a training: its parts by name, its spec, and the bundle that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simmat.assemble import check_image_size
from simmat.bundle import BundleSpec, read_bundle_spec, read_bundle_specs
from simmat.config import TrainConfig
from simmat.data.index import DataIndex
from simmat.data.samples import Sample
from simmat.errors import ConfigError
from simmat.io.weights import check_digest, sha256_of
from simmat.model_spec import (
    MEASURED_FIELDS,
    DenseSpec,
    ModelSpec,
    as_json,
    complete_options,
)
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, options_of, sensor_definitions_of
from simmat.sensors.normalize import fit_channels, zero_shot_map

_NETWORK_FIELDS = (
    "foundation",
    "mat",
    "mat_options",
    "tune",
    "tune_options",
    "image_size",
)
_WEIGHT_FIELDS = ("foundation_sha256", "sensor_channels")
_NORMALIZATION_FIELDS = ("channels", "statistics", "zero_shot")
"""Fields of a bundle's spec that a training which starts from its weights keeps, as these learned such inputs."""


def with_recommended(
    config: TrainConfig, registry: Registry, *, fetch: bool = True
) -> TrainConfig:
    """Fill in what the foundation model of a training recommends where the user has set nothing.

    Raises:
        ConfigError: a name is unknown, or a recommended setting contradicts one of the user's.
    """
    _, foundation, _ = choose_network(config, registry, fetch=fetch)
    missing = {}
    for name, value in foundation.training.items():
        if name not in config.model_fields_set:
            missing[name] = value
    if not missing:
        return config
    given = config.model_dump(exclude_unset=True)
    where = f"settings, with those that suit {foundation.name!r}"
    return TrainConfig.model_validate({**given, **missing}, context=where)


def choose_network(
    config: TrainConfig,
    registry: Registry,
    *,
    own_bundle: Path | None = None,
    fetch: bool = True,
) -> tuple[dict[str, Any], FoundationSpec, BundleSpec | None]:
    """Choose foundation model, transfer layer and tuner, and check their names and options; this needs no data.

    Args:
        config: the settings.
        registry: what is installed.
        own_bundle: the bundle of a resumed run, which is read instead of that of --init.
        fetch: whether the family of a foundation model may ask a server about it, see `Registry.foundation`.

    Returns:
        The settings of the network, setting -> value, with what the config left open; its foundation model; and the
        spec of the bundle that the training starts from, None without --init.
    """
    network = {name: getattr(config, name) for name in _NETWORK_FIELDS}
    init_spec = read_init_spec(config, own_bundle)
    if init_spec is not None:
        network |= network_of_bundle(config, init_spec)
    elif not config.foundation:
        network["foundation"] = registry.default_foundation()
    foundation = registry.foundation(network["foundation"], fetch=fetch)
    check_image_size(foundation, network["image_size"] or foundation.image_size)
    if network["mat"] is None:
        network["mat"] = foundation.mat
        network["mat_options"] = {**foundation.mat_options, **network["mat_options"]}
    if network["tune"] is None:
        network["tune"] = foundation.tune
    complete_options(registry.transfer_layer(network["mat"]), network["mat_options"])
    complete_options(registry.tuner(network["tune"]), network["tune_options"])
    return network, foundation, init_spec


def network_spec(
    config: TrainConfig,
    registry: Registry,
    index: DataIndex,
    train: Sequence[Sample],
    foundation: FoundationSpec,
    weights: Path | None,
    adapter: ModalityAdapter,
    resumed_spec: ModelSpec | None,
    init_spec: BundleSpec | None,
) -> ModelSpec:
    """Return the spec of the network, with what is measured in the training images.

    Args:
        config: the settings, with those of `choose_network`.
        registry: what is installed.
        index: the data set.
        train: the training samples, which are measured.
        foundation: the foundation model.
        weights: file of its weights; None if they are random.
        adapter: the sensor.
        resumed_spec: the spec of a resumed run, in which nothing is measured again.
        init_spec: the spec of the bundle that the training starts from.
    """
    dataset = index.dataset
    seed = config.seed
    if init_spec is not None and init_spec.foundation_sha256 is None:
        # the weights of the bundle were tuned on the random ones of that seed
        seed = init_spec.seed
    digest = None
    if weights is not None:
        digest = sha256_of(weights)
        if config.checkpoint is None:  # else the user gave the file
            check_digest(foundation, weights, digest)
    if resumed_spec is not None:
        measured = resumed_spec.model_dump(include=set(MEASURED_FIELDS))
    else:
        measured = _measured_fields(config, foundation, index, train)
    if init_spec is not None and not config.new_sensor:
        measured |= {name: getattr(init_spec, name) for name in _NORMALIZATION_FIELDS}
    layer = registry.transfer_layer(config.mat or foundation.mat)
    tuner = registry.tuner(config.tune or foundation.tune)
    return ModelSpec(
        modality=dataset.adapter.name,
        modality_options=options_of(adapter),
        selected_channels=config.channels,
        sensor_channels=dataset.loaded_channels,
        foundation=config.foundation,
        foundation_sha256=digest,
        seed=seed,
        image_size=config.image_size or foundation.image_size,
        aspect=config.aspect,
        mat=layer.name,
        mat_options=as_json(complete_options(layer, config.mat_options)),
        tune=tuner.name,
        tune_options=as_json(complete_options(tuner, config.tune_options)),
        card=dataset.card.model_copy(
            update={"class_names": dict(sorted(dataset.class_names.items()))}
        ),
        sensor_definitions=sensor_definitions_of(dataset.adapter),
        **measured,
    )


def _measured_fields(
    config: TrainConfig,
    foundation: FoundationSpec,
    index: DataIndex,
    train: Sequence[Sample],
) -> dict[str, Any]:
    """Return the fields of the spec that come from the training images."""
    dataset = index.dataset
    statistics = index.statistics(train)
    zero = dataset.card.zero_means
    dense = None
    if config.heads != "prompt":
        if zero == "unlabelled":
            raise ConfigError(
                f"--heads {config.heads} needs images in which every object is marked, but the card of {config.data} "
                "says that unmarked ones may be there (zero_means = 'unlabelled'); use --heads prompt"
            )
        dense = DenseSpec(background=zero == "background", classes=index.classes(train))
    channels = fit_channels(
        dataset.channels(),
        statistics,
        pixel_mean=foundation.pixel_mean,
        pixel_std=foundation.pixel_std,
    )
    return {
        "dense": dense,
        "image_side": int(np.median(index.image_sides(train))),
        "channels": channels,
        "statistics": statistics,
        "zero_shot": zero_shot_map(channels, statistics, foundation.pixel_std).tolist(),
    }


def read_init_spec(config: TrainConfig, own_bundle: Path | None) -> BundleSpec | None:
    """Read the spec of the bundle that a run starts from: that of --init, or of a resumed run its `own_bundle`.

    A new sensor starts from the first sensor of a bundle, on whose images the shared weights were trained.

    Raises:
        ConfigError: the bundle has a sensor of the name of the new one.
    """
    if config.init is None:
        return None
    if config.new_sensor is None:
        return read_bundle_spec(own_bundle or config.init)
    specs = read_bundle_specs(own_bundle or config.init)
    if own_bundle is None and config.new_sensor in specs:
        raise ConfigError(
            f"--init {config.init} has a sensor {config.new_sensor!r} already; give --new-sensor a name other than "
            f"{', '.join(specs)}"
        )
    return next(iter(specs.values()))


def network_of_bundle(config: TrainConfig, init_spec: BundleSpec) -> dict[str, Any]:
    """Return the settings of the network of a bundle, setting -> value, which a training that starts from it keeps.

    A new sensor may have a transfer layer of its own; its settings are then left out.

    Raises:
        ConfigError: the config names another transfer layer, tuner, foundation model or option, or weights for a bundle
            of random ones; or the bundle is exported.
    """
    if init_spec.exported is not None:
        raise ConfigError(
            f"--init {config.init} is an exported model, which cannot be trained; give the bundle from which it "
            "was made"
        )
    if init_spec.foundation_sha256 is None and config.checkpoint is not None:
        raise ConfigError(
            f"--init {config.init} was trained on random weights of {init_spec.foundation!r} (seed {init_spec.seed}), "
            "which the training keeps; leave --checkpoint out"
        )
    network = {name: getattr(init_spec, name) for name in _NETWORK_FIELDS}
    if config.new_sensor and config.mat is not None:
        del network["mat"], network["mat_options"]
    for name, value in network.items():
        given = getattr(config, name)
        # not set by the user, or set to the same
        if given in (None, "", {}, value):
            continue
        # options that the user left out are those of the bundle
        if isinstance(given, dict) and given.items() <= value.items():
            continue
        raise ConfigError(
            f"--init {config.init} has {name} = {value}, the training {name} = {given}; leave {name} out, or train "
            "without --init"
        )
    return network


def check_init(config: TrainConfig, init_spec: BundleSpec, spec: ModelSpec) -> None:
    """Check that the weights of a bundle fit the sensor and the foundation model of a training.

    Raises:
        ConfigError: they do not.
    """
    compared = ("foundation_sha256",) if config.new_sensor else _WEIGHT_FIELDS
    for name in compared:
        if getattr(init_spec, name) != getattr(spec, name):
            raise ConfigError(
                f"the training differs from --init {config.init} in {name.replace('_', ' ')}; use data of the same "
                "sensor and the same foundation weights, give --new-sensor NAME for another sensor, or train "
                "without --init"
            )

"""Find a bundle, read it, and build its network; refuse what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from simmat.assemble import (
    Parts,
    TooLargeError,
    assemble_on,
    find_parts,
    foundation_of,
    outline,
)
from simmat.bundle.format import (
    FILE_NAME,
    BundleSpec,
    Sensors,
    Tensors,
    check_tensors,
    load_tensors,
    read_file,
    sensors_of,
)
from simmat.config import BUNDLE_ELSEWHERE
from simmat.data.pipeline import Pipeline
from simmat.errors import BundleError, ConfigError, UnknownNameError
from simmat.io.paths import missing
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.model import SimMAT
from simmat.model_spec import ModelSpec
from simmat.plugin_specs import FoundationSpec, FunctionSpec
from simmat.plugins.loader import installed
from simmat.plugins.registry import Registry, import_from_string
from simmat.sensors.adapter import ModalityAdapter, options_of, with_data_card
from simmat.sensors.normalize import describe
from simmat.sensors.options import options_by_sensor
from simmat.sensors.warp import Alignment
from simmat.types import Channel, same_channels

_Value = TypeVar("_Value")
_CALLS_PER_TENSOR = 100
_CALLS = 20_000
"""Calls of torch to build a network, at most: for each tensor of the bundle, and for the foundation model's layers."""


def read_sensors(source: Path | str) -> Sensors:
    """Read name -> spec and tensors of each sensor of a bundle, or of the one that `source` names.

    An exported model has no tensors.

    Args:
        source: as `local_path` takes it.

    Raises:
        BundleError: there is no bundle, it is damaged, of a newer format, or has no such sensor.
    """
    place, sensor = locate(local_path(source))
    document, tensors = read_file(place)
    sensors = sensors_of(place, document, tensors)
    if not sensor:
        return sensors
    if sensor not in sensors:
        raise BundleError(
            f"{place} holds no sensor {sensor!r}, but {', '.join(sensors)}"
        )
    return {sensor: sensors[sensor]}


def read_bundle(source: Path | str) -> tuple[BundleSpec, Tensors]:
    """Read spec and tensors of a bundle of one sensor, or of the one that `source` names; see `read_sensors`."""
    return single_sensor(read_sensors(source), source)


def read_bundle_specs(source: Path | str) -> dict[str, BundleSpec]:
    """Read name -> spec of each sensor of a bundle, which is checked as a whole; see `read_sensors`."""
    return {name: spec for name, (spec, _) in read_sensors(source).items()}


def read_bundle_spec(source: Path | str) -> BundleSpec:
    """Read the spec of a bundle of one sensor, or of the one that `source` names; see `read_sensors`."""
    return single_sensor(read_bundle_specs(source), source)


def single_sensor(sensors: Mapping[str, _Value], source: Path | str) -> _Value:
    """Return what a bundle has for its sensor; BundleError if there are several, and none was named."""
    if len(sensors) > 1:
        named = ", ".join(f"{source}/{name}" for name in sensors)
        raise BundleError(
            f"{source} holds several sensors; append the name of one: {named}"
        )
    return next(iter(sensors.values()))


def locate(path: Path) -> tuple[Path, str]:
    """Return the file of a bundle, and the name of the sensor behind it, "" if there is none.

    RUN stands for RUN/bundle.safetensors, and RUN/SENSOR/bundle.safetensors for RUN/SENSOR.

    Raises:
        BundleError: there is no bundle.
    """
    short = path
    if path.name == FILE_NAME and not path.exists():
        short = path.parent
    for place, sensor in ((short, ""), (short.parent, short.name)):
        found = find_bundle(place)
        if found is not None:
            return found, sensor
    if path.is_dir():
        runs = sorted(path.glob(f"*/{FILE_NAME}"))
        if runs:
            named = ", ".join(str(run.parent) for run in runs)
            raise BundleError(
                f"{path} is not a bundle, but a folder of runs; use the bundle of one: {named}"
            )
    raise BundleError(
        f"{missing(path, 'bundle')}; give the folder of a run, or its {FILE_NAME}"
    )


def find_bundle(path: Path) -> Path | None:
    """Return the file of the bundle that a path stands for; None if there is none."""
    if path.exists() and not path.is_dir():
        return path
    if (path / FILE_NAME).exists():
        return path / FILE_NAME
    return None


def local_path(source: Path | str) -> Path:
    """Return the path of a bundle, with that of a sensor behind it; one from elsewhere is fetched by a plugin.

    Args:
        source: a file, the folder of a run, or what an installed bundle source fetches, such as hf://ORG/NAME. The
            name of one of several sensors may follow: RUN/SENSOR.

    Raises:
        ConfigError: nothing that is installed fetches it.
        SimMATError: it cannot be fetched.
    """
    if not str(source).strip():
        raise ConfigError(
            f"a bundle is the folder of a run, or its {FILE_NAME}, got {str(source)!r}"
        )
    path = Path(source)
    if not BUNDLE_ELSEWHERE.match(path.as_posix()):
        return path
    place = re.sub(r"^(\w+:)/+", r"\1//", path.as_posix())  # a path has one slash
    for found in bundle_sources():
        if place.startswith(f"{found.name}:"):
            fetched: Path = import_from_string(found.function)(place)
            return fetched
    known = ", ".join(f"{found.name}:…" for found in bundle_sources()) or "nothing"
    raise ConfigError(
        f"{place} is not a file on this machine, and no installed plugin fetches it (they fetch {known}); "
        "download it first, or "
        "install the plugin for it, see the list of packages in SimMAT's README"
    )


def bundle_sources() -> list[FunctionSpec]:
    """Return what fetches bundles from elsewhere."""
    return installed().all("bundle source")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        spec: the content of its json.
        model: the tuned network, in eval mode.
        path: where it was read.
        modality: the sensor's adapter with the options of training but no data card, since another data set has its
            own.
    """

    spec: BundleSpec
    model: SimMAT
    pipeline: Pipeline
    parts: Parts
    path: Path
    modality: ModalityAdapter

    def __repr__(self) -> str:
        """Name where it is and what it is made of, not its weights."""
        spec = self.spec
        return f"<Bundle {self.path}: {spec.modality}, {spec.mat} and {spec.tune} on {spec.foundation}>"

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor, with the data card of training."""
        return self.pipeline.adapter

    def check_device(self, device: str | None) -> None:
        """Raise ConfigError for an exported model and any other device than the CPU; None and "auto" are any."""
        if self.spec.exported is not None and device not in (None, "auto", "cpu"):
            raise ConfigError(
                f"{self.path} is an exported model, which runs on the CPU; leave --device {device} out"
            )


def check_sensor_channels(
    spec: ModelSpec, channels: tuple[Channel, ...], origin: str, path: Path
) -> None:
    """Raise BundleError for channels of another name, quantity or unit than those of training."""
    expected = spec.sensor_channels
    if same_channels(expected, channels):
        return
    only_picked = len(channels) == len(spec.channels) < len(expected)
    if spec.selected_channels is not None and only_picked:
        picks = ",".join(map(str, spec.selected_channels))
        raise BundleError(
            f"{origin}: has {len(channels)} channels, {describe(channels)}, but {path} was trained with --channels "
            f"{picks} on files of {len(expected)}, {describe(expected)}. This file does not say whether its "
            f"channels are the selected ones: give a file of all {len(expected)} (the others may be 0), or "
            "train without "
            "--channels on files like this one"
        )
    raise BundleError(
        f"{origin}: channels are {describe(channels)}, but {path} was trained on {describe(expected)}; "
        "state their unit with --modality-option, use files of the same sensor, or train a bundle for these"
    )


def load_bundle(
    path: Path,
    registry: Registry,
    *,
    foundation: str | None = None,
    checkpoint: Path | None = None,
    modality_options: Mapping[str, Any] | None = None,
    alignment: Mapping[str, Alignment] | None = None,
    device: str | torch.device = "cpu",
) -> Bundle:
    """Load a bundle and its foundation model, or an exported model.

    Args:
        path: the folder of a run or its bundle, followed by the name of a sensor if it holds several; anything else
            that `simmat.bundle.local_path` takes; or the folder of an exported model, which brings all weights.
        foundation: the name of its foundation model on this machine; the weights must be the same, bit for bit. None
            takes the name in the bundle, for which no server is asked.
        checkpoint: the foundation model's weight file; None looks in the cache and the packages.
        modality_options: options of the sensor in place of those of training, as of files in another unit.
        alignment: source -> where it lies on the grid of another, in place of what the training's card states.

    Raises:
        BundleError: it is damaged, of a newer format, or its tensors do not fit.
        UnknownNameError: its modality, foundation model, transfer layer or tuner is not installed.
        WeightsError: the foundation weights are missing, or not those of training.
        ConfigError: `foundation` or `checkpoint` is given for a bundle with random foundation weights, or for an
            exported model; or the sensor has no such option.
    """
    path = local_path(path)
    spec, tensors = read_bundle(path)
    if alignment is not None:
        aligned = spec.card.model_copy(update={"alignment": alignment})
        spec = spec.model_copy(update={"card": aligned})
    if spec.exported is not None and (foundation, checkpoint) != (None, None):
        raise ConfigError(
            f"{path} is an exported model, which holds all weights; leave --foundation and --checkpoint out"
        )
    if foundation not in (None, spec.foundation):
        if spec.foundation_sha256 is None:
            raise ConfigError(
                f"{path} was trained on random weights of {spec.foundation!r} (seed {spec.seed}), so SimMAT "
                f"cannot check whether {foundation!r} is the same model; leave --foundation out"
            )
        spec = spec.model_copy(update={"foundation": foundation})
    sensor = _sensor(spec, registry, path)
    card = spec.card.model_dump()
    adapter = with_data_card(sensor, card)
    if modality_options:
        names = [part.name for part in adapter.sensors()]
        given = options_by_sensor(modality_options, names)
        adapter = adapter.with_options(given).configured(card)
        spec = spec.model_copy(update={"modality_options": options_of(adapter)})
    if spec.exported is not None:
        parts = _parts_of_exported(spec, registry)
        model = _load_exported(path, spec.exported, registry)
    else:
        file = _foundation_weights(
            path, spec, registry, checkpoint, named=foundation is not None
        )
        with _named_packages(path, spec):
            parts = find_parts(spec, registry, file)
        model = _build(spec, parts, tensors, path).to(device).eval()
    pipeline = Pipeline(adapter, spec.channels, spec.image_size, spec.aspect)
    return Bundle(spec, model, pipeline, parts, path, sensor)


def _load_exported(path: Path, name: str, registry: Registry) -> SimMAT:
    """Load an exported model from the files beside its bundle."""
    place, _ = locate(path)
    folder = place if place.is_dir() else place.parent
    model: SimMAT = import_from_string(registry.get("model format", name).function)(
        folder
    )
    return model


def _parts_of_exported(spec: ModelSpec, registry: Registry) -> Parts:
    """Return parts of which the foundation model, which need not be installed, is a name."""
    foundation = FoundationSpec(
        spec.foundation, "exported", "", spec.image_size, 1, (0.0,) * 3, (1.0,) * 3
    )
    return Parts(
        foundation,
        registry.transfer_layer(spec.mat),
        registry.tuner(spec.tune),
        None,
        exported=True,
    )


def _sensor(spec: BundleSpec, registry: Registry, path: Path) -> ModalityAdapter:
    try:
        with _named_packages(path, spec):
            return registry.modality(
                spec.modality,
                spec.modality_options,
                channels=spec.selected_channels,
                sensor_definitions=spec.sensor_definitions,
            )
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{path} was trained on a sensor that is not installed: {error}. If it is your own class, as in a "
            f"notebook, use simmat.load({str(path)!r}, modality=THE_CLASS) in Python; for commands, make it a "
            "plugin, see the page 'Your sensor in ten minutes' of SimMAT's documentation"
        ) from error


@contextmanager
def _named_packages(path: Path, spec: BundleSpec) -> Iterator[None]:
    """Add to the error for a part that is not installed which packages the bundle was trained with."""
    try:
        yield
    except UnknownNameError as error:
        recorded = [
            f"{package.distribution} {package.version}" for package in spec.packages
        ]
        if not recorded:
            raise
        listed = ", ".join(dict.fromkeys(recorded))
        raise UnknownNameError(
            f"{error}. According to the file, {path} was trained with {listed}"
        ) from error


def _build(
    spec: ModelSpec, parts: Parts, tensors: Mapping[str, Tensor], path: Path
) -> SimMAT:
    """Build the network and fill it; its sizes are checked first, since the spec may come from someone else."""
    foundation = foundation_of(spec, parts)
    try:
        sizes = outline(
            foundation, spec, parts, _CALLS_PER_TENSOR * len(tensors) + _CALLS
        )
    except TooLargeError as error:
        raise BundleError(
            f"the weights in {path} do not fit its json: {error}; copy the bundle again"
        ) from error
    if sizes is not None:
        check_tensors(sizes, tensors, str(path))
    model = assemble_on(foundation, spec, parts)
    load_tensors(model, tensors, str(path))
    return model


def _foundation_weights(
    path: Path,
    spec: BundleSpec,
    registry: Registry,
    checkpoint: Path | None,
    *,
    named: bool,
) -> Path | None:
    """Return the checked weight file of the foundation model; None if its weights are random.

    `named`: the user has named the model, so a server may be asked about it.
    """
    if spec.foundation_sha256 is None and checkpoint is not None:
        raise ConfigError(
            f"{path} was trained on random weights (seed {spec.seed}); it takes no --checkpoint"
        )
    try:
        with _named_packages(path, spec):
            model = registry.foundation(spec.foundation, fetch=named)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"the foundation model of {path} is not installed: {error}. If it has another name here, give it with "
            "--foundation NAME"
        ) from error
    if spec.foundation_sha256 is None:
        return None
    file = find_weights(model, checkpoint)
    if file is None:
        raise BundleError(
            f"{path} needs a weight file of {spec.foundation!r}, but that model has none"
        )
    found = sha256_of(file)
    if found != spec.foundation_sha256:
        if checkpoint is None:
            check_digest(model, file, found)
        raise BundleError(
            f"{path} was trained on {spec.foundation!r} weights with sha256 {spec.foundation_sha256[:12]}…, "
            f"but {file} has {found[:12]}…; give the right file with --checkpoint"
        )
    return file

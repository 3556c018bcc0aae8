"""Loading a bundle: the tuned network, ready to use, or a refusal of what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simmat.bundle.document import BundleSpec, check_weights, read_spec
from simmat.bundle.files import JSON_NAME, WEIGHTS_NAME, bundle_folder, load_tensors, read_tensors
from simmat.data.pipeline import Pipeline
from simmat.errors import BundleError, ConfigError, UnknownNameError
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.model import Parts, SimMAT, assemble, find_parts
from simmat.model_spec import ModelSpec
from simmat.nn.allocation import Room, TooLargeError
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, fitted_to_card
from simmat.sensors.composition import SelectedChannels
from simmat.sensors.declaration import Declaration
from simmat.sensors.declared import DeclaredModality
from simmat.sensors.normalize import describe
from simmat.types import Channel, SensorImage, same_channels

_TIMES_OVER, _CALLS_EACH = 8, 20
"""How often a network's bytes may be made over while it is built (drawn, converted, brought to another size), and how
many tensors may be made for each of a bundle's."""
_ROOM, _ROOM_WITHOUT_FILE = Room(2**30, 2**17), Room(2**33, 2**17)
"""What building may take besides; of a random foundation model no file tells the size."""
_ROOM_OWN_TENSORS = 1000


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, ready to use.

    Attributes:
        spec: what it says of itself.
        model: the tuned network, in eval mode.
        pipeline: image in physical units -> network input.
        parts: the installed parts that the network was built of.
        path: where it was read.
        sensor: with the options it was trained with, before any data card; another data set has a card of its own.
    """

    spec: BundleSpec
    model: SimMAT
    pipeline: Pipeline
    parts: Parts
    path: Path
    sensor: ModalityAdapter

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor."""
        return self.pipeline.adapter

    def check_image(self, image: SensorImage) -> None:
        """Raise BundleError where an image's channels are not those the bundle was trained on."""
        check_sensor_channels(self.spec, image.channels, image.origin, self.path)


def adapter_for(
    registry: Registry,
    modality: str,
    picks: tuple[str | int, ...] | None,
    described: Iterable[Declaration] = (),
    *,
    options: Mapping[str, Any] | None = None,
) -> ModalityAdapter:
    """Return the adapter of a modality name with its options, limited to the picked channels.

    `described` are the sensors that a bundle carries.
    """
    adapter = registry.modality(
        modality, options, described={declaration.name: DeclaredModality(declaration) for declaration in described}
    )
    return SelectedChannels(adapter, picks) if picks is not None else adapter


def check_sensor_channels(spec: ModelSpec, channels: tuple[Channel, ...], origin: str, path: Path) -> None:
    """Refuse channels of another name, quantity or unit, naming both sides."""
    expected = spec.sensor_channels
    if not same_channels(expected, channels):
        raise BundleError(
            f"{origin}: channels are {describe(channels)}, but {path} was trained on {describe(expected)}; "
            "use files of the same sensor and unit, or train a bundle for these"
        )


def load_bundle(
    path: Path,
    registry: Registry,
    *,
    foundation: str | None = None,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
) -> Bundle:
    """Load a bundle and the foundation model it stands on.

    Args:
        path: the bundle's folder, or a zip that holds it.
        registry: where its modality, foundation model, transfer layer and tuner are found.
        foundation: the name its foundation model has here, where that name says a place; the weights must be those
            it was trained on, bit for bit. None takes the name it was trained with.
        checkpoint: the foundation model's weight file; None looks in the cache and the packages.
        device: where the network goes.

    Raises:
        BundleError: it is damaged, of a newer format, or its tensors do not fit.
        UnknownNameError: its modality, foundation model, transfer layer or tuner is not installed.
        WeightsError: the foundation weights are missing, or not those it was trained on.
        ConfigError: `foundation` or `checkpoint` is given for a bundle that stands on random weights.
    """
    path = path.parent if path.name == JSON_NAME else path
    with bundle_folder(path) as folder:
        spec, tensors = _read(folder)
        spec = _standing_on(spec, foundation, path)
        sensor = adapter_for(registry, spec.modality, spec.picks, spec.described, options=spec.modality_options)
        adapter = fitted_to_card(sensor, spec.card.model_dump())
        parts = find_parts(spec, registry, _foundation_weights(path, spec, registry, checkpoint))
        model = _assembled(spec, parts, tensors, folder)
        load_tensors(model, tensors, str(folder / WEIGHTS_NAME))
    model.to(device).eval()
    return Bundle(spec, model, Pipeline(adapter, spec.channels, spec.image_size, spec.aspect), parts, path, sensor)


def _assembled(spec: ModelSpec, parts: Parts, tensors: Mapping[str, Tensor], folder: Path) -> SimMAT:
    """Build the network that a stranger described, in memory that the weights at hand can account for.

    A network is made once or a few times over while it is built, and the weights of transfer layer and tuner are all
    in the bundle; so what takes many times their size cannot fit them.
    """
    own = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    file = parts.foundation.weights
    frozen = max(file.size_bytes if file is not None else 0, parts.weights.stat().st_size if parts.weights else 0)
    room = _ROOM if frozen else _ROOM_WITHOUT_FILE
    try:
        return assemble(
            spec,
            parts,
            foundation_room=Room(_TIMES_OVER * (frozen + own) + room.most_bytes, room.most_tensors),
            own_room=Room(_TIMES_OVER * own + _ROOM.most_bytes, _CALLS_EACH * len(tensors) + _ROOM_OWN_TENSORS),
        )
    except TooLargeError as error:
        raise BundleError(
            f"{folder / JSON_NAME} does not fit the weights beside it: {error}, and {WEIGHTS_NAME} holds "
            f"{len(tensors)} tensors of {own / 2**20:.3g} MiB; copy or train the bundle again"
        ) from error


def _standing_on(spec: BundleSpec, foundation: str | None, path: Path) -> BundleSpec:
    """Take the foundation model by the name it has here; only its weights can prove that it is the same."""
    if foundation is None or foundation == spec.foundation:
        return spec
    if spec.foundation_sha256 is None:
        raise ConfigError(
            f"{path} stands on random weights of {spec.foundation!r} (seed {spec.seed}), so nothing can show that "
            f"{foundation!r} is the same model; leave --foundation out"
        )
    return spec.model_copy(update={"foundation": foundation})


def _foundation_weights(path: Path, spec: BundleSpec, registry: Registry, checkpoint: Path | None) -> Path | None:
    if spec.foundation_sha256 is None:
        if checkpoint is not None:
            raise ConfigError(f"{path} stands on random weights (seed {spec.seed}); it takes no --checkpoint")
        return None
    try:
        model = registry.foundation(spec.foundation)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{path} stands on a foundation model that is not here: {error}. Where it has another name here, say so "
            "with --foundation NAME"
        ) from error
    file = find_weights(model, checkpoint)
    if file is None:
        raise BundleError(f"{path} needs a weight file of {spec.foundation!r}, but that model has none")
    found = sha256_of(file)
    if found != spec.foundation_sha256:
        if checkpoint is None:
            check_digest(model, file, found)
        raise BundleError(
            f"{path} was trained on {spec.foundation!r} weights with sha256 {spec.foundation_sha256[:12]}…, "
            f"but {file} has {found[:12]}…; give the right file with --checkpoint"
        )
    return file


def _read(folder: Path) -> tuple[BundleSpec, dict[str, Tensor]]:
    """Read json and weights of one bundle: a training that finds a better one swaps the folder, so it is read twice."""
    try:
        return _read_once(folder)
    except BundleError:
        return _read_once(folder)


def _read_once(folder: Path) -> tuple[BundleSpec, dict[str, Tensor]]:
    spec = read_spec(folder)
    return spec, read_tensors(check_weights(folder, spec.weights_sha256))

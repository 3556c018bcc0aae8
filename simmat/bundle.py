"""The bundle: what training gives and people share. A folder of one json and one safetensors file.

`bundle.json` holds everything needed to use the weights again and to refuse what they do not fit;
`weights.safetensors` holds the transfer layer and whatever the tuner moved. Frozen foundation weights
are not in it: the json names their file by sha256, or the seed where they are random.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

import simmat
from simmat.composition import SelectedChannels
from simmat.data.card import DataCard
from simmat.data.pipeline import Pipeline
from simmat.errors import BundleError, ConfigError, SpecError
from simmat.files import atomic_folder, atomic_write_bytes, atomic_write_json, recover_folder
from simmat.geometry import Aspect
from simmat.modality import ModalityAdapter
from simmat.model import ModelPlan, SimMAT, assemble
from simmat.nn.tuners import trainable_state
from simmat.normalize import Statistics, describe
from simmat.plugins import Registry
from simmat.types import Channel, SensorImage
from simmat.weights import find_weights, sha256_of

FORMAT = 1
JSON_NAME = "bundle.json"
WEIGHTS_NAME = "weights.safetensors"


@dataclass(frozen=True)
class BundleSpec:
    """What a bundle says of itself.

    Attributes:
        modality: name of the sensor, composed names with "+".
        picks: channels picked by `--channels`, or None for all.
        sensor_channels: what the sensor's files must hold.
        channels: C fitted channels as they reach the transfer layer.
        statistics: of the training split.
        zero_shot: (3, C) map of the untrained reference.
        foundation: name of the foundation model.
        foundation_sha256: of its weight file; None where it is random from `seed`.
        seed: of every random weight.
        image_size: S.
        aspect: how a rectangle becomes a square.
        mat: name of the transfer layer.
        mat_options: its options.
        tune: name of the tuner.
        tune_options: its options.
        card: what a region and a missing value were.
        metrics: scores on the validation split and the step they were reached at.
    """

    modality: str
    picks: tuple[str | int, ...] | None
    sensor_channels: tuple[Channel, ...]
    channels: tuple[Channel, ...]
    statistics: Statistics
    zero_shot: tuple[tuple[float, ...], ...]
    foundation: str
    foundation_sha256: str | None
    seed: int
    image_size: int
    aspect: Aspect
    mat: str
    tune: str
    card: DataCard
    mat_options: Mapping[str, Any] = field(default_factory=dict)
    tune_options: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain json values, without the format number."""
        return {
            "modality": self.modality,
            "picks": list(self.picks) if self.picks is not None else None,
            "sensor_channels": [channel.to_dict() for channel in self.sensor_channels],
            "channels": [channel.to_dict() for channel in self.channels],
            "statistics": self.statistics.to_dict(),
            "zero_shot": [list(row) for row in self.zero_shot],
            "foundation": {"name": self.foundation, "sha256": self.foundation_sha256, "seed": self.seed},
            "image_size": self.image_size,
            "aspect": self.aspect,
            "mat": {"name": self.mat, "options": dict(self.mat_options)},
            "tune": {"name": self.tune, "options": dict(self.tune_options)},
            "card": self.card.model_dump(mode="json"),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleSpec:
        """Rebuild from `to_dict`; a missing key raises KeyError."""
        picks = values["picks"]
        return cls(
            modality=values["modality"],
            picks=tuple(picks) if picks is not None else None,
            sensor_channels=tuple(Channel.from_dict(c) for c in values["sensor_channels"]),
            channels=tuple(Channel.from_dict(c) for c in values["channels"]),
            statistics=Statistics.from_dict(values["statistics"]),
            zero_shot=tuple(tuple(row) for row in values["zero_shot"]),
            foundation=values["foundation"]["name"],
            foundation_sha256=values["foundation"]["sha256"],
            seed=values["foundation"]["seed"],
            image_size=values["image_size"],
            aspect=values["aspect"],
            mat=values["mat"]["name"],
            mat_options=values["mat"]["options"],
            tune=values["tune"]["name"],
            tune_options=values["tune"]["options"],
            card=DataCard.model_validate(values["card"]),
            metrics=values["metrics"],
        )


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, ready to use.

    Attributes:
        spec: what it says of itself.
        model: the tuned network, in eval mode.
        pipeline: image in physical units -> network input.
        plan: the plan the network was built from.
        path: where it was read.
    """

    spec: BundleSpec
    model: SimMAT
    pipeline: Pipeline
    plan: ModelPlan
    path: Path

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor."""
        return self.pipeline.adapter

    def check_image(self, image: SensorImage) -> None:
        """Raise BundleError where an image's channels are not those the bundle was trained on."""
        check_sensor_channels(self.spec, image.channels, image.origin, self.path)


def check_sensor_channels(spec: BundleSpec, channels: tuple[Channel, ...], origin: str, path: Path) -> None:
    """Refuse channels of another name, quantity or unit, naming both sides."""
    expected = spec.sensor_channels
    if len(expected) != len(channels) or not all(a.same_quantity(b) for a, b in zip(expected, channels, strict=True)):
        raise BundleError(
            f"{origin}: channels are {describe(channels)}, but {path} was trained on {describe(expected)}; "
            "use files of the same sensor and unit, or train a bundle for these"
        )


def adapter_for(registry: Registry, modality: str, picks: tuple[str | int, ...] | None) -> ModalityAdapter:
    """Return the adapter of a modality name, limited to the picked channels."""
    adapter = registry.modality(modality)
    return SelectedChannels(adapter, picks) if picks is not None else adapter


def save_bundle(path: Path, spec: BundleSpec, model: SimMAT) -> None:
    """Write a bundle as a whole: there is the old one or the new one, never half of either.

    Only values that the training decides go in, no time and no place, so equal runs give equal files.

    Raises:
        OutputError: it cannot be written.
    """
    write_bundle(path, spec, trained_tensors(model))


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the whole transfer layer and what the tuner moved, on the CPU."""
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {f"foundation.{name}": tensor for name, tensor in trainable_state(model.foundation).items()}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}


def write_bundle(path: Path, spec: BundleSpec, tensors: Mapping[str, Tensor]) -> None:
    """Write a bundle from tensors already taken, see `save_bundle`."""
    with atomic_folder(path) as folder:
        atomic_write_bytes(folder / WEIGHTS_NAME, save(dict(tensors), metadata={"format": str(FORMAT)}))
        document = {
            "format": FORMAT,
            **spec.to_dict(),
            "weights_sha256": sha256_of(folder / WEIGHTS_NAME),
            "versions": {
                "simmat": simmat.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        atomic_write_json(folder / JSON_NAME, document)


def read_bundle_spec(path: Path) -> BundleSpec:
    """Read what a bundle says of itself; no weights are loaded.

    Raises:
        BundleError: there is no bundle, it is damaged, or of a newer format.
    """
    return BundleSpec.from_dict(_read_document(path)) if path.name != JSON_NAME else read_bundle_spec(path.parent)


def _read_document(path: Path) -> dict[str, Any]:
    if (path / "bundle").is_dir() and not (path / JSON_NAME).exists():
        raise BundleError(f"{path} is a run folder, not a bundle; use {path / 'bundle'}")
    recover_folder(path)
    file = path / JSON_NAME
    if not file.is_file():
        raise BundleError(f"no bundle at {path}: a bundle is a folder with {JSON_NAME} and {WEIGHTS_NAME}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        found = document["format"]
        if found != FORMAT:
            raise BundleError(
                f"{path} has bundle format {found}, this is simmat {simmat.__version__} which reads format {FORMAT}; "
                "upgrade with `pip install --upgrade simmat`"
            )
        _check_types(BundleSpec.from_dict(document))
        str(document["weights_sha256"])
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}; check who may read it") from error
    except (ValueError, KeyError, TypeError, AttributeError, SpecError) as error:
        why = _in_words(error)
        raise BundleError(f"{file} is damaged ({why}); copy or train the bundle again") from error
    return dict(document)


def _check_types(spec: BundleSpec) -> None:
    """Refuse json values that no training writes and that would fail somewhere deep in the network."""
    whole = (spec.seed, spec.image_size)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in whole) or spec.image_size < 1:
        raise ValueError(f"seed {spec.seed!r} and image_size {spec.image_size!r} must be whole numbers")
    if spec.aspect not in get_args(Aspect):
        raise ValueError(f"aspect {spec.aspect!r} is none of {', '.join(get_args(Aspect))}")
    if not isinstance(spec.mat_options, Mapping) or not isinstance(spec.tune_options, Mapping):
        raise ValueError("options must be tables")
    if not spec.channels or np.shape(spec.zero_shot) != (3, len(spec.channels)):
        raise ValueError(f"zero_shot must be 3 rows of {len(spec.channels)} numbers, one for each channel")


def _in_words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    return f"no key {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"


def check_bundle(path: Path) -> None:
    """Check that a bundle is there and whole, without building its network.

    Raises:
        BundleError: it is missing, damaged, or of a newer format.
    """
    _check_weights(path, _read_document(path)["weights_sha256"])


def plan_of(spec: BundleSpec, registry: Registry, weights: Path | None) -> ModelPlan:
    """Return the plan of a bundle's network; the weight file is already found and checked."""
    return ModelPlan(
        foundation=registry.foundation(spec.foundation),
        transfer=registry.transfer_layer(spec.mat),
        tuner=registry.tuner(spec.tune),
        channels=spec.channels,
        zero_shot=np.asarray(spec.zero_shot, dtype=np.float32),
        image_size=spec.image_size,
        weights=weights,
        seed=spec.seed,
        mat_options=spec.mat_options,
        tune_options=spec.tune_options,
    )


def load_bundle(
    path: Path, registry: Registry, *, checkpoint: Path | None = None, device: str | torch.device = "cpu"
) -> Bundle:
    """Load a bundle and the foundation model it stands on.

    Args:
        path: the bundle's folder.
        registry: where its modality, foundation model, transfer layer and tuner are found.
        checkpoint: the foundation model's weight file; None looks in the cache and the packages.
        device: where the network goes.

    Raises:
        BundleError: it is damaged, of a newer format, or its tensors do not fit.
        UnknownNameError: its modality, foundation model, transfer layer or tuner is not installed.
        WeightsError: the foundation weights are missing, or not those it was trained on.
    """
    path = path.parent if path.name == JSON_NAME else path
    document = _read_document(path)
    spec = BundleSpec.from_dict(document)
    adapter = adapter_for(registry, spec.modality, spec.picks).configured(spec.card.model_dump())
    plan = plan_of(spec, registry, _foundation_weights(path, spec, registry, checkpoint))
    model = assemble(plan)
    _fill(model, path, document["weights_sha256"])
    model.to(device).eval()
    return Bundle(spec, model, Pipeline(adapter, spec.channels, spec.image_size, spec.aspect), plan, path)


def _foundation_weights(path: Path, spec: BundleSpec, registry: Registry, checkpoint: Path | None) -> Path | None:
    if spec.foundation_sha256 is None:
        if checkpoint is not None:
            raise ConfigError(f"{path} stands on random weights (seed {spec.seed}); it takes no --checkpoint")
        return None
    file = find_weights(registry.foundation(spec.foundation), checkpoint)
    if file is None:
        raise BundleError(f"{path} needs a weight file of {spec.foundation!r}, but that model has none")
    found = sha256_of(file)
    if found != spec.foundation_sha256:
        raise BundleError(
            f"{path} was trained on {spec.foundation!r} weights with sha256 {spec.foundation_sha256[:12]}…, "
            f"but {file} has {found[:12]}…; give the right file with --checkpoint"
        )
    return file


def _check_weights(path: Path, sha256: str) -> Path:
    file = path / WEIGHTS_NAME
    if not file.is_file() or sha256_of(file) != sha256:
        state = "missing" if not file.is_file() else "damaged: its sha256 is not the one in " + JSON_NAME
        raise BundleError(f"{file} is {state}; copy or train the bundle again")
    return file


def _fill(model: SimMAT, path: Path, sha256: str) -> None:
    file = _check_weights(path, sha256)
    try:
        tensors = load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"{file} is damaged: {error}") from error
    load_tensors(model, tensors, str(file))


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same plan.

    Raises:
        BundleError: one is missing, one too many, or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in trained_tensors(model).items()}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {_shape(expected.get(first))}, got {_shape(given.get(first))}"
        )
    model.load_state_dict(dict(tensors), strict=False)


def _shape(shape: torch.Size | None) -> str:
    return str(tuple(shape)) if shape is not None else "none"


def zero_shot_plan(plan: ModelPlan, registry: Registry) -> ModelPlan:
    """Return the plan of the same foundation model, untouched, behind the zero-shot map."""
    return replace(
        plan,
        transfer=registry.transfer_layer("zeroshot"),
        tuner=registry.tuner("frozen"),
        mat_options={},
        tune_options={},
    )

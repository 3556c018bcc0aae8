"""What a bundle says of itself, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simmat.data.card import DataCard
from simmat.declared import Declaration
from simmat.documents import validate
from simmat.geometry import Aspect
from simmat.normalize import Statistics
from simmat.types import Channel

FORMAT = 1
"""Raised with every change that an older reader would misread."""
JSON_NAME = "bundle.json"
WEIGHTS_NAME = "weights.safetensors"
README_NAME = "README.md"
"""The model card, beside the two where a bundle was shared."""
SHARED_NAMES = (JSON_NAME, README_NAME, WEIGHTS_NAME)
"""Every file that a bundle may hold."""


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
        metrics: scores on the validation split, the step they were reached at and the protocol they follow.
        described: every sensor of `modality` that a `sensor.toml` described, whole.
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
    described: tuple[Declaration, ...] = ()

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
            "mat": {"name": self.mat, "options": dict(sorted(self.mat_options.items()))},
            "tune": {"name": self.tune, "options": dict(sorted(self.tune_options.items()))},
            "card": self.card.model_dump(mode="json"),
            "metrics": dict(self.metrics),
            "described": [declaration.model_dump(mode="json") for declaration in self.described],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleSpec:
        """Rebuild from `to_dict`; a missing key raises KeyError."""
        picks = values["picks"]
        if isinstance(picks, str):
            raise TypeError(f"picks {picks!r} must be a list")
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
            card=validate(DataCard, values["card"]),
            metrics=values["metrics"],
            described=tuple(validate(Declaration, d) for d in values.get("described", ())),
        )


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """Return a part's name with its options, for people: "mat (n = 2, k = 3)"."""
    return name + (f" ({', '.join(f'{key} = {value}' for key, value in options.items())})" if options else "")

"""Everything that decides a network, as one document: kept in a bundle, compared on resume, built by `simmat.model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, create_model

from simmat.config import MOST_SIZE
from simmat.data.card import DataCard
from simmat.documents import Document, as_tuples, of_dataclass, parse
from simmat.sensors.declaration import Declaration
from simmat.sensors.normalize import Statistics
from simmat.specs import TransferLayerSpec, TunerSpec
from simmat.types import Aspect, Channel


def as_json(value: Any) -> Any:
    """Return options as json gives them back, where a tuple is a list."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


Name = Annotated[str, Field(min_length=1)]
Options = Annotated[dict[str, JsonValue], BeforeValidator(as_json)]
Channels = Annotated[tuple[Annotated[Channel, of_dataclass(Channel)], ...], BeforeValidator(as_tuples)]


TAKEN = ("channels", "statistics", "zero_shot")
"""Fields that are taken of the training split; all others are chosen, or follow from names and files."""


class ModelSpec(Document):
    """Everything that decides a network: of the same spec, parts and weight file comes the same network, bit for bit.

    Attributes:
        modality: name of the sensor, composed names with "+".
        modality_options: name of a sensor in it -> options it was given.
        picks: channels picked by `--channels`, or None for all.
        sensor_channels: what the sensor's files must hold.
        channels: C fitted channels, with mean and std, as they reach the transfer layer.
        statistics: of the training split.
        zero_shot: (3, C) map of the untrained reference, see `simmat.sensors.normalize.zero_shot_map`.
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
        described: every sensor of `modality` that a `sensor.toml` described, whole.
    """

    modality: Name
    modality_options: dict[str, Options] = Field(default_factory=dict)
    picks: Annotated[tuple[str | int, ...], BeforeValidator(as_tuples)] | None = None
    sensor_channels: Channels
    channels: Channels
    statistics: Annotated[Statistics, of_dataclass(Statistics)]
    zero_shot: Annotated[tuple[tuple[float, ...], ...], BeforeValidator(as_tuples)]
    foundation: Name
    foundation_sha256: str | None = None
    seed: int = Field(ge=0, lt=2**63)
    image_size: int = Field(ge=1, le=MOST_SIZE)
    aspect: Aspect = "keep"
    mat: Name
    mat_options: Options = Field(default_factory=dict)
    tune: Name
    tune_options: Options = Field(default_factory=dict)
    card: DataCard
    described: Annotated[tuple[Declaration, ...], BeforeValidator(as_tuples)] = ()

    def problems(self) -> Iterator[str]:
        """Say what does not go together: numbers for other channels, and sensors that contradict themselves."""
        count, found = len(self.channels), self.statistics
        if not count:
            yield "channels must not be empty"
        if len(self.zero_shot) != 3 or any(len(row) != count for row in self.zero_shot):
            yield f"zero_shot must be 3 rows of {count} numbers, one for each channel"
        for what, numbers in (("mean", found.mean), ("std", found.std), ("pixels", found.pixels)):
            if len(numbers) != count:
                yield f"statistics.{what} must be {count} numbers, one for each channel"
        if len(found.correlation) != count or any(len(row) != count for row in found.correlation):
            yield f"statistics.correlation must be {count} rows of {count} numbers"
        for declaration in self.described:
            yield from (f"described {declaration.name!r}: {problem}" for problem in declaration.problems())


def with_options(name: str, options: dict[str, Any]) -> str:
    """Return a part's name with its options, for people: "mat (n = 2, k = 3)"."""
    return name + (f" ({', '.join(f'{key} = {value}' for key, value in options.items())})" if options else "")


def complete_options(spec: TransferLayerSpec | TunerSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a transfer layer or tuner, each of the type of its default.

    Args:
        spec: the transfer layer or tuner.
        given: option -> value; what is not given keeps its default.

    Raises:
        ConfigError: an option is unknown or of another type than its default; all problems at once.
    """
    fields: dict[str, Any] = {name: (_type_like(default), default) for name, default in spec.options.items()}
    model = create_model("Options", __base__=Document, **fields)
    kind = "tuner" if isinstance(spec, TunerSpec) else "transfer layer"
    return parse(model, dict(given), f"options of {kind} {spec.name!r}").model_dump()


def _type_like(default: Any) -> Any:
    if isinstance(default, tuple):  # which json and TOML write as a list
        return Annotated[tuple[Any, ...], Field(strict=False)]
    return Any if default is None else type(default)

"""Everything that determines a network, as one document: saved in bundles, compared on resume, built by `model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, create_model

from simmat.config import MAX_IMAGE_SIZE
from simmat.data.card import DataCard
from simmat.documents import FromLists, StrictModel, of_dataclass, parse
from simmat.plugin_specs import TransferLayerSpec, TunerSpec
from simmat.sensors.normalize import Statistics
from simmat.sensors.sensor_toml import SensorDefinition
from simmat.types import Aspect, Channel


def as_json(value: Any) -> Any:
    """Return options as they come back from json, with lists for tuples."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value


Name = Annotated[str, Field(min_length=1)]
Options = Annotated[dict[str, JsonValue], BeforeValidator(as_json)]
Channels = FromLists[tuple[Annotated[Channel, of_dataclass(Channel)], ...]]

MEASURED_FIELDS = ("channels", "statistics", "zero_shot", "image_side", "dense")
"""Fields measured on the training split; the others are settings, or follow from names and files."""


class DenseSpec(StrictModel):
    """The classes of a dense head.

    Attributes:
        background: whether class map index 0 is "no object"; its training then needs all objects to be marked.
        classes: label value or COCO category of each further index; None for objects without a class.
        widths: channels of each level of the foundation model's embedding, finest first; empty until it is built.
        strides: stride of each level in pixels of the input.
    """

    background: bool
    classes: FromLists[tuple[int | None, ...]]
    widths: FromLists[tuple[Annotated[int, Field(ge=1)], ...]] = ()
    strides: FromLists[
        tuple[Annotated[float, Field(gt=0, le=MAX_IMAGE_SIZE)], ...]
    ] = ()

    @property
    def count(self) -> int:
        """Number of classes, the background among them."""
        return len(self.classes) + self.background

    @property
    def label_values(self) -> tuple[int, ...]:
        """Label value of each index of the class map; objects without a class are 1."""
        return (
            *([0] if self.background else []),
            *(1 if value is None else value for value in self.classes),
        )

    @property
    def index_of(self) -> dict[int | None, int]:
        """Class of an object -> its index in the class map."""
        return {
            value: index
            for index, value in enumerate(self.classes, start=int(self.background))
        }

    def by_class(self, probabilities: Sequence[float]) -> dict[int, float] | None:
        """Return label value -> probability, of one for each of `classes`; None if objects have no class."""
        pairs = zip(self.classes, probabilities, strict=True)
        return {value: one for value, one in pairs if value is not None} or None


class ModelSpec(StrictModel):
    """Everything that determines a network: the same spec, parts and weight file give the same network, to the bit.

    Attributes:
        modality_options: name of a sensor in it -> given options.
        selected_channels: channels selected by `--channels`; None for all.
        sensor_channels: channels that the sensor's files must have.
        channels: C channels of the transfer layer's input, with mean and std.
        zero_shot: (3, C) map of the untrained reference, see `simmat.sensors.normalize.zero_shot_map`.
        foundation_sha256: digest of its weight file; None for random weights.
        image_side: median of the longer sides of the training images in pixels; None if it is not known.
        aspect: how a rectangular image becomes square.
        dense: what the dense head distinguishes; None without one.
        sensor_definitions: the whole declaration of every sensor of `modality` that has a `sensor.toml`.
    """

    modality: Name
    modality_options: dict[str, Options] = Field(default_factory=dict)
    selected_channels: FromLists[tuple[str | int, ...]] | None = None
    sensor_channels: Channels
    channels: Channels
    statistics: Annotated[Statistics, of_dataclass(Statistics)]
    zero_shot: FromLists[tuple[tuple[float, ...], ...]]
    foundation: Name
    foundation_sha256: str | None = None
    seed: int = Field(ge=0, lt=2**63)
    image_size: int = Field(ge=1, le=MAX_IMAGE_SIZE)
    image_side: int | None = Field(default=None, ge=1)
    aspect: Aspect = "pad"
    mat: Name
    mat_options: Options = Field(default_factory=dict)
    tune: Name
    tune_options: Options = Field(default_factory=dict)
    card: DataCard
    dense: DenseSpec | None = None
    sensor_definitions: FromLists[tuple[SensorDefinition, ...]] = ()

    def problems(self) -> Iterator[str]:
        """Yield contradictions: numbers for other channels, and inconsistent sensors."""
        count = len(self.channels)
        found = self.statistics
        if not count:
            yield "channels must not be empty"
        if len(self.zero_shot) != 3 or any(len(row) != count for row in self.zero_shot):
            yield f"zero_shot must be 3 rows of {count} numbers, one for each channel"
        for what, numbers in (
            ("mean", found.mean),
            ("std", found.std),
            ("pixels", found.pixels),
        ):
            if len(numbers) != count:
                yield f"statistics.{what} must be {count} numbers, one for each channel"
        if len(found.correlation) != count or any(
            len(row) != count for row in found.correlation
        ):
            yield f"statistics.correlation must be {count} rows of {count} numbers"
        if self.dense is not None and len(self.dense.widths) != len(self.dense.strides):
            yield f"dense needs as many widths as strides, got {len(self.dense.widths)} and {len(self.dense.strides)}"
        for definition in self.sensor_definitions:
            for problem in definition.problems():
                yield f"sensor_definitions {definition.name!r}: {problem}"


def with_options(name: str, options: dict[str, Any]) -> str:
    """Return a part's name with its options, for display: "mat (n = 2, k = 3)"."""
    return name + (
        f" ({', '.join(f'{key} = {value}' for key, value in options.items())})"
        if options
        else ""
    )


def complete_options(
    spec: TransferLayerSpec | TunerSpec, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all options of a transfer layer or tuner; ConfigError lists the unknown and those of a wrong type."""
    fields: dict[str, Any] = {}
    for name, default in spec.options.items():
        fields[name] = (_type_like(default), default)
    model = create_model("Options", __base__=StrictModel, **fields)
    kind = "tuner" if isinstance(spec, TunerSpec) else "transfer layer"
    return parse(model, dict(given), f"options of {kind} {spec.name!r}").model_dump()


def _type_like(default: Any) -> Any:
    if isinstance(default, tuple):  # json and TOML write a list
        return Annotated[tuple[Any, ...], Field(strict=False)]
    if default is None:
        return Any
    return type(default)

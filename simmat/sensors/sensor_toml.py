"""Sensors that a `sensor.toml` describes, without code: the document, and the sensor that it makes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    ValidationInfo,
    field_validator,
)

from simmat.documents import StrictModel, parse, read_toml
from simmat.errors import ConfigError, DataError, SpecError, nearest
from simmat.io.frames import stack_endings
from simmat.io.images import read_image
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    Source,
    WindowedAdapter,
    common_size,
)
from simmat.sensors.composed_modality import ALIGN_HINT, ComposedModality
from simmat.sensors.warp import Alignment, alignments_of
from simmat.types import (
    RGB_QUANTITY,
    BoolArray,
    Channel,
    FloatArray,
    ImageFile,
    SensorImage,
    Window,
    not_nodata,
)

FORMAT = 1
_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class ZScore(StrictModel):
    """(value - mean) / std: those of the training split, or as stated, in the channel's unit."""

    kind: Literal["z-score"] = "z-score"
    mean: float | None = None
    std: Annotated[float, Field(gt=0)] | None = None


class Percentile(StrictModel):
    """Each image from its low to its high percentile, 0 to 1, clipped; then z-score by the training split."""

    kind: Literal["percentile"]
    low: Annotated[float, Field(ge=0, lt=100)] = 2.0
    high: Annotated[float, Field(gt=0, le=100)] = 98.0


class FixedRange(StrictModel):
    """Clip to low and high; then z-score by the mean and std of a uniform distribution between them."""

    kind: Literal["range"]
    low: float
    high: float


class Log(StrictModel):
    """Natural logarithm, then z-score by the training split."""

    kind: Literal["log"]
    floor: Annotated[float, Field(gt=0)] | None = None


class Decibel(StrictModel):
    """10 log10 of a power or 20 log10 of an amplitude, then z-score by the training split."""

    kind: Literal["db"]
    of: Literal["power", "amplitude"]
    floor: Annotated[float, Field(gt=0)] | None = None


def _one_or_more(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return value
    return [value]


def _as_table(value: Any) -> Any:
    """Read normalize = "log" as normalize = { kind = "log" }."""
    if isinstance(value, str):
        return {"kind": value}
    return value


Normalize = Annotated[
    Annotated[ZScore | Percentile | FixedRange | Log | Decibel, Discriminator("kind")],
    BeforeValidator(_as_table),
]


def _tables(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            f"must be one or more tables, each written [[{info.field_name}]]"
        )
    return value


def _sensor_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be lower case letters, digits and single hyphens")
    return value


def _channel_name(value: str) -> str:
    if not re.fullmatch(r"[^\s+.,]+", value):
        raise ValueError("must be a text without spaces, commas, + and dots")
    return value


Numbers = Annotated[
    tuple[float, ...], Field(strict=False), BeforeValidator(_one_or_more)
]
Pair = Annotated[tuple[float, float], Field(strict=False)]
SensorName = Annotated[str, AfterValidator(_sensor_name)]
Text = Annotated[str, Field(min_length=1)]
Patterns = Annotated[
    tuple[str, ...], Field(strict=False, min_length=1), BeforeValidator(_one_or_more)
]


class ChannelDefaults(StrictModel):
    """`[defaults]`: applies to every channel that does not state its own.

    Attributes:
        unit: unit of the value, stored * scale + offset.
        source: name of the file; may be left out if there is only one.
        nodata: stored values that mean no measurement.
    """

    quantity: Text | None = None
    unit: Text | None = None
    source: Text | None = None
    scale: float = 1.0
    offset: float = 0.0
    nodata: Numbers = ()
    valid_range: Pair | None = None
    normalize: Normalize = ZScore()


class ChannelRule(ChannelDefaults):
    """`[[channel]]`: one plane of one file, and what its numbers mean.

    Attributes:
        wavelength_um: centre wavelength in micrometres.
        plane: plane of the file, from 0; without plane and band, the file must hold one plane.
        band: the same from 1, as GIS programs count.
    """

    name: Annotated[str, AfterValidator(_channel_name)]
    quantity: Text
    unit: Text
    wavelength_um: Annotated[float, Field(gt=0)] | None = None
    plane: Annotated[int, Field(ge=0)] | None = None
    band: Annotated[int, Field(ge=1)] | None = None

    @property
    def index(self) -> int | None:
        """The plane from 0; None for the only plane of the file."""
        if self.band is not None:
            return self.band - 1
        return self.plane

    def channel(self) -> Channel:
        """Return the channel as it is loaded, in its unit."""
        return Channel(
            self.name, self.quantity, self.unit, self.wavelength_um, self.valid_range
        )


class SourceRule(StrictModel):
    """`[[source]]`: one of the files of a sample; the first is the reference grid.

    Attributes:
        name: name of the source; by default the sensor's, if there is only one source.
        files: patterns, each "*" and an ending: "*.tif", "*_nir.png".
        planes: number of planes of each file; None for any.
    """

    name: SensorName
    files: Patterns
    planes: Annotated[int, Field(ge=1)] | None = None

    @field_validator("files")
    @classmethod
    def _endings(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            ending = pattern.removeprefix("*")
            if ending == pattern or any(mark in ending for mark in '*?[]/\\"'):
                raise ValueError("must be * and an ending, such as *.tif or *_nir.png")
            if not ending.lower().endswith(allowed := (*_ENDINGS, *stack_endings())):
                raise ValueError(f"must end in one of {' '.join(allowed)}")
        return patterns

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings, in lower case."""
        return tuple(pattern.removeprefix("*").lower() for pattern in self.files)


class SensorDefinition(StrictModel):
    """A sensor as data: a `sensor.toml` with its defaults filled in. The bundle contains all of it."""

    format: Literal[1]
    name: SensorName
    description: str = "described in a file"
    source: Annotated[
        tuple[SourceRule, ...], Field(strict=False), BeforeValidator(_tables)
    ]
    channel: Annotated[
        tuple[ChannelRule, ...], Field(strict=False), BeforeValidator(_tables)
    ]

    def problems(self) -> Iterator[str]:
        """Yield what is inconsistent."""
        for kind, names in (
            ("source", [s.name for s in self.source]),
            ("channel", [c.name for c in self.channel]),
        ):
            for name in [name for name, count in Counter(names).items() if count > 1]:
                yield f"two {kind}s are named {name!r}; names must be unique"
        sources = [source.name for source in self.source]
        sharing = Counter(self.source_of(rule) for rule in self.channel)
        for number, rule in enumerate(self.channel, start=1):
            where = f"channel {number} ({rule.name!r})"
            if rule.source is None and len(sources) > 1:
                yield f"{where}: source is missing; there are {', '.join(sources)}"
            elif self.source_of(rule) not in sources:
                yield f"{where}: source must be one of {', '.join(sources)}, got {rule.source!r}"
            elif rule.index is None and sharing[self.source_of(rule)] > 1:
                yield f"{where}: plane or band is missing; several channels have this source"
            for problem in self._channel_problems(rule):
                yield f"{where}: {problem}"

    def source_of(self, rule: ChannelRule) -> str:
        """Return the name of a channel's source."""
        return rule.source or self.source[0].name

    def _channel_problems(self, rule: ChannelRule) -> Iterator[str]:
        try:
            rule.channel()
        except SpecError as error:
            yield str(error)
        if rule.plane is not None and rule.band is not None:
            yield f"plane = {rule.plane} (from 0) and band = {rule.band} (from 1) exclude each other; give one"
        normalize = rule.normalize
        if (
            isinstance(normalize, Percentile | FixedRange)
            and not normalize.low < normalize.high
        ):
            yield f"normalize.low must be less than normalize.high, got {normalize.low:g} and {normalize.high:g}"
        if isinstance(normalize, ZScore) and (normalize.mean is None) != (
            normalize.std is None
        ):
            yield "normalize: mean and std belong together; give both, or none to take those of the training split"
        if rule.quantity == RGB_QUANTITY and normalize != ZScore():
            yield f"quantity {RGB_QUANTITY!r} keeps the foundation model's own statistics; leave normalize out"


def parse_sensor_definition(values: Mapping[str, Any], where: str) -> SensorDefinition:
    """Return a `sensor.toml`, or a dumped definition; ConfigError holds every problem and names `where`."""
    found = values.get("format")
    if found is None:
        raise ConfigError(
            f"{where}: format is missing; write format = {FORMAT} in the first line"
        )
    if found is True or found != FORMAT:
        raise ConfigError(
            f"{where}: format must be {FORMAT}, got {found!r}; a newer SimMAT may read it"
        )
    filled = dict(values)
    defaults = filled.pop("defaults", {})
    parse(ChannelDefaults, defaults, f"{where}: defaults")
    channels = values.get("channel")
    sources = values.get("source")
    if isinstance(channels, list | tuple):
        filled["channel"] = [
            {**defaults, **c} if isinstance(c, Mapping) else c for c in channels
        ]
    if (
        isinstance(sources, list | tuple)
        and len(sources) == 1
        and isinstance(sources[0], Mapping)
    ):
        name = values.get("name")
        # a wrong name is reported once, as the sensor's
        valid = isinstance(name, str) and _NAME.fullmatch(name)
        filled["source"] = [{"name": name if valid else "sensor", **sources[0]}]
    return parse(SensorDefinition, filled, where)


def scaled_channel(channel: Channel, rule: Normalize) -> Channel:
    """Return a channel as it is after a rule; a fixed mean and std replace those of the training split."""
    if isinstance(rule, ZScore):
        return replace(channel, mean=rule.mean, std=rule.std)
    if isinstance(rule, FixedRange):
        # The std of a uniform distribution is its width over the square root of 12.
        return channel.with_statistics(
            (rule.low + rule.high) / 2, (rule.high - rule.low) / 12**0.5
        )
    unit = {"percentile": "1", "log": f"ln {channel.unit}", "db": "dB"}[rule.kind]
    return replace(channel, unit=unit, valid_range=None)


def scaled_arrays(
    values: Any, valid: Any, rule: Normalize, library: Any
) -> tuple[Any, Any]:
    """Normalize one channel's (..., H, W) values with the functions of numpy, torch or the like.

    Raises:
        NotImplementedError: the rule depends on the image as a whole.
    """
    if isinstance(rule, ZScore):
        return values, valid
    if isinstance(rule, Percentile):
        raise NotImplementedError(
            "normalize = percentile scales a channel by the values of each image"
        )
    if isinstance(rule, FixedRange):
        return library.clip(values, rule.low, rule.high), valid
    if rule.floor is not None:
        values = library.where(values > rule.floor, values, rule.floor)
    defined = valid & (values > 0)
    if isinstance(rule, Log):
        factor = 1.0
    else:
        factor = (10 if rule.of == "power" else 20) / math.log(10)
    return library.log(library.where(defined, values, 1.0)) * factor, defined


def _percentile(values: FloatArray, valid: BoolArray, rule: Percentile) -> FloatArray:
    """Return (H, W) from 0 to 1; an image of one value is 0 everywhere."""
    taken = values[valid].astype(np.float64)
    low, high = (
        np.percentile(taken, (rule.low, rule.high)) if taken.size else (0.0, 0.0)
    )
    if not high > low:
        return np.zeros_like(values)
    stretched = (values.astype(np.float64) - low) / (high - low)
    return np.asarray(np.clip(stretched, 0, 1), dtype=np.float32)


class TomlModality(WindowedAdapter):
    """A sensor whose files and channels a `sensor.toml` describes.

    Attributes:
        definition: the file's content; a bundle contains it.
        alignments: source -> where it lies on the pixel grid of the first one; empty if all share one grid.
    """

    def __init__(self, definition: SensorDefinition) -> None:
        self.definition = definition
        self.alignments: Mapping[str, Alignment] = {}
        self.name = definition.name
        self.description = definition.description
        self.sources = tuple(
            Source(source.name, source.endings) for source in definition.source
        )
        self.channels = tuple(rule.channel() for rule in definition.channel)

    def cameras(self) -> tuple[ModalityAdapter, ...]:
        """Return a sensor for each source; only itself if there is one, or if a source has no channel."""
        found = []
        for source in self.definition.source:
            own = []
            for rule in self.definition.channel:
                if self.definition.source_of(rule) == source.name:
                    own.append(rule)
            if not own or len(self.sources) == 1:
                return (self,)
            camera = TomlModality(
                self.definition.model_copy(
                    update={
                        "name": source.name,
                        "source": (source,),
                        "channel": tuple(own),
                    }
                )
            )
            camera.options = self.options
            found.append(camera)
        return tuple(found)

    def configured(self, card: Mapping[str, Any]) -> TomlModality:
        """Return this sensor with the alignments that a card states for its files.

        Raises:
            ConfigError: a further file is aligned with another sensor, but the first one is not.
        """
        first, *others = self.source_names()
        stated = alignments_of(card)
        found = {name: stated[name] for name in (first, *others) if name in stated}
        for name in others:
            if name in found and first not in {*found, found[name].reference}:
                raise ConfigError(
                    f"the data card: alignment.{name} states where it lies on {found[name].reference}, but there is no "
                    f"alignment of {first!r}, the first source of sensor {self.name!r}; state that too, or align "
                    f"{name!r} with {first!r}"
                )
        made = copy(self)
        made.alignments = found
        return made

    def _aligned(self) -> ComposedModality | None:
        """Return the cameras, brought onto the grid of the first one; None if the files share one grid."""
        if not set(self.alignments) - {self.sources[0].name}:
            return None
        return ComposedModality(self.cameras(), alignments=self.alignments)

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        """Return the (height, width) of the first file; None if one cannot be read in windows."""
        aligned = self._aligned()
        if aligned is not None:
            return aligned.window_size(files)
        return super().window_size(files)

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (C, H, W): stored * scale + offset of the declared planes, invalid at nodata."""
        aligned = self._aligned()
        if aligned is None:
            return self._read(files, window)
        if window is None:
            image = aligned.load(files)
        else:
            image = aligned.load_window(files, window)
        names = [channel.name for channel in image.channels]
        return image.select(
            [names.index(rule.name) for rule in self.definition.channel]
        )

    def _read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (C, H, W) of files that share one pixel grid."""
        images: dict[str, ImageFile] = {}
        for source in self.definition.source:
            image = read_image(files[source.name], self.nodata(source.name), window)
            if source.planes not in (None, len(image.planes)):
                raise DataError(
                    f"{image.path}: holds {len(image.planes)} planes of {image.planes.dtype}, but source "
                    f"{source.name!r} of sensor {self.name!r} is declared with planes = {source.planes}"
                )
            images[source.name] = image
        common_size(
            {
                str(image.path): (image.planes.shape[1], image.planes.shape[2])
                for image in images.values()
            },
            hint=ALIGN_HINT,
        )
        planes = []
        for rule in self.definition.channel:
            planes.append(self._plane(rule, images[self.definition.source_of(rule)]))
        return SensorImage.from_planes(
            np.stack([values for values, _ in planes]),
            self.channels,
            valid=np.stack([valid for _, valid in planes]),
            origin=str(files[self.sources[0].name]),
        )

    def transform(self, image: SensorImage) -> SensorImage:
        """Normalize every channel as declared, but for the z-score, which the pipeline applies."""
        data = image.data.copy()
        valid = image.valid.copy()
        rules = [rule.normalize for rule in self.definition.channel]
        for index, rule in enumerate(rules):
            if isinstance(rule, Percentile):
                data[index] = _percentile(data[index], valid[index], rule)
            else:
                data[index], valid[index] = scaled_arrays(
                    data[index].astype(np.float64), valid[index], rule, np
                )
        channels = tuple(map(scaled_channel, image.channels, rules))
        return replace(image, data=data, valid=valid, channels=channels)

    def transform_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> tuple[Any, Any]:
        """Compute `transform`; NotImplementedError if a channel is scaled by percentiles of each image."""
        done = []
        for index, rule in enumerate(self.definition.channel):
            done.append(
                scaled_arrays(
                    data[..., index, :, :],
                    valid[..., index, :, :],
                    rule.normalize,
                    library,
                )
            )
        values, where = zip(*done, strict=True)
        return library.stack(values, -3), library.stack(where, -3)

    def is_log_scale(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Return for each channel whether it is normalized by a logarithm."""
        return tuple(
            isinstance(rule.normalize, Log | Decibel)
            for rule in self.definition.channel
        )

    def _plane(
        self, rule: ChannelRule, image: ImageFile
    ) -> tuple[FloatArray, BoolArray]:
        """Return (H, W) values in the channel's unit, and (H, W) where they are valid."""
        count = len(image.planes)
        index = rule.index or 0
        if index >= count or (rule.index is None and count > 1):
            raise DataError(
                f"{image.path}: holds {count} planes, but channel {rule.name!r} of sensor {self.name!r} has "
                f"plane = {rule.index} in its sensor.toml; plane = 0 to {count - 1} are possible"
            )
        self._check_scale(rule, image, index)
        stored = image.planes[index]
        valid = not_nodata(stored, *image.nodata, *rule.nodata)
        # values beyond float32 become infinite, which is invalid
        with np.errstate(over="ignore"):
            values = (stored.astype(np.float64) * rule.scale + rule.offset).astype(
                np.float32
            )
        if isinstance(rule.normalize, Log | Decibel) and rule.normalize.floor is None:
            valid = valid & (values > 0)  # before augmentation could make it positive
        return values, valid

    def _check_scale(self, rule: ChannelRule, image: ImageFile, index: int) -> None:
        """Raise if a file states another scale for a plane than the description; counts are the stored numbers."""
        scale, offset = image.scales[index] if image.scales else (1.0, 0.0)
        if (scale, offset) == (1.0, 0.0) or (rule.scale, rule.offset, rule.unit) == (
            1.0,
            0.0,
            "count",
        ):
            return
        small = 1e-6  # files may store a scale in single precision
        if not np.allclose(
            (rule.scale, rule.offset), (scale, offset), small, small * abs(scale)
        ):
            raise DataError(
                f"{image.path}: states scale {scale:.9g} and offset {offset:.9g} of plane {index} (from 0), but sensor "
                f"{self.name!r} has scale = {rule.scale:.9g} and offset = {rule.offset:.9g} for channel {rule.name!r}; "
                f"write scale = {scale:.9g} and offset = {offset:.9g} into its sensor.toml, or store the values "
                "themselves (gdal_translate -unscale -ot Float32)"
            )


def read_sensor(path: Path | str) -> TomlModality:
    """Read the sensor that a file describes; ConfigError holds every problem."""
    file = Path(path)
    hint = ""
    if not file.exists():
        guess = nearest(
            file.name, sorted(other.name for other in file.parent.glob("*.toml"))
        )
        if guess:
            hint = f"did you mean {file.with_name(guess)}?"
        else:
            hint = "the page 'A sensor without code' of SimMAT's documentation shows how to write one"
    return TomlModality(
        parse_sensor_definition(read_toml(file, "sensor file", hint=hint), str(file))
    )

"""A sensor described by a `sensor.toml`, without a line of code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.documents import parse
from simmat.errors import ConfigError, DataError, nearest
from simmat.io.images import ImageFile, read_image
from simmat.sensors.adapter import Files, Missing, ModalityAdapter, Nodata, Source
from simmat.sensors.declaration import (
    FORMAT,
    NAME,
    ChannelRule,
    Decibel,
    Declaration,
    Defaults,
    Log,
    SourceRule,
    scaled,
)
from simmat.toml_files import read_toml
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

if TYPE_CHECKING:
    from simmat.sensors.scene import Scene


class DeclaredModality(ModalityAdapter):
    """A sensor whose files and channels a `sensor.toml` describes.

    Attributes:
        declaration: all that is known of it; a bundle keeps it.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.name = declaration.name
        self.description = declaration.description
        self.sources = tuple(Source(source.name, source.endings) for source in declaration.source)
        self.channels = tuple(rule.channel() for rule in declaration.channel)

    def load(self, files: Files, *, nodata: Nodata = None, missing: Missing = None) -> SensorImage:
        """Read (C, H, W): stored * scale + offset of the declared planes, invalid where the file says nodata.

        Raises:
            DataError: a file holds other planes than declared or states another scale, or the sources differ in size.
        """
        images = {source.name: self._read(source, files[source.name], nodata) for source in self.declaration.source}
        reference = next(iter(images.values()))
        for image in images.values():
            if image.planes.shape[1:] != reference.planes.shape[1:]:
                raise DataError(
                    f"{image.path}: is {_size(image)}, {reference.path} is {_size(reference)} (width x height); all "
                    "sources of a sample must share one pixel grid"
                )
        planes = [self._plane(rule, images[self.declaration.source_of(rule)]) for rule in self.declaration.channel]
        return SensorImage.from_planes(
            np.stack([values for values, _ in planes]),
            self.channels,
            valid=np.stack([valid for _, valid in planes]),
            origin=str(reference.path),
        )

    def transform(self, image: SensorImage) -> SensorImage:
        """Normalize every channel as declared; z-score by the training split is left to the pipeline."""
        done = [
            scaled(image.data[index], image.valid[index], image.channels[index], rule.normalize)
            for index, rule in enumerate(self.declaration.channel)
        ]
        return replace(
            image,
            data=np.stack([values for values, _, _ in done]),
            valid=np.stack([valid for _, valid, _ in done]),
            channels=tuple(channel for _, _, channel in done),
        )

    def logarithmic(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Say which channels are declared to be normalized by a logarithm."""
        return tuple(isinstance(rule.normalize, Log | Decibel) for rule in self.declaration.channel)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Refuse: a description says what files hold, not how a sensor sees."""
        raise ConfigError(f"modality {self.name!r} cannot be simulated: a sensor.toml describes files; write a plugin")

    def _read(self, source: SourceRule, file: Path, nodata: Nodata) -> ImageFile:
        image = read_image(file, nodata)
        if source.planes is not None and len(image.planes) != source.planes:
            raise DataError(
                f"{image.path}: holds {len(image.planes)} planes of {image.planes.dtype}, but source "
                f"{source.name!r} of sensor {self.name!r} is declared with planes = {source.planes}"
            )
        return image

    def _plane(self, rule: ChannelRule, image: ImageFile) -> tuple[FloatArray, BoolArray]:
        """Return (H, W) values in the channel's unit, and (H, W) where they were measured."""
        count = len(image.planes)
        if rule.index is None and count > 1:
            raise DataError(
                f"{image.path}: holds {count} planes of {image.planes.dtype}, but channel {rule.name!r} of sensor "
                f"{self.name!r} does not say which; add plane = 0 to {count - 1} to its sensor.toml"
            )
        index = rule.index or 0
        if index >= count:
            raise DataError(
                f"{image.path}: holds {count} planes of {image.planes.dtype}, but channel {rule.name!r} of sensor "
                f"{self.name!r} takes plane {index} (from 0)"
            )
        self._check_scale(rule, image, index)
        stored = image.planes[index]
        valid = np.ones(stored.shape, dtype=np.bool_) if image.valid is None else image.valid[index]
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is invalid
            for value in rule.nodata:
                valid = valid & (stored != value)
            values = (stored.astype(np.float64) * rule.scale + rule.offset).astype(np.float32)
        if isinstance(rule.normalize, Log | Decibel) and rule.normalize.floor is None:
            valid = valid & (values > 0)  # known here already, so that augmentation makes no measurement of it
        return values, valid

    def _check_scale(self, rule: ChannelRule, image: ImageFile, index: int) -> None:
        """Refuse a plane of which the file states another scale than is declared; counts are the stored numbers."""
        scale, offset = image.scales[index] if image.scales else (1.0, 0.0)
        if (scale, offset) == (1.0, 0.0) or (rule.scale, rule.offset, rule.unit) == (1.0, 0.0, "count"):
            return
        small = 1e-6  # files may keep a scale in single precision
        if math.isclose(scale, rule.scale, rel_tol=small) and math.isclose(
            offset, rule.offset, rel_tol=small, abs_tol=small * abs(scale)
        ):
            return
        raise DataError(
            f"{image.path}: states scale {scale:.9g} and offset {offset:.9g} of plane {index} (from 0), but channel "
            f"{rule.name!r} of sensor {self.name!r} has unit {rule.unit!r}, scale = {rule.scale:.9g} and offset = "
            f"{rule.offset:.9g}; write scale = {scale:.9g} and offset = {offset:.9g} into its sensor.toml, or store "
            "the values themselves (gdal_translate -unscale -ot Float32)"
        )


def declarations_of(adapter: ModalityAdapter) -> tuple[Declaration, ...]:
    """Return what describes the described sensors in an adapter: itself, or parts of a composition."""
    return tuple(part.declaration for part in adapter.sensors() if isinstance(part, DeclaredModality))


def _size(image: ImageFile) -> str:
    return f"{image.planes.shape[2]}x{image.planes.shape[1]}"


def read_sensor(path: Path | str) -> DeclaredModality:
    """Read the sensor that a file describes.

    Raises:
        ConfigError: the file cannot be read, or everything in it that is unknown, missing or out of range.
    """
    file = Path(path)
    values = read_toml(file, "sensor file", hint="" if file.exists() else _hint(file))
    return DeclaredModality(parse_declaration(values, str(file)))


def _hint(missing: Path) -> str:
    beside = sorted(other.name for other in missing.parent.glob("*.toml")) if missing.parent.is_dir() else []
    guess = nearest(missing.name, beside)
    return f"did you mean {missing.with_name(guess)}?" if guess else "docs/sensor-toml.md shows how to write one"


def parse_declaration(values: Mapping[str, Any], where: str) -> Declaration:
    """Turn plain values into a declaration.

    Args:
        values: what the file says, or what `Declaration.model_dump` gave.
        where: the file, for messages.

    Raises:
        ConfigError: all that is wrong, in one message.
    """
    _check_format(values.get("format"), where)
    given = dict(values)
    defaults = given.pop("defaults", {})
    parse(Defaults, {"defaults": defaults}, where)
    return parse(Declaration, _filled(given, defaults), where)


def _check_format(found: object, where: str) -> None:
    """Refuse a file of another format by that alone; what else it says may mean something else."""
    if found is None:
        raise ConfigError(f"{where}: format is missing; write format = {FORMAT} in the first line")
    if found is True or found != FORMAT:
        raise ConfigError(f"{where}: format must be {FORMAT}, got {found!r}; a newer SimMAT may read it")


def _filled(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Give every channel the defaults, and the only source the sensor's name."""
    filled = dict(values)
    channels, sources = values.get("channel"), values.get("source")
    if isinstance(channels, list | tuple):
        filled["channel"] = [{**defaults, **c} if isinstance(c, Mapping) else c for c in channels]
    if isinstance(sources, list | tuple) and len(sources) == 1 and isinstance(sources[0], Mapping):
        name = values.get("name")
        valid = isinstance(name, str) and re.fullmatch(NAME, name)  # a wrong one is told once, of the sensor
        filled["source"] = [{"name": name if valid else "sensor", **sources[0]}]
    return filled

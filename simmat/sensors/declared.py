"""Sensors that a `sensor.toml` describes, without code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simmat.documents import read_toml
from simmat.errors import DataError, nearest
from simmat.io.images import ImageFile, not_nodata, read_image
from simmat.sensors.adapter import Files, ModalityAdapter, Source, WindowedAdapter, common_size
from simmat.sensors.declaration import (
    ChannelRule,
    Decibel,
    Declaration,
    Log,
    SourceRule,
    parse_declaration,
    scaled,
    scaled_arrays,
)
from simmat.types import BoolArray, Channel, FloatArray, SensorImage, Window


class DeclaredModality(WindowedAdapter):
    """A sensor whose files and channels a `sensor.toml` describes.

    Attributes:
        declaration: the file's content; a bundle contains it.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.name = declaration.name
        self.description = declaration.description
        self.sources = tuple(Source(source.name, source.endings) for source in declaration.source)
        self.channels = tuple(rule.channel() for rule in declaration.channel)

    def read(self, files: Files, window: Window | None) -> SensorImage:
        """Read (C, H, W): stored * scale + offset of the declared planes, invalid at nodata."""
        images = {source.name: self._read(source, files[source.name], window) for source in self.declaration.source}
        reference = next(iter(images.values()))
        common_size({str(image.path): (image.planes.shape[1], image.planes.shape[2]) for image in images.values()})
        planes = [self._plane(rule, images[self.declaration.source_of(rule)]) for rule in self.declaration.channel]
        return SensorImage.from_planes(
            np.stack([values for values, _ in planes]),
            self.channels,
            valid=np.stack([valid for _, valid in planes]),
            origin=str(reference.path),
        )

    def transform(self, image: SensorImage) -> SensorImage:
        """Normalize every channel as declared, but for the z-score, which the pipeline applies."""
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

    def transform_arrays(self, data: Any, valid: Any, channels: Sequence[Channel], library: Any) -> tuple[Any, Any]:
        """Compute `transform`; NotImplementedError where a channel is scaled by percentiles of each image."""
        done = [
            scaled_arrays(data[..., index, :, :], valid[..., index, :, :], rule.normalize, library)
            for index, rule in enumerate(self.declaration.channel)
        ]
        values, where = zip(*done, strict=True)
        return library.stack(values, -3), library.stack(where, -3)

    def logarithmic(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Return for each channel whether it is normalized by a logarithm."""
        return tuple(isinstance(rule.normalize, Log | Decibel) for rule in self.declaration.channel)

    def _read(self, source: SourceRule, file: Path, window: Window | None) -> ImageFile:
        image = read_image(file, self.nodata(source.name), window)
        if source.planes is not None and len(image.planes) != source.planes:
            raise DataError(
                f"{image.path}: holds {len(image.planes)} planes of {image.planes.dtype}, but source "
                f"{source.name!r} of sensor {self.name!r} is declared with planes = {source.planes}"
            )
        return image

    def _plane(self, rule: ChannelRule, image: ImageFile) -> tuple[FloatArray, BoolArray]:
        """Return (H, W) values in the channel's unit, and (H, W) where they are valid."""
        count, index = len(image.planes), rule.index or 0
        why = ""
        if rule.index is None and count > 1:
            why = f"does not say which; add plane = 0 to {count - 1} to its sensor.toml"
        elif index >= count:
            why = f"takes plane {index} (from 0)"
        if why:
            raise DataError(
                f"{image.path}: holds {count} planes of {image.planes.dtype}, but channel {rule.name!r} of sensor "
                f"{self.name!r} {why}"
            )
        self._check_scale(rule, image, index)
        stored = image.planes[index]
        valid = not_nodata(stored, *image.nodata, *rule.nodata)
        valid = np.ones(stored.shape, dtype=np.bool_) if valid is None else valid
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is invalid
            values = (stored.astype(np.float64) * rule.scale + rule.offset).astype(np.float32)
        if isinstance(rule.normalize, Log | Decibel) and rule.normalize.floor is None:
            valid = valid & (values > 0)  # before augmentation could make it positive
        return values, valid

    def _check_scale(self, rule: ChannelRule, image: ImageFile, index: int) -> None:
        """Raise if a file states another scale for a plane than the description; counts are the stored numbers."""
        scale, offset = image.scales[index] if image.scales else (1.0, 0.0)
        if (scale, offset) == (1.0, 0.0) or (rule.scale, rule.offset, rule.unit) == (1.0, 0.0, "count"):
            return
        small = 1e-6  # files may store a scale in single precision
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
    """Return the declarations of an adapter and of the parts of a composition that have one."""
    return tuple(part.declaration for part in adapter.sensors() if isinstance(part, DeclaredModality))


def read_sensor(path: Path | str) -> DeclaredModality:
    """Read the sensor that a file describes; ConfigError holds every problem."""
    file = Path(path)
    hint = ""
    if not file.exists():
        guess = nearest(file.name, sorted(other.name for other in file.parent.glob("*.toml")))
        hint = f"did you mean {file.with_name(guess)}?" if guess else "docs/sensor-toml.md shows how to write one"
    return DeclaredModality(parse_declaration(read_toml(file, "sensor file", hint=hint), str(file)))

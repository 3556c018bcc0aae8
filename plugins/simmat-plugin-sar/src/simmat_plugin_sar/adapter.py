"""`sar`: radar backscatter as amplitude, power or decibel; the network gets decibel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from simmat_plugin_guess.facts import FilesOfKind, Recognition

from simmat import (
    Channel,
    ModalityAdapter,
    ModalityOptions,
    PathsBySource,
    SensorImage,
    Source,
    Window,
    WindowedAdapter,
)
from simmat.errors import DataError
from simmat.geo import read_georeference
from simmat.io.images import (
    read_image,
    require_measured,
    require_no_alpha,
    require_one_plane,
    require_unscaled,
    write_image,
)
from simmat.types import BoolArray, FloatArray, ImageFile
from simmat_plugin_sar.scale import DB_RANGE, SCALES, Scale, decibel_arrays, to_decibel

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

_LOSSLESS = (".tif", ".tiff", ".png", ".npy")
_AMPLITUDES = (0.0, 1e9)  # the square root of a power is never negative
# whole numbers of power: 0 is dark, negative numbers are fill values
_COUNTS = (0.0, 1e18)
_ALL = (*_LOSSLESS, ".jpg", ".jpeg")


class SarOptions(ModalityOptions):
    """Options of radar files."""

    scale: Literal["amplitude", "power", "db"] = Field(
        "amplitude",
        description="Scale of the values: amplitude, power (sigma nought or intensity, linear), decibel.",
    )
    polarizations: Literal["single", "dual"] = Field(
        "single",
        description="One plane, or two: co- and then cross-polarized (VV, VH or HH, HV).",
    )
    separate_files: bool = Field(
        False,
        description="With polarizations=dual: each polarization is in a separate file, not in a plane of one file.",
    )
    gray_picture: bool = Field(
        False,
        description="The plane is stored three times, as a gray picture.",
    )
    filter: Literal["none", "lee"] = Field(
        "none", description="Lee's speckle filter, in power."
    )

    @model_validator(mode="after")
    def _belong_together(self) -> SarOptions:
        if self.separate_files and self.polarizations != "dual":
            raise ValueError("separate_files=true needs polarizations=dual")
        if self.gray_picture and (self.polarizations, self.scale) != (
            "single",
            "amplitude",
        ):
            raise ValueError(
                "gray_picture=true is one plane of amplitude; leave out polarizations and scale"
            )
        return self


def _are_equal(planes: npt.NDArray[Any]) -> bool:
    """Return whether all planes are the first one; a missing value equals a missing value."""
    first = np.broadcast_to(planes[:1], planes.shape)
    return np.array_equal(planes, first, equal_nan=planes.dtype.kind == "f")


class Sar(WindowedAdapter):
    """Backscatter in the scale that the options set; `transform` gives decibel.

    Whole numbers in a file are uncalibrated counts; floats are calibrated values.
    """

    name = "sar"
    description = "radar backscatter: amplitude, power or decibel, one or two polarizations (TIFF, PNG, npy, JPEG)"

    Options = SarOptions
    options: SarOptions

    def __init__(self, options: SarOptions | None = None) -> None:
        """Make the sensor, with the sources and channels that its options set."""
        super().__init__(options)
        self.scale = SCALES[self.options.scale]
        dual = self.options.polarizations == "dual"
        self.planes = ("co", "cross") if dual else ("sar",)
        if self.options.separate_files:
            self.sources = tuple(Source(plane, _ALL) for plane in self.planes)
        else:
            self.sources = (Source("sar", _LOSSLESS if dual else _ALL),)
        units = {"amplitude": "count", "power": "1", "decibel": "dB"}
        self.channels = channels_of(self.planes, self.scale, units[self.scale.kind])

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (P, H, W) in the scale of the file, with its georeference, and apply the filter of the options.

        Raises:
            DataError: a file has other planes, its numbers cannot be in this scale, or two files do not match.
        """
        images = [
            self._read_source(files, source, window) for source in self.source_names()
        ]
        return images[0] if len(images) == 1 else _joined(images)

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Ask for the scale; a plane that is stored three times needs the option gray_picture."""
        question = "Are the numbers of a radar amplitude?"
        if files.planes_are_equal(0, 1) and files.planes_are_equal(0, 2):
            evidence = "three equal planes, as of a gray picture stored in colour"
            options = {"gray_picture": True}
            question += " Otherwise store one plane, as only amplitudes are read from such pictures"
            return Recognition("possible", (evidence,), options, questions=(question,))
        question += (
            " Otherwise --modality sar --modality-option sar.scale=power, or --modality sar --modality-option "
            "sar.scale=db"
        )
        return Recognition("possible", questions=(question,))

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        """Return the size of the files; None with the Lee filter, whose number of looks is that of the whole image."""
        return super().window_size(files) if self.options.filter == "none" else None

    def _read_source(
        self, files: PathsBySource, source: str, window: Window | None
    ) -> SensorImage:
        image = read_image(files[source], self.nodata(source), window)
        planes = self._planes(image)
        unit = (
            "dB"
            if self.scale.kind == "decibel"
            else "count"
            if planes.dtype.kind in "bui"
            else "1"
        )
        channels = channels_of(self.planes[: len(planes)], self.scale, unit)
        require_unscaled(image, self.name)
        measured = image.measured[: len(planes)]
        place = read_georeference(image.path)
        if place is not None and window is not None:
            place = place.shifted(window.y0, window.x0)
        loaded = SensorImage.from_planes(
            planes, channels, valid=measured, origin=str(image.path), georeference=place
        )
        _check_scale(loaded, planes, measured, self.scale, whole=window is None)
        if self.options.filter == "lee":
            loaded = self._smoothed(loaded)
        if (
            self.scale.kind != "decibel" and unit != "count"
        ):  # 0 has no logarithm, and augmentation must not change that
            loaded = replace(loaded, valid=loaded.valid & (loaded.data > 0))
        return loaded

    def transform(self, image: SensorImage) -> SensorImage:
        """Return (P, H, W) decibel; see `to_decibel` for zeros."""
        data, valid = to_decibel(
            image.data, image.valid, self.scale, image.channels[0].unit
        )
        channels = [
            replace(channel, quantity="backscatter", unit="dB", valid_range=DB_RANGE)
            for channel in image.channels
        ]
        # the decibel of a count is relative, so it has no bounds
        if self.scale.kind != "decibel":
            channels = [replace(channel, valid_range=None) for channel in channels]
        return SensorImage.from_planes(
            data,
            channels,
            valid=valid,
            origin=image.origin,
            georeference=image.georeference,
        )

    def transform_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> tuple[Any, Any]:
        """Compute `transform`."""
        return decibel_arrays(data, valid, self.scale, channels[0].unit, library)

    def is_log_scale(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Return True for all channels, False if the file holds decibel."""
        return (self.scale.kind != "decibel",) * len(channels)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return (P, H, W) of a C-band radar next to the camera, four looks; see `simmat_plugin_sar.radar`.

        The result is unfiltered, as `load` applies the filter.
        """
        from simmat_plugin_sar.radar import AMPLITUDE_COUNTS, backscatter

        cross = [name == "cross" for name in self.planes]
        values = self.scale.from_power(backscatter(scene, cross, rng))
        if self.scale.kind == "amplitude":
            values = np.rint(values * AMPLITUDE_COUNTS).clip(1, 65535)
        return SensorImage.from_planes(values, self.channels, origin="simulated")

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write counts as 16 bits, other values as float32 with NaN where invalid."""
        if image.channels[0].unit == "count" and image.valid.all():
            planes = np.rint(image.data).clip(0, 65535).astype(np.uint16)
        else:
            planes = np.where(image.valid, image.data, np.float32(np.nan))
        if self.options.gray_picture:
            planes = np.repeat(planes, 3, axis=0)
        for source, part in zip(
            self.sources, np.split(planes, len(self.sources)), strict=True
        ):
            write_image(files[source.name], part)

    def _planes(self, image: ImageFile) -> FloatArray:
        planes, count = image.planes, len(image.planes)
        if self.options.gray_picture:
            if count != 3 or not _are_equal(planes):
                raise DataError(
                    f"{image.path}: modality {self.name!r} with gray_picture=true needs three equal planes, got "
                    f"{count} {'different ' if count > 1 else ''}of {planes.dtype}; leave out the option for a single "
                    "plane, and use --modality raster for a colour composite of polarizations"
                )
            return planes[:1]
        if len(self.planes) == 1 or self.options.separate_files:
            if count == 3 and _are_equal(planes) and self.scale.kind == "amplitude":
                raise DataError(
                    f"{image.path}: modality {self.name!r} needs one plane, got three equal ones; use "
                    "--modality-option gray_picture=true"
                )
            require_one_plane(image, self.name)
        elif count != len(self.planes):
            raise DataError(
                f"{image.path}: modality {self.name!r} with polarizations=dual needs two planes, co- and then "
                f"cross-polarized, got {count} planes; if each is in its own file, use --modality-option "
                "separate_files=true"
            )
        else:
            require_no_alpha(image, self.name)
        return planes

    def _smoothed(self, image: SensorImage) -> SensorImage:
        """Return the image with every plane filtered in power; filtered counts are not whole numbers."""
        from simmat_plugin_sar.speckle import lee

        power = self.scale.to_power(image.data)
        usable = image.valid & (
            power >= 0 if image.channels[0].unit == "count" else power > 0
        )
        smooth = np.stack(
            [lee(plane, good) for plane, good in zip(power, usable, strict=True)]
        )
        positive = np.where(smooth > 0, smooth, 1.0)
        data = np.where(
            usable & (smooth > 0), self.scale.from_power(positive), image.data
        )
        return replace(image, data=np.ascontiguousarray(data, dtype=np.float32))


def channels_of(names: Sequence[str], scale: Scale, unit: str) -> tuple[Channel, ...]:
    """Return a channel for each plane: its quantity is the scale, its unit "count", "1" or "dB".

    Whole numbers of power are uncalibrated, so their quantity is "intensity".
    """
    # a float below 0 has no logarithm, see to_decibel
    powers = _COUNTS if unit == "count" else None
    bounds = {"amplitude": _AMPLITUDES, "power": powers, "decibel": DB_RANGE}[
        scale.kind
    ]
    power = "intensity" if unit == "count" else "power"
    quantity = {"amplitude": "amplitude", "power": power, "decibel": "backscatter"}[
        scale.kind
    ]
    return tuple(Channel(name, quantity, unit, valid_range=bounds) for name in names)


def _check_scale(
    image: SensorImage,
    planes: npt.NDArray[Any],
    measured: BoolArray,
    scale: Scale,
    *,
    whole: bool,
) -> None:
    """Refuse numbers that cannot be in the scale: mostly negative, or for decibel unsigned or mostly out of range.

    Args:
        image: (P, H, W) as loaded.
        planes: (P, H, W) as stored in the file.
        measured: (P, H, W) False where the file or the user marks a number as missing.
        scale: from the options.
        whole: False for a part of an image, where only the type of its numbers tells.
    """
    stored = planes[measured]
    if scale.kind == "decibel" and stored.size:
        if planes.dtype.kind in "bu":
            raise DataError(
                f"{image.origin}: {planes.dtype} has no negative numbers, but most decibel values of radar are "
                "negative; for counts use --modality-option scale=amplitude or scale=power, and store decibel "
                "as floats"
            )
        if not whole:
            return
        line = (1, -1, planes.shape[2])  # all planes have one scale
        row = SensorImage(
            image.data.reshape(line),
            image.valid.reshape(line),
            image.channels[:1],
            image.origin,
        )
        advice = "scale=db expects decibel, not hundredths; other scales are scale=amplitude and scale=power"
        require_measured(
            row, planes.reshape(line), advice, measured=measured.reshape(line)
        )
    if not whole:
        return
    if scale.kind != "decibel" and stored.size and float((stored < 0).mean()) > 0.5:
        raise DataError(
            f"{image.origin}: most of its numbers are negative, but {scale.kind} is never negative; use "
            "--modality-option scale=db for decibel, or --nodata for a fill value"
        )
    if stored.size and not image.valid.any():
        raise DataError(
            f"{image.origin}: none of its numbers can be {scale.description}; set another scale with "
            "--modality-option scale=amplitude, power or db"
        )


def _joined(images: Sequence[SensorImage]) -> SensorImage:
    """Join the images of two files of one scene: (2, H, W).

    Raises:
        DataError: they differ in size, unit or georeference.
    """
    first, second = images
    for what, one, other in (
        ("size", first.size_hw, second.size_hw),
        ("unit", first.channels[0].unit, second.channels[0].unit),
        ("georeference", first.georeference, second.georeference),
    ):
        if one != other:
            raise DataError(
                f"{second.origin}: its {what} is {other}, but that of {first.origin} is {one}; both "
                "polarizations must show one scene on one pixel grid"
            )
    return replace(
        first,
        data=np.concatenate([first.data, second.data]),
        valid=np.concatenate([first.valid, second.valid]),
        channels=(first.channels[0], replace(second.channels[0], name="cross")),
    )


MODALITIES: tuple[ModalityAdapter, ...] = (Sar(),)
"""Ready instances."""

"""`sar` and its variants: radar backscatter as amplitude, power or decibel; the network gets decibel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.imageio import (
    ImageFile,
    read_image,
    require_measured,
    require_no_alpha,
    require_one_plane,
    require_unscaled,
    write_image,
)
from simmat.imageio.georeference import read_georeference, write_mask
from simmat.modality import ModalityAdapter, Source
from simmat.types import BoolArray, Channel, FloatArray, Georeference, SensorImage
from simmat_plugin_sar.scale import DB_RANGE, SCALES, Scale, to_decibel

if TYPE_CHECKING:
    from simmat.scene import Scene

_LOSSLESS = (".tif", ".tiff", ".png", ".npy")
_AMPLITUDES = (0.0, 1e9)  # the root of a power is never negative
_COUNTS = (0.0, 1e18)  # whole numbers of power: 0 is dark, below it lie fill values
_ALL = (*_LOSSLESS, ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds.

    Attributes:
        planes: names of its planes; "sar-cross" and "cross" are cross-polarised.
        words: for descriptions.
        repeated: True where one plane is stored as three equal ones.
    """

    planes: tuple[str, ...]
    words: str
    repeated: bool = False


CONTENTS: Mapping[str, Content] = {
    "": Content(("sar",), "one plane"),
    "-cross": Content(("sar-cross",), "one plane, cross-polarised, to stand beside sar"),
    "-dual": Content(("co", "cross"), "two planes, co- and then cross-polarised (VV, VH or HH, HV)"),
    "-picture": Content(("sar",), "a grey picture stored as three equal planes", repeated=True),
}
"""What stands in a modality's name -> content."""


class Sar(ModalityAdapter):
    """Backscatter in the scale that the modality's name says; `transform` gives decibel.

    Whole numbers of a file are counts, without calibration; floats are taken as calibrated.
    """

    def __init__(self, scale: str, content: str, *, filtered: bool) -> None:
        """Make `sar` + scale + content, with or without Lee's filter; keys of `SCALES` and `CONTENTS`."""
        self.scale, self.content, self.filtered = SCALES[scale], CONTENTS[content], filtered
        self.name = f"sar{scale}{content}" + ("-lee" if filtered else "")
        self.variant_of = "" if self.name == "sar" else "sar"
        smoothed = ", Lee-filtered" if filtered else ""
        self.description = f"radar, {self.scale.words}, {self.content.words}{smoothed}"
        source = "sar-cross" if content == "-cross" else "sar"
        several = len(self.content.planes) > 1
        self.sources = (Source(source, _LOSSLESS if several else _ALL),)
        units = {"amplitude": "count", "power": "1", "decibel": "dB"}
        self.channels = described(self.content.planes, self.scale, units[self.scale.kind])

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (P, H, W) in the file's own scale, with its georeference; filtered in power where the modality says so.

        Raises:
            DataError: the file has other planes, or its numbers cannot be in this scale.
        """
        image = read_image(files[self.sources[0].name])
        planes = self._planes(image)
        unit = "dB" if self.scale.kind == "decibel" else "count" if planes.dtype.kind in "bui" else "1"
        channels = described(self.content.planes, self.scale, unit)
        require_unscaled(image, self.name)
        measured = image.measured[: len(planes)]
        loaded = SensorImage.from_planes(
            planes, channels, valid=measured, origin=str(image.path), georeference=read_georeference(image.path)
        )
        _check_scale(loaded, planes, measured, self.scale)
        if self.filtered:
            loaded = self._smoothed(loaded)
        if self.scale.kind != "decibel" and unit != "count":  # augmentation must not give 0 a logarithm
            loaded = replace(loaded, valid=loaded.valid & (loaded.data > 0))
        return loaded

    def transform(self, image: SensorImage) -> SensorImage:
        """Return (P, H, W) decibel; see `to_decibel` for zeros."""
        data, valid = to_decibel(image.data, image.valid, self.scale, image.channels[0].unit)
        channels = [
            replace(channel, quantity="backscatter", unit="dB", valid_range=DB_RANGE) for channel in image.channels
        ]
        if self.scale.kind != "decibel":  # a count's decibel has no absolute level, so no bounds either
            channels = [replace(channel, valid_range=None) for channel in channels]
        return SensorImage.from_planes(
            data, channels, valid=valid, origin=image.origin, georeference=image.georeference
        )

    def logarithmic(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """All channels, but where the file holds decibel already."""
        return (self.scale.kind != "decibel",) * len(channels)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return (P, H, W) of a radar beside the camera, C band, four looks; see `simmat_plugin_sar.radar`.

        Unfiltered, for a filter belongs to reading.
        """
        from simmat_plugin_sar.radar import AMPLITUDE_COUNTS, backscatter

        cross = [name.endswith("cross") for name in self.content.planes]
        values = self.scale.from_power(backscatter(scene, cross, rng))
        if self.scale.kind == "amplitude":
            values = np.rint(values * AMPLITUDE_COUNTS).clip(1, 65535)
        return SensorImage.from_planes(values, self.channels, origin="simulated")

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write counts as 16 bits, all else as float32 with NaN where invalid."""
        if image.channels[0].unit == "count" and image.valid.all():
            planes = np.rint(image.data).clip(0, 65535).astype(np.uint16)
        else:
            planes = np.where(image.valid, image.data, np.float32(np.nan))
        write_image(files[self.sources[0].name], np.repeat(planes, 3, axis=0) if self.content.repeated else planes)

    def save_mask(self, mask: BoolArray, georeference: Georeference, path: Path) -> Path:
        """Write `path`.tif: one 8-bit band, 1 in the mask and 0 outside, with the image's coordinate system."""
        return write_mask(mask, georeference, path)

    def _planes(self, image: ImageFile) -> FloatArray:
        planes, count = image.planes, len(image.planes)
        if self.content.repeated:
            if count != 3 or not (planes == planes[:1]).all():
                raise DataError(
                    f"{image.path}: modality {self.name!r} needs three equal planes, got "
                    f"{count} {'different ' if count > 1 else ''}of {planes.dtype}; a single plane is read by sar, "
                    "and a colour composite of polarizations by raster"
                )
            return planes[:1]
        if len(self.content.planes) == 1:
            if count == 3 and (planes == planes[:1]).all() and self.scale.kind == "amplitude":
                raise DataError(
                    f"{image.path}: modality {self.name!r} needs one plane, got three equal ones; use --modality "
                    "sar-picture"
                )
            require_one_plane(image, self.name)
        elif count != len(self.content.planes):
            raise DataError(
                f"{image.path}: modality {self.name!r} needs {self.content.words}, got {count} planes; one plane a "
                "file is read by sar, and by sar+sar-cross where the polarizations are two files"
            )
        else:
            require_no_alpha(image, self.name)
        return planes

    def _smoothed(self, image: SensorImage) -> SensorImage:
        """Return the image with every plane filtered in power; filtered counts are no whole numbers."""
        from simmat_plugin_sar.speckle import lee

        power = self.scale.to_power(image.data)
        usable = image.valid & (power >= 0 if image.channels[0].unit == "count" else power > 0)
        smooth = np.stack([lee(plane, good) for plane, good in zip(power, usable, strict=True)])
        positive = np.where(smooth > 0, smooth, 1.0)
        data = np.where(usable & (smooth > 0), self.scale.from_power(positive), image.data)
        return replace(image, data=np.ascontiguousarray(data, dtype=np.float32))


def described(names: Sequence[str], scale: Scale, unit: str) -> tuple[Channel, ...]:
    """Return a channel for each plane: its quantity is the scale, its unit "count", "1" or "dB".

    Whole numbers of power are intensity in counts, for power has a unit.
    """
    powers = _COUNTS if unit == "count" else None  # a float below 0 has no logarithm, see to_decibel
    bounds = {"amplitude": _AMPLITUDES, "power": powers, "decibel": DB_RANGE}[scale.kind]
    power = "intensity" if unit == "count" else "power"
    quantity = {"amplitude": "amplitude", "power": power, "decibel": "backscatter"}[scale.kind]
    return tuple(Channel(name, quantity, unit, valid_range=bounds) for name in names)


def _check_scale(image: SensorImage, planes: npt.NDArray[Any], measured: BoolArray, scale: Scale) -> None:
    """Refuse numbers that cannot be in the scale: mostly negative, or in decibel unsigned or mostly out of range.

    Args:
        image: (P, H, W) as loaded.
        planes: (P, H, W) as they lie in the file.
        measured: (P, H, W) False where the file or the user calls a number missing.
        scale: what the modality's name says.
    """
    stored = planes[measured]
    if scale.kind == "decibel" and stored.size:
        if planes.dtype.kind in "bu":
            raise DataError(
                f"{image.origin}: {planes.dtype} holds no negative numbers, as most decibel of radar are; for counts "
                "use --modality sar (amplitude) or sar-power (power), and store decibel as floats"
            )
        line = (1, -1, planes.shape[2])  # all planes have one scale
        whole = SensorImage(image.data.reshape(line), image.valid.reshape(line), image.channels[:1], image.origin)
        advice = "sar-db reads decibel themselves, not hundredths; sar reads amplitude and sar-power power"
        require_measured(whole, planes.reshape(line), advice, measured=measured.reshape(line))
    if scale.kind != "decibel" and stored.size and float((stored < 0).mean()) > 0.5:
        raise DataError(
            f"{image.origin}: most of its numbers are negative, as {scale.kind} never is; use --modality sar-db for "
            "decibel, or say --nodata where they are one fill value"
        )
    if stored.size and not image.valid.any():
        raise DataError(
            f"{image.origin}: none of its numbers can be {scale.words}; sar reads amplitude, sar-power power and "
            "sar-db decibel"
        )


def _all() -> Iterator[ModalityAdapter]:
    for filtered in (False, True):
        for scale in SCALES:
            for content in CONTENTS:
                if content != "-picture" or scale == "":  # 8 grey levels of a picture are counts of amplitude
                    yield Sar(scale, content, filtered=filtered)


MODALITIES: tuple[ModalityAdapter, ...] = tuple(_all())
"""Ready instances, the unfiltered first."""

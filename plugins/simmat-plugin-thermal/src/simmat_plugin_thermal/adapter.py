"""`thermal`: one plane of a long-wave infrared camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field
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
from simmat.io.frames import open_stack
from simmat.io.images import (
    Unit,
    read_image,
    require_measured,
    require_one_plane,
    require_unscaled,
    stated_unit,
    write_image,
)
from simmat.io.limits import decoding_errors
from simmat.io.paths import FrameAddress, frame_of
from simmat.sensors.normalize import min_max
from simmat.sensors.options import format_options
from simmat.types import BoolArray, FloatArray, ImageFile, not_nodata
from simmat_plugin_thermal.radiometric import Radiometric, read_radiometric
from simmat_plugin_thermal.sequences import ENDINGS, FlirStack
from simmat_plugin_thermal.visible import TAGS, place_in_picture

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

KELVIN = Unit("K")
CENTI_KELVIN = Unit("cK", 100.0)
ZERO_C = 273.15
CELSIUS = Unit("degC", offset=ZERO_C)
MILLI_KELVIN = Unit("mK", 1000.0)
KELVIN_64 = Unit("K64", 64.0)
KNOWN = {
    unit.name: unit for unit in (KELVIN, CENTI_KELVIN, MILLI_KELVIN, CELSIUS, KELVIN_64)
}
UNITS = {
    "K": KELVIN,
    "cK": CENTI_KELVIN,
    "mK": MILLI_KELVIN,
    "C": CELSIUS,
    "K64": KELVIN_64,
}
"""Values of the option `unit`."""
_COUNTS = ("count", "counts", "DN")


def unit_of(image: ImageFile, option: Unit | None = None) -> Unit | None:
    """Return the unit stated by file or user; None for counts.

    Raises:
        DataError: the two contradict each other.
    """
    return stated_unit(image, KNOWN, option=option, no_unit=_COUNTS)


TEMPERATURE = Channel(
    "thermal",
    "brightness_temperature",
    "K",
    wavelength_um=10.0,
    valid_range=(150.0, 2500.0),
)
COUNTS = Channel("thermal", "counts", "count", wavelength_um=10.0)
RELATIVE = Channel(
    "thermal", "relative_brightness", "1", wavelength_um=10.0, valid_range=(0.0, 1.0)
)
QUANTITY = TEMPERATURE.quantity
_LOSSLESS = (".tif", ".tiff", ".png", ".npy")
_JPEG = (".jpg", ".jpeg")


class ThermalOptions(ModalityOptions):
    """Options of thermal files."""

    unit: Literal["K", "cK", "mK", "C", "K64"] | None = Field(
        None,
        description="Unit of the files: kelvin, 1/100 or 1/1000 kelvin, degrees Celsius, or kelvin times 64, as the "
        "raw values of many DJI cameras; by default the unit in the file.",
    )
    emissivity: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Emissivity of the objects, in place of the one that a FLIR camera stored.",
    )
    distance_m: float | None = Field(
        None,
        ge=0,
        le=10_000,
        description="Distance of the objects in metres, in place of the one that a FLIR camera stored.",
    )
    reflected_c: float | None = Field(
        None,
        gt=-ZERO_C,
        le=2000,
        description="Temperature of what the objects mirror in degrees Celsius, in place of the one that a FLIR camera "
        "stored.",
    )

    def settings(self) -> dict[str, float]:
        """The parameters of a FLIR camera that the options replace."""
        found = {}
        if self.emissivity is not None:
            found["emissivity"] = self.emissivity
        if self.distance_m is not None:
            found["distance_m"] = self.distance_m
        if self.reflected_c is not None:
            found["reflected_k"] = self.reflected_c + ZERO_C
        return found


_USUAL_K = (230.0, 400.0)
"""Temperatures of usual scenes, by which a unit is asked for."""


def _ask_unit(planes: npt.NDArray[np.generic]) -> str:
    """Return a question with the units in which the median of stored numbers is a usual temperature; "" if none is."""
    median = np.median(
        planes[np.isfinite(planes)] if planes.dtype.kind == "f" else planes
    )
    answers = []
    for name in ("K", "cK", "mK", "K64"):
        kelvin = float(UNITS[name].physical(np.asarray(median)))
        if _USUAL_K[0] <= kelvin <= _USUAL_K[1]:
            celsius = kelvin - CELSIUS.offset
            answers.append(
                f"--modality thermal --modality-option thermal.unit={name} if their median, {median:g}, is "
                f"{celsius:.1f} °C"
            )
    if not answers:
        return ""
    return (
        f"Are the numbers temperatures of a thermal camera? Then {' or '.join(answers)}"
    )


def _recognize_jpeg(files: FilesOfKind) -> Recognition | None:
    """Recognize radiometric JPEGs, all with temperatures or all with raw values."""
    found = [read_radiometric(facts.path) for facts in files.samples]
    radiometric = [one for one in found if one is not None]
    if not radiometric or len(radiometric) < len(found):
        return None
    return _recognize_radiometric(radiometric, "the segments of the JPEG")


def _recognize_radiometric(
    radiometric: Sequence[Radiometric], where: str
) -> Recognition:
    """Recognize raw images with temperatures, or with raw values."""
    if all(one.is_kelvin for one in radiometric):
        return Recognition(
            "stated",
            ("FLIR records with a raw image and the constants of its calibration",),
            unit="kelvin, computed by the constants and settings (emissivity, distance, air) in the files",
            questions=(
                "Are emissivity, distance and reflected temperature in the files right for the scene?",
            ),
        )
    first = radiometric[0]
    height, width = first.values.shape
    question = _ask_unit(first.values)
    return Recognition(
        "stated",
        (f"a raw image of {width}x{height} in {where}, without constants",),
        questions=(
            question or "What is the unit of the raw values? They are read as counts",
        ),
    )


class Thermal(WindowedAdapter):
    """Kelvin if the file or the user states it (radiometric JPEG, TIFF or PNG with a unit, option), else counts.

    The channel of a loaded image is `thermal [K]` or `thermal [count]`.
    """

    name = "thermal"
    description = "thermal camera: kelvin if the file states it, else counts (TIFF, PNG, npy, JPEG, radiometric JPEG)"
    sources = (Source("thermal", (*_LOSSLESS, *_JPEG)),)
    channels = (TEMPERATURE,)

    Options: ClassVar[type[ModalityOptions]] = ThermalOptions

    @property
    def unit(self) -> Unit | None:
        """The unit given as option, or None."""
        options = self.options
        return (
            UNITS[options.unit]
            if isinstance(options, ThermalOptions) and options.unit is not None
            else None
        )

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (1, H, W) in kelvin, or in counts if the unit is unknown.

        A radiometric JPEG has the size of its temperature array, which can be smaller than its picture.

        Raises:
            DataError: the file cannot be read, its unit contradicts the option, or the option is used for a JPEG that
                has its own temperatures, or none.
        """
        path = Path(files["thermal"])
        frame = frame_of(path)
        if frame is not None and frame.file.suffix.lower() in ENDINGS:
            return self._radiometric(path, self._frame(frame))
        if path.suffix.lower() in _JPEG:
            found = read_radiometric(path, self._settings)
            if found is not None:
                return self._radiometric(path, found)
            if self.unit is not None:
                raise DataError(
                    f"{path}: a JPEG with no temperatures, so it has no values in {self.unit.name}; leave the option "
                    "unit out"
                )
        self._refuse_settings(path)
        stored = read_image(path, self.nodata("thermal"), window)
        require_one_plane(stored, self.name)
        unit = unit_of(stored, self.unit)
        if unit is None:
            return SensorImage.from_planes(
                stored.planes, (COUNTS,), valid=stored.valid, origin=str(path)
            )
        require_unscaled(stored, self.name)
        kelvin = unit.physical(stored.planes).astype(np.float32)
        return kelvin_image(kelvin, stored.valid, path, whole=window is None)

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Find temperatures in radiometric JPEGs, a unit in the description, or ask which unit 16 bits could have."""
        first = files.first
        frame = frame_of(first.path)
        if frame is not None and frame.file.suffix.lower() in ENDINGS:
            found = []
            for facts in files.samples:
                address = frame_of(facts.path)
                assert address is not None
                found.append(self._frame(address))
            return _recognize_radiometric(found, "the sequence")
        if first.format == "jpeg":
            return _recognize_jpeg(files)
        if first.planes != 1:
            return None
        stored = read_image(first.path)
        unit = unit_of(stored)
        if unit is not None:
            evidence = f"the files' description states the unit {unit.name}"
            return Recognition("stated", (evidence,), unit=evidence)
        if first.dtype not in ("uint16", "int16", "float32"):
            return None
        question = _ask_unit(stored.planes)
        if not question:
            return None
        evidence = "the numbers could be temperatures"
        return Recognition("possible", (evidence,), questions=(question,))

    def _radiometric(self, path: Path, found: Radiometric) -> SensorImage:
        """Return what a camera measured, in kelvin if that is known."""
        nodata = self.nodata("thermal")
        planes = found.values[None]  # (1, H, W)
        valid = not_nodata(planes, nodata)
        kelvin = planes
        if found.is_kelvin:
            if self.unit is not None:
                raise DataError(
                    f"{path}: has temperatures in kelvin, so it has no values in {self.unit.name}; leave the option "
                    "unit out"
                )
            if nodata is not None:
                raise DataError(
                    f"{path}: has temperatures in kelvin, so it stores no number {nodata:g}; leave --nodata out"
                )
            self._check_settings(kelvin, path)
        else:
            self._refuse_settings(path)
            if self.unit is not None:
                kelvin = self.unit.physical(planes)
        if found.is_kelvin or self.unit is not None:
            image = kelvin_image(kelvin.astype(np.float32), valid, path)
        else:
            image = SensorImage.from_planes(
                planes, (COUNTS,), valid=valid, origin=str(path)
            )
        return replace(image, preview_hw=found.preview_hw)

    def _frame(self, frame: FrameAddress) -> Radiometric:
        """Read a frame of FLIR's sequences."""
        stack = open_stack(frame.file)
        if frame.number >= len(stack):
            raise DataError(
                f"{frame.file}: has the frames 0 to {len(stack) - 1}, no frame {frame.number}"
            )
        with decoding_errors(frame.file, "flir sequence"):
            values, is_kelvin = cast(FlirStack, stack).values(
                frame.number, self._settings
            )
        return Radiometric(values, is_kelvin, stack.size_hw)

    @property
    def _settings(self) -> dict[str, float]:
        options = self.options
        return options.settings() if isinstance(options, ThermalOptions) else {}

    def _refuse_settings(self, path: Path) -> None:
        """Raise DataError if options would correct a file without the constants that this needs."""
        if self._settings:
            raise DataError(
                f"{path}: emissivity, distance_m and reflected_c correct temperatures by the calibration constants of "
                "the camera, which only FLIR's radiometric files hold, and this one does not; leave these options out, "
                "or set the values with the software of the camera"
            )

    def _check_settings(self, kelvin: npt.NDArray[Any], path: Path) -> None:
        """Raise DataError if options leave no temperature."""
        low, high = TEMPERATURE.valid_range or (0.0, np.inf)
        if self._settings and not ((kelvin >= low) & (kelvin <= high)).any():
            raise DataError(
                f"{path}: with {format_options(self.stated_options())} no pixel has a temperature from {low:g} to "
                f"{high:g} K; correct these options"
            )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (1, H, W) brightness temperature in kelvin of an uncooled 8-14 um camera."""
        from simmat_plugin_thermal.camera import brightness_temperature_k

        return SensorImage.from_planes(
            brightness_temperature_k(scene, rng), (TEMPERATURE,), origin="simulated"
        )

    def stated_place(
        self,
        files: PathsBySource,
        size_hw: tuple[int, int],
        other_hw: tuple[int, int],
    ) -> tuple[str, npt.NDArray[np.float64]] | None:
        """Return where FLIR states that the image lies in the picture of the visible lens, which has any size."""
        path = Path(files["thermal"])
        if path.suffix.lower() not in _JPEG:
            return None
        place = place_in_picture(path)
        return None if place is None else (TAGS, place.matrix(size_hw, other_hw))

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write kelvin as a TIFF with its unit: that of the option, else 16-bit cK up to 655.35 K and float32 K above.

        Counts are written unchanged. Invalid pixels become 0 in 16 bits and NaN in floats, which are read as invalid.

        Raises:
            ConfigError: kelvin would be written to a format without units.
        """
        path = Path(files["thermal"])
        if image.channels[0].unit != TEMPERATURE.unit:
            write_image(path, np.where(image.valid, image.data, np.float32(np.nan)))
        elif self.unit is None and float(image.data.max()) <= 655.35:
            stored = np.where(image.valid, np.rint(image.data * 100), 0).astype(
                np.uint16
            )
            write_image(path, stored, description=CENTI_KELVIN.describe(QUANTITY))
        else:
            unit = self.unit or KELVIN
            values = (image.data.astype(np.float64) - unit.offset) * unit.per
            write_image(
                path,
                np.where(image.valid, values, np.nan).astype(np.float32),
                description=unit.describe(QUANTITY),
            )


class MinMaxThermal(Thermal):
    """Temperature scaled per image, coldest pixel 0 and hottest 1: the encoding of the AIMS benchmark.

    The absolute temperature is lost. For comparison, and for files whose values drift from image to image.
    """

    name = "thermal-minmax"
    description = "thermal camera, each image scaled to 0..1 by its own coldest and hottest pixel: the AIMS benchmark's"
    sources = (Source("thermal", (*_LOSSLESS, *_JPEG)),)
    channels = (RELATIVE,)
    Options = ModalityOptions

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (1, H, W) in 0..1."""
        return min_max(super().load(files), self.channels)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the simulated temperature, scaled per image."""
        return min_max(super().simulate(scene, rng), self.channels)


def kelvin_image(
    kelvin: FloatArray, valid: BoolArray | None, path: Path, *, whole: bool = True
) -> SensorImage:
    """Make an image of (1, H, W) kelvin; raise DataError if the values of a whole image are not plausible."""
    image = SensorImage.from_planes(
        kelvin, (TEMPERATURE,), valid=valid, origin=str(path)
    )
    if not whole:
        return image
    advice = (
        "give the unit of the files with --modality-option unit=K, cK, mK, C or K64; the default is the unit in the "
        "file. For another scale, such as FLIR's TLinear of 0.04 K per count, use a sensor.toml with scale = 0.04"
    )
    return require_measured(image, kelvin, advice, measured=valid)


MODALITIES: tuple[ModalityAdapter, ...] = (Thermal(), MinMaxThermal())

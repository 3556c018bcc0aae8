"""`thermal`: one plane of a long-wave infrared camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simmat.errors import DataError
from simmat.imageio import (
    ImageFile,
    Unit,
    agreed_unit,
    read_image,
    require_measured,
    require_one_plane,
    require_unscaled,
    stated_valid,
    write_image,
)
from simmat.modality import ModalityAdapter, Source
from simmat.normalize import min_max
from simmat.types import BoolArray, Channel, FloatArray, SensorImage
from simmat_plugin_thermal.radiometric import read_radiometric
from simmat_plugin_thermal.units import CELSIUS, CENTI_KELVIN, KELVIN, said_unit

if TYPE_CHECKING:
    from simmat.scene import Scene

TEMPERATURE = Channel("thermal", "brightness_temperature", "K", wavelength_um=10.0, valid_range=(150.0, 2500.0))
COUNTS = Channel("thermal", "counts", "count", wavelength_um=10.0)
RELATIVE = Channel("thermal", "relative_brightness", "1", wavelength_um=10.0, valid_range=(0.0, 1.0))
QUANTITY = TEMPERATURE.quantity
_LOSSLESS = (".tif", ".tiff", ".png", ".npy")
_JPEG = (".jpg", ".jpeg")


class Thermal(ModalityAdapter):
    """Kelvin where the file says so (radiometric JPEG of FLIR, TIFF or PNG with a stated unit), else counts.

    The channel of the loaded image tells which: `thermal [K]` or `thermal [count]`.
    """

    name = "thermal"
    description = "thermal camera: kelvin where the file says so, else counts (TIFF, PNG, npy, JPEG, radiometric JPEG)"
    sources = (Source("thermal", (*_LOSSLESS, *_JPEG)),)
    channels = (TEMPERATURE,)

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (1, H, W) in kelvin, or in counts where the file does not say what its numbers are.

        A radiometric JPEG has the size of its temperature array, which can be smaller than its picture.
        """
        path = Path(files["thermal"])
        if path.suffix.lower() in _JPEG and (radiometric := read_radiometric(path)) is not None:
            stored, is_kelvin = radiometric[0][None], radiometric[1]  # (1, H, W)
            if is_kelvin:
                return kelvin_image(stored.astype(np.float32), None, path)
            return SensorImage.from_planes(stored, (COUNTS,), valid=stated_valid(path, stored), origin=str(path))
        image = read_image(path)
        require_one_plane(image, self.name)
        unit = self.unit_of(image)
        if unit is None:
            return SensorImage.from_planes(image.planes, (COUNTS,), valid=image.valid, origin=str(path))
        require_unscaled(image, self.name)
        return kelvin_image(unit.physical(image.planes).astype(np.float32), image.valid, path)

    def unit_of(self, image: ImageFile) -> Unit | None:
        """Return the unit of a file's numbers; None for counts."""
        return said_unit(image)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (1, H, W) kelvin that an uncooled 8-14 um camera reads of the scene."""
        from simmat_plugin_thermal.camera import brightness_temperature_k

        return SensorImage.from_planes(brightness_temperature_k(scene, rng), (TEMPERATURE,), origin="simulated")

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write kelvin as a TIFF that states its unit: 16-bit cK to 655.35 K, float32 K above; counts as they are.

        Invalid pixels become 0 in cK and NaN in floats, and are read back as invalid.

        Raises:
            ConfigError: kelvin would go to a format that cannot say its unit.
        """
        path = Path(files["thermal"])
        if image.channels[0].unit != TEMPERATURE.unit:
            write_image(path, np.where(image.valid, image.data, np.float32(np.nan)))
            return
        if float(image.data.max()) <= 655.35:
            stored = np.where(image.valid, np.rint(image.data * 100), 0).astype(np.uint16)
            write_image(path, stored, description=CENTI_KELVIN.describe(QUANTITY))
        else:
            stored = np.where(image.valid, image.data, np.float32(np.nan))
            write_image(path, stored, description=KELVIN.describe(QUANTITY))


class StatedThermal(Thermal):
    """Thermal files that do not say their unit, whose unit the user knows."""

    sources = (Source("thermal", _LOSSLESS),)
    variant_of = "thermal"

    def __init__(self, name: str, unit: Unit, words: str) -> None:
        """Make the variant `name` for files in `unit`, which the description calls `words`."""
        self.name = name
        self.unit = unit
        self.description = f"thermal camera whose files hold {words} without saying so (TIFF, PNG, npy)"

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (1, H, W) in kelvin; a JPEG raises DataError, for its 8 bits hold no temperatures."""
        path = Path(files["thermal"])
        if path.suffix.lower() in _JPEG:
            raise DataError(
                f"{path}: a JPEG cannot hold {self.unit.name} in its pixels; use --modality thermal, which reads "
                "FLIR's radiometric records in kelvin and other JPEG as counts"
            )
        return super().load(files)

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write a TIFF of float32 in this modality's unit, which it states; invalid pixels are NaN.

        Raises:
            ConfigError: the format cannot say its unit.
        """
        stored = (image.data.astype(np.float64) - self.unit.offset) * self.unit.per
        planes = np.where(image.valid, stored, np.nan).astype(np.float32)
        write_image(Path(files["thermal"]), planes, description=self.unit.describe(QUANTITY))

    def unit_of(self, image: ImageFile) -> Unit:
        """Return the stated unit; a file that says another one raises DataError."""
        return agreed_unit(image, said_unit(image), self.unit, modality=self.name, other=self.variant_of)


class MinMaxThermal(Thermal):
    """Every image scaled by itself, coldest pixel 0 and hottest 1: the encoding of the AIMS benchmark.

    How hot anything is cannot be told any more. For comparison, and for files whose numbers drift from one to the next.
    """

    name = "thermal-minmax"
    description = (
        "thermal camera, every image scaled to 0..1 by its own coldest and hottest pixel: the AIMS benchmark's"
    )
    sources = (Source("thermal", (*_LOSSLESS, *_JPEG)),)
    channels = (RELATIVE,)
    variant_of = "thermal"

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read (1, H, W) within 0 to 1."""
        return min_max(super().load(files), self.channels)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return what `thermal` sees, scaled."""
        return min_max(super().simulate(scene, rng), self.channels)


def kelvin_image(kelvin: FloatArray, valid: BoolArray | None, path: Path) -> SensorImage:
    """Wrap (1, H, W) kelvin; numbers that can hardly be temperatures raise DataError."""
    image = SensorImage.from_planes(kelvin, (TEMPERATURE,), valid=valid, origin=str(path))
    advice = "thermal-k, thermal-ck and thermal-c read kelvin, centi-kelvin and degrees Celsius, thermal reads counts"
    return require_measured(image, kelvin, advice, measured=valid)


MODALITIES: tuple[ModalityAdapter, ...] = (
    Thermal(),
    StatedThermal("thermal-k", KELVIN, "kelvin"),
    StatedThermal("thermal-ck", CENTI_KELVIN, "centi-kelvin (1/100 K)"),
    StatedThermal("thermal-c", CELSIUS, "degrees Celsius"),
    MinMaxThermal(),
)

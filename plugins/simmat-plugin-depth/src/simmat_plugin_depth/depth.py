"""`depth`: distance along the optical axis in metres, one plane."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
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
from simmat.errors import ConfigError, DataError
from simmat.io.images import (
    Unit,
    read_image,
    require_measured,
    require_one_plane,
    require_unscaled,
    stated_unit,
    write_image,
)
from simmat.sensors.normalize import min_max
from simmat.types import BoolArray, ImageFile
from simmat_plugin_depth.units import (
    KNOWN,
    METRE,
    MILLIMETRE,
    UNIT_WORDS,
    UNITS,
    DepthUnit,
    read_exr,
    unit_of,
)

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

MIN_M, MAX_M = 0.001, 300.0
DEPTH = Channel("depth", "depth", "m", valid_range=(MIN_M, MAX_M))
RELATIVE = Channel("depth", "relative_depth", "1", valid_range=(0.0, 1.0))
ENDINGS = (".png", ".tif", ".tiff", ".npy", ".exr")
_ANY = Channel("depth", "depth", "count")
_NO_RETURN = 65535  # written by some cameras, besides 0


class DepthOptions(ModalityOptions):
    """Options of depth files."""

    unit: DepthUnit | None = Field(None, description=UNIT_WORDS)


class Depth(WindowedAdapter):
    """Depth in metres. Unless file or user state the unit, 16-bit integers are millimetres and floats are metres.

    Zero, negative, NaN and infinite values, 65535 in 16 bits, and values outside 1 mm to 300 m are invalid.
    """

    name = "depth"
    description = (
        "depth camera in metres: 16-bit integers are mm, floats m (PNG, TIFF, npy, EXR)"
    )
    sources = (Source("depth", ENDINGS),)
    channels = (DEPTH,)

    Options: ClassVar[type[ModalityOptions]] = DepthOptions

    def __init__(self, options: ModalityOptions | None = None) -> None:
        """Make the sensor; with unit m, PNG is not the default for writing, as whole metres are too coarse."""
        super().__init__(options)
        if self.unit == "m":
            self.sources = (
                Source(
                    "depth",
                    (".tif", *(ending for ending in ENDINGS if ending != ".tif")),
                ),
            )

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (1, H, W) in metres; a file without a single return in range raises DataError."""
        image = read_planes(Path(files["depth"]), self.nodata("depth"), window)
        require_one_plane(image, self.name)
        return metres_of(image, self.unit_of(image), self.name, whole=window is None)

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Find a unit in the description, and ask for it otherwise."""
        if files.first.planes != 1:
            return None
        stored = read_planes(files.first.path, None, None)
        stated = stated_unit(stored, KNOWN)
        if stated is not None:
            evidence = f"the files' description states the unit {stated.name}"
            return Recognition("stated", (evidence,), unit=evidence)
        assumed = unit_of(stored).name
        others = [name for name in UNITS if name != assumed]
        question = (
            f"Are the numbers distances in {assumed}? If they are in another unit, such as {others[0]} (or "
            f"{', '.join(others[1:])}): --modality depth --modality-option depth.unit={others[0]}"
        )
        return Recognition("possible", questions=(question,))

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        """Return the size of the file; None for an EXR, which is read as a whole."""
        return None if _is_exr(Path(files["depth"])) else super().window_size(files)

    @property
    def unit(self) -> DepthUnit | None:
        """The unit given as option, or None."""
        return self.options.unit if isinstance(self.options, DepthOptions) else None

    def unit_of(self, image: ImageFile) -> Unit:
        """Return the unit of a file's numbers."""
        return unit_of(image, self.unit)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (1, H, W) depth in metres that a small active stereo camera measures.

        With a unit as option, depths that do not fit into 16 bits of it are invalid.
        """
        from simmat_plugin_depth.camera import measured_depth_m

        image = SensorImage.from_planes(
            measured_depth_m(scene, rng), (DEPTH,), origin="simulated"
        )
        if self.unit is None:
            return image
        within = image.data <= (_NO_RETURN - 1) / UNITS[self.unit].per
        return replace(image, valid=image.valid & within)

    def written_unit(self, ending: str) -> Unit:
        """Return the unit that `save` writes to a file with this ending, and `load` assumes for it."""
        if self.unit is not None:
            return UNITS[self.unit]
        return MILLIMETRE if ending == ".png" else METRE

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write a PNG of 16-bit integers, or a TIFF or npy of float32; invalid pixels are 0, or NaN.

        Raises:
            ConfigError: a depth would not fit into 16 bits, or the file is an EXR.
        """
        path = Path(files["depth"])
        ending = path.suffix.lower()
        unit = self.written_unit(ending)
        stored = np.where(image.valid, image.data.astype(np.float64) * unit.per, np.nan)
        if ending != ".png":
            write_image(path, stored.astype(np.float32))
            return
        counts = np.nan_to_num(np.rint(stored))
        if counts.max() >= _NO_RETURN:
            raise ConfigError(
                f"{path}: 16 bits of {unit.name} store less than {_NO_RETURN / unit.per:g} m, got "
                f"{image.data.max():g} m; use .tif"
            )
        write_image(path, counts.astype(np.uint16))


class MinMaxDepth(Depth):
    """Depth scaled per image, nearest pixel 0 and farthest 1: the encoding of the AIMS benchmark, for comparison.

    The absolute distance is lost, whatever the unit of the file.
    """

    name = "depth-minmax"
    description = "depth of any unit, every image scaled to 0..1 by its own nearest and farthest pixel, as AIMS does"
    channels = (RELATIVE,)
    Options = ModalityOptions

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (1, H, W) in 0..1; values that are 0, negative or not finite are invalid.

        As the unit is unknown, any other value is a depth: a far plane of 1e10 is the farthest pixel, unless `--nodata`
        names it.
        """
        image = read_planes(Path(files["depth"]), self.nodata("depth"))
        require_one_plane(image, self.name)
        with np.errstate(invalid="ignore"):
            returned = measured(image) & (image.planes > 0)
        if not returned.any():
            raise DataError(
                f"{image.path}: no pixel has a depth: all values are 0, negative or not finite"
            )
        return min_max(
            SensorImage.from_planes(
                image.planes, (_ANY,), valid=returned, origin=str(image.path)
            ),
            self.channels,
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the simulated depth, scaled per image."""
        return min_max(super().simulate(scene, rng), self.channels)

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write 16-bit integers, 1 for the nearest; invalid pixels are 0."""
        counts = np.where(image.valid, 1 + np.rint(image.data * (_NO_RETURN - 2)), 0)
        write_image(Path(files["depth"]), counts.astype(np.uint16))


def measured(image: ImageFile) -> BoolArray:
    """Return (P, H, W) bool, False where the stored value means that there was no return."""
    stored = image.planes
    returned: BoolArray = np.isfinite(stored) & (
        stored.dtype != np.uint16 or stored != _NO_RETURN
    )
    return returned & image.valid


def read_planes(
    path: Path, nodata: float | None = None, window: Window | None = None
) -> ImageFile:
    """Read a depth file of any supported format, or the part in a window; an EXR is read as a whole."""
    return read_exr(path, nodata) if _is_exr(path) else read_image(path, nodata, window)


def _is_exr(path: Path) -> bool:
    return path.suffix.lower() == ".exr"


def metres_of(
    image: ImageFile, unit: Unit, modality: str, *, whole: bool = True
) -> SensorImage:
    """Return the (1, H, W) depth in metres of a file with one plane; `modality` is named in messages.

    Raises:
        DataError: the values of a whole image are implausible in this unit, or the file states a scale of its own.
    """
    require_unscaled(image, modality)
    metres = unit.physical(image.planes)
    returned = measured(image)
    found = SensorImage.from_planes(
        metres, (DEPTH,), valid=returned, origin=str(image.path)
    )
    if not whole:
        return found
    advice = f"it was read in {unit.name}; give another unit with --modality-option unit={', '.join(UNITS)}"
    return require_measured(found, metres, advice, measured=returned)


DEPTH_MODALITIES: tuple[ModalityAdapter, ...] = (Depth(), MinMaxDepth())

"""Sensors: what `save` writes is what `load` reads, in the same units."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import ModalityCase
from simmat.types import RGB_QUANTITY, BoolArray, Channel, FloatArray, SensorImage

QUANTITY_UNITS: Mapping[str, tuple[str, ...]] = {
    "srgb": ("count",),
    "counts": ("count",),
    "intensity": ("count", "1"),
    "reflectance": ("1",),
    "radiance": ("W/(m2 sr um)", "W/(m2 sr)", "mW/(m2 sr nm)"),
    "irradiance": ("W/m2", "W/(m2 um)", "W/(m2 nm)", "mW/(m2 nm)"),
    "brightness_temperature": ("K",),
    "temperature": ("K",),
    "depth": ("m",),
    "distance": ("m",),
    "range": ("m",),
    "elevation": ("m",),
    "height_above_ground": ("m", "count"),
    "height_above_ground_level": ("m",),
    "disparity": ("px",),
    "horizontal_disparity": ("1/m", "count"),
    "angle_with_gravity": ("deg", "rad", "count"),
    "angle_of_linear_polarization": ("rad", "deg"),
    "angle_of_polarization": ("rad", "deg"),
    "degree_of_linear_polarization": ("1",),
    "degree_of_circular_polarization": ("1",),
    "degree_of_polarization": ("1",),
    "backscatter": ("dB",),
    "target_strength": ("dB",),
    "sound_pressure_level": ("dB",),
    "amplitude": ("count", "1", "V", "Pa"),
    "power": ("1", "W"),
    "phase": ("rad", "deg"),
    "coherence": ("1",),
    "coherency": ("1", "W"),
    "radial_velocity": ("m/s",),
}
"""Quantities that SimMAT and its plugins know, each with the units it may have; others are the author's own word."""

POLARIZATION_ANGLES = ("angle_of_linear_polarization", "angle_of_polarization")
"""Angles in the picture, from a row or column of pixels: a mirror turns them round, and half a turn changes nothing."""

OPTICAL_UM = (0.01, 100.0)
"""From the extreme ultraviolet to the far infrared; nanometres taken for micrometres lie far above."""
VISIBLE_UM = (0.36, 0.83)
"""What the CIE calls visible, for channels declared RGB."""
ALL_UM = (0.01, 3e7)
"""From the extreme ultraviolet over terahertz and millimetre waves to radio of 10 MHz, without a gap."""
OPTICAL_QUANTITIES = (
    "counts",
    "reflectance",
    "radiance",
    "irradiance",
    "depth",
    "disparity",
    "horizontal_disparity",
    "angle_of_linear_polarization",
    "degree_of_linear_polarization",
)
"""Quantities of cameras; radars, radiometers and terahertz scanners measure the others too."""
_OPTICAL_NAMES = {"red", "green", "blue", "rededge", "nir", "vnir", "swir", "mwir", "lwir", "ir", "infrared", "thermal"}


def plausible_um(channel: Channel) -> tuple[float, float]:
    """Return the (low, high) in micrometres that a channel can lie between, by its quantity and the words of its name.

    The name decides between an infrared camera and a microwave radiometer, which both measure kelvin: 10 um in
    nanometres is the wavelength of 30 GHz in micrometres.
    """
    if channel.quantity == RGB_QUANTITY:
        return VISIBLE_UM
    words = set(re.findall("[a-z]+", channel.name.lower()))
    return OPTICAL_UM if channel.quantity in OPTICAL_QUANTITIES or words & _OPTICAL_NAMES else ALL_UM


Array = npt.NDArray[np.float64]

_APART = 0.2  # of the mean deviation, which is some 2 to 5 % of the range
_SMOOTHED_APART = 0.4  # the same, of block means: a filter works in power, and moves the level of its logarithm
_SMOOTHS = 0.7  # of the difference between neighbours; what leaves less is a filter against speckle or noise
_BLOCK = 8
_NEARER = 0.7  # a mirror image must be this much nearer: an image may be nearly its own mirror image
_MIRRORS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "with left and right swapped": lambda plane: plane[:, ::-1],
    "with top and bottom swapped": lambda plane: plane[::-1],
    "upside down": lambda plane: plane[::-1, ::-1],
}


def what_is_saved_is_loaded(case: ModalityCase) -> None:
    """`load` reads back what `save` wrote, each value in its place, to the precision of the file."""
    compared = False
    for sample in case.samples:
        if sample.simulated is None:
            raise CheckSkipped("the sample files are given, so that nobody knows what was saved")
        saved, loaded = sample.simulated, case.load(sample.files)
        if saved.size_hw != loaded.size_hw:
            raise CheckSkipped("the image comes back in another size, see keeps-odd-sizes")
        for one, other in _pairs(saved, loaded):
            valid = saved.valid[one] & loaded.valid[other]
            if valid.sum() * 2 < saved.valid[one].sum():
                raise CheckFailed(
                    f"channel {saved.channels[one].name!r} was saved with {int(saved.valid[one].sum())} valid pixels, "
                    f"of which {int(valid.sum())} are valid as loaded",
                    "let save write nothing measured as nodata, and look at valid_range and unit",
                )
            if saved.valid[one].any():
                _expect_alike(saved, one, loaded, other)
                compared = True
    if not compared:
        raise CheckSkipped("no channel that is loaded is one that was simulated")


def _pairs(saved: SensorImage, loaded: SensorImage) -> list[tuple[int, int]]:
    """Return the indices of channels of one name, quantity and unit: only their values can be compared."""

    def kinds(image: SensorImage) -> list[tuple[str, str, str]]:
        return [(channel.name, channel.quantity, channel.unit) for channel in image.channels]

    found = kinds(loaded)
    return [(index, found.index(kind)) for index, kind in enumerate(kinds(saved)) if kind in found]


def _expect_alike(saved: SensorImage, one: int, loaded: SensorImage, other: int) -> None:
    channel, plane = saved.channels[one], loaded.data[other]
    original, good = saved.data[one], saved.valid[one] & loaded.valid[other]
    smooths = _variation(plane, good) < _SMOOTHS * _variation(original, good)

    def apart(moved: FloatArray, valid: BoolArray) -> float:
        return _apart(channel, plane, moved, good & valid, smooths)

    found = apart(original, saved.valid[one])
    for words, mirror in _MIRRORS.items():
        if apart(mirror(original), np.asarray(mirror(saved.valid[one]))) < _NEARER * found:
            raise CheckFailed(
                f"channel {channel.name!r}, as loaded, is what was saved {words}",
                "let row 0 and column 0 be the upper left pixel in save and in load",
            )
    values = original[good].astype(np.float64)
    spread = float(np.abs(values - np.median(values)).mean()) or float(np.abs(values).mean()) or 1.0
    steps = np.diff(np.unique(plane[good]))  # a file of whole numbers rounds, or cuts off, by up to one
    most = (_SMOOTHED_APART if smooths else _APART) * spread + (float(steps.min()) / 2 if steps.size else 0)
    if found > most:
        raise CheckFailed(
            f"channel {channel.name!r} was saved as {_values(values)} and loaded as {_values(plane[good])} "
            f"{channel.unit}, {found:.3g} apart on average",
            "let save undo every scale and offset that load applies, and state the unit where the file can",
        )


def _apart(channel: Channel, one: FloatArray, other: FloatArray, valid: BoolArray, smooths: bool) -> float:
    """Return the mean difference of two (H, W) planes where they are valid, of block means where `smooths`.

    Angles are apart by the shorter way round. No valid pixel gives infinity.
    """
    if not valid.any():
        return float("inf")
    difference = np.where(valid, one, 0).astype(np.float64) - np.where(valid, other, 0)
    circle = {"rad": 2 * np.pi, "deg": 360.0}.get(channel.unit)
    if circle is not None:
        circle = circle / 2 if channel.quantity in POLARIZATION_ANGLES else circle
        difference = (difference + circle / 2) % circle - circle / 2
    if not smooths:
        return float(np.abs(difference).sum() / valid.sum())
    return float(np.abs(_block_sums(difference)).sum() / valid.sum())


def _block_sums(plane: Array) -> Array:
    """Return the sums of (H, W) over blocks of 8x8 pixels."""
    rows, columns = (np.arange(0, side, _BLOCK) for side in plane.shape)
    return np.add.reduceat(np.add.reduceat(plane, rows, axis=0), columns, axis=1)


def _variation(plane: FloatArray, valid: BoolArray) -> float:
    """Return the mean difference of an (H, W) plane between valid neighbours in a row."""
    both = valid[:, 1:] & valid[:, :-1]
    filled = np.where(valid, plane, 0).astype(np.float64)
    return float(np.abs(np.diff(filled, axis=1))[both].mean()) if both.any() else 0.0


def _values(values: npt.NDArray[np.floating]) -> str:
    return f"{np.min(values):.4g} to {np.max(values):.4g}"

"""Values: channels, sensor images, prompts, and the geometry between an image and the network's square input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, SpecError, few_of

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Colour = Literal["gray", "rgb", "planes"]
"""What an image file says of its planes, see `ImageFile`."""

RegionRule = Literal["instances", "classes", "components", "panoptic"]
"""What a region of a label image is, see `simmat.data.instances`."""
ZeroMeans = Literal["background", "none", "unlabelled"]
"""What label value 0 means, see `simmat.data.card`."""
MIN_CROP = 16
MAX_CROP = 2**14
"""Limits of the side of a crop in pixels, see `simmat.data.crops`."""

RGB_QUANTITY = "srgb"
"""Quantity of display-referred RGB counts 0..255, which are normalized by a foundation model's own statistics."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One plane of a sensor image and what its numbers mean.

    Attributes:
        name: unique within an image, lower case ("thermal", "nir", "red").
        quantity: what is measured ("brightness_temperature", "depth", "counts", "reflectance", "srgb").
        unit: unit of the values ("K", "m", "count", "1", "dB").
        wavelength_um: centre wavelength in micrometres, where the channel has one.
        valid_range: smallest and largest possible value, in `unit`; None if unbounded.
        mean: mean in `unit`, of the training split or stated by the adapter instead; None if unknown.
        std: standard deviation in `unit`, > 0; None if unknown.
    """

    name: str
    quantity: str
    unit: str
    wavelength_um: float | None = None
    valid_range: tuple[float, float] | None = None
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        texts = {"name": self.name, "quantity": self.quantity, "unit": self.unit}
        found = []
        for label, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                found.append(f"{label} must be a non-empty text, got {text!r}")
        if self.std is not None and not self.std > 0:
            found.append(f"std must be greater than 0, got {self.std}")
        if self.mean is not None and not math.isfinite(self.mean):
            found.append(f"mean must be finite, got {self.mean}")
        if self.wavelength_um is not None and not self.wavelength_um > 0:
            found.append(
                f"wavelength_um must be greater than 0, got {self.wavelength_um}"
            )
        if (
            self.valid_range is not None
            and not self.valid_range[0] < self.valid_range[1]
        ):
            found.append(
                f"valid_range must be (low, high) with low < high, got {self.valid_range}"
            )
        if found:
            raise SpecError(f"channel {self.name!r}: " + "; ".join(found))

    def with_statistics(self, mean: float, std: float) -> Channel:
        """Return the same channel with another mean and std, in its unit."""
        return replace(self, mean=float(mean), std=float(std))


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Return whether a json value is a finite number; true, false and integers too large for a float are not."""
    try:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
    except OverflowError:
        return False


def short_names(channels: Sequence[Channel]) -> str:
    """Name at most four channels with their units: "thermal [K]", "b1 [1], b2 [1], b3 [1], b4 [1] and 9 more"."""
    return few_of([f"{channel.name} [{channel.unit}]" for channel in channels], 4)


def same_channels(one: Sequence[Channel], other: Sequence[Channel]) -> bool:
    """Return whether names, quantities and units agree, in order; ranges and statistics may differ."""
    return [(c.name, c.quantity, c.unit) for c in one] == [
        (c.name, c.quantity, c.unit) for c in other
    ]


class Window(NamedTuple):
    """A part of an image in pixels, y1 and x1 exclusive."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index (…, H, W) arrays by `[..., *window.slices]`."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def intersection(self, other: Window) -> Window | None:
        """Return the pixels that both windows have; None if there are none."""
        y0 = max(self.y0, other.y0)
        x0 = max(self.x0, other.x0)
        y1 = min(self.y1, other.y1)
        x1 = min(self.x1, other.x1)
        if y0 < y1 and x0 < x1:
            return Window(y0, x0, y1, x1)
        return None

    def moved(self, rows: int, columns: int) -> Window:
        """Return the window so many rows further down and columns further right."""
        return Window(
            self.y0 + rows, self.x0 + columns, self.y1 + rows, self.x1 + columns
        )

    def relative_to(self, other: Window) -> Window:
        """Return the same pixels, counted from the first one of another window."""
        return self.moved(-other.y0, -other.x0)

    def enclosing(self, other: Window) -> Window:
        """Return the smallest window around both."""
        y0 = min(self.y0, other.y0)
        x0 = min(self.x0, other.x0)
        return Window(y0, x0, max(self.y1, other.y1), max(self.x1, other.x1))


@dataclass(frozen=True, slots=True)
class Georeference:
    """The position of an image's pixels on the earth.

    Attributes:
        crs: coordinate reference system as WKT or "EPSG:n".
        transform: affine (a, b, c, d, e, f): x = a·col + b·row + c, y = d·col + e·row + f.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    def shifted(self, y0: int, x0: int) -> Georeference:
        """Return the georeference of a part of the image whose first pixel is at row y0 and column x0."""
        a, b, c, d, e, f = self.transform
        return Georeference(
            self.crs, (a, b, c + a * x0 + b * y0, d, e, f + d * x0 + e * y0)
        )

    def to_map(self, edges_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map (..., 2) xy in pixels, the corner of the first one at 0, 0, to x and y of the coordinate system."""
        a, b, c, d, e, f = self.transform
        return np.asarray(edges_xy @ np.asarray([[a, d], [b, e]]) + (c, f))

    def to_pixels(self, places_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map (..., 2) x and y of the coordinate system to xy in pixels, the corner of the first one at 0, 0."""
        a, b, c, d, e, f = self.transform
        return np.asarray((places_xy - (c, f)) @ np.linalg.inv([[a, d], [b, e]]))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class SensorImage:
    """An image of a sensor, in physical units; it is its own `ImageReader`.

    Attributes:
        data: (C, H, W) float32, C-contiguous, each channel in its own unit.
        valid: (C, H, W) bool; False where there is no measurement, whatever the value.
        channels: C channels, in the order of the planes.
        origin: source, for messages (a path, "simulated").
        georeference: position on the earth, where the file states it.
        preview_hw: (height, width) of the picture that image viewers show, if the file holds one besides the data.
        pixel_size_um: (height, width) of a pixel in micrometres, where the file states it.
    """

    data: FloatArray
    valid: BoolArray
    channels: tuple[Channel, ...]
    origin: str = ""
    georeference: Georeference | None = None
    preview_hw: tuple[int, int] | None = None
    pixel_size_um: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        where = self.origin or "sensor image"
        if self.data.ndim != 3 or self.data.dtype != np.float32:
            raise DataError(
                f"{where}: data must be float32 of shape (C, H, W), got {self.data.dtype} of {self.data.shape}"
            )
        if self.valid.shape != self.data.shape or self.valid.dtype != np.bool_:
            raise DataError(
                f"{where}: valid must be bool of shape {self.data.shape}, got {self.valid.dtype} of {self.valid.shape}"
            )
        if len(self.channels) != self.data.shape[0]:
            raise DataError(
                f"{where}: {len(self.channels)} channels described, {self.data.shape[0]} planes given"
            )
        names = [channel.name for channel in self.channels]
        if len(set(names)) != len(names):
            raise SpecError(f"{where}: channel names must be unique, got {names}")

    def __repr__(self) -> str:
        """Name channels, size and origin, not half a million numbers."""
        height, width = self.size_hw
        return f"<SensorImage {self.origin or '(no file)'}: {short_names(self.channels)}, {width}x{height} pixels>"

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.data.shape[1]), int(self.data.shape[2])

    @property
    def size_note(self) -> str:
        """Warn that viewers show a picture of another size than the image; "" if they do not."""
        if self.preview_hw is None or self.preview_hw == self.size_hw:
            return ""
        (height, width), (shown_height, shown_width) = self.size_hw, self.preview_hw
        return (
            f"the image is {width}x{height}, but viewers show the file's picture of {shown_width}x{shown_height}; "
            f"multiply X read there by {width / shown_width:g} and Y by {height / shown_height:g}"
        )

    @classmethod
    def from_planes(
        cls,
        data: npt.ArrayLike,
        channels: Sequence[Channel],
        *,
        valid: BoolArray | None = None,
        origin: str = "",
        georeference: Georeference | None = None,
    ) -> SensorImage:
        """Make an image from planes of any real dtype.

        Values that are not finite, or outside of their channel's `valid_range`, become invalid.

        Args:
            data: (C, H, W) or, for one channel, (H, W).
            valid: (C, H, W) bool; False makes further values invalid.

        Raises:
            DataError: planes and channels do not match, or the values are not real numbers.
        """
        values = np.asarray(data)
        if values.dtype.kind not in "buif":
            raise DataError(
                f"{origin or 'sensor image'}: values must be real numbers, got dtype {values.dtype}"
            )
        if values.ndim == 2:
            values = values[None]  # (1, H, W)
        # values beyond float32 become infinite, so invalid
        with np.errstate(over="ignore"):
            planes = np.ascontiguousarray(values, dtype=np.float32)
        if values.dtype.kind == "f":
            good = np.isfinite(planes)
        else:
            good = np.ones(planes.shape, np.bool_)
        if valid is not None:
            good &= valid
        if planes.ndim == 3 and len(channels) == planes.shape[0]:
            for index, channel in enumerate(channels):
                if channel.valid_range is not None:
                    low, high = channel.valid_range
                    good[index] &= (planes[index] >= low) & (planes[index] <= high)
        planes = np.where(good, planes, np.float32(0)) if not good.all() else planes
        return cls(planes, good, tuple(channels), origin, georeference)

    def read(self, window: Window) -> SensorImage:
        """Return a part of the image, or the image itself."""
        if window == (0, 0, *self.size_hw):
            return self
        return self.cut(window)

    def cut(self, window: Window) -> SensorImage:
        """Return the part of the image in a window, whose pixels are copied."""
        rows, columns = window.slices
        if self.georeference is None:
            place = None
        else:
            place = self.georeference.shifted(window.y0, window.x0)
        data = np.ascontiguousarray(self.data[:, rows, columns])
        valid = np.ascontiguousarray(self.valid[:, rows, columns])
        return SensorImage(
            data,
            valid,
            self.channels,
            self.origin,
            place,
            pixel_size_um=self.pixel_size_um,
        )

    def select(self, indices: Sequence[int]) -> SensorImage:
        """Return the image with the planes at `indices`, in that order."""
        picked = list(indices)
        data = np.ascontiguousarray(self.data[picked])
        valid = np.ascontiguousarray(self.valid[picked])
        return replace(
            self,
            data=data,
            valid=valid,
            channels=tuple(self.channels[i] for i in picked),
        )


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The planes of an image file, as they are stored.

    Attributes:
        planes: (P, H, W) in the file's own dtype (bool, integers to 32 bits, floats), native byte order.
        format: "png", "jpeg", "tiff", "npy", "bmp", or of a frame "volume" or "video".
        colour: "gray" (one plane), "rgb" (the file says red, green, blue; a 4th plane is alpha), or "planes" (the
            file does not say).
        path: the file.
        description: TIFF ImageDescription or PNG text "Description"; "" if there is none.
        nodata: stored numbers that mean "no measurement": the file's own (GDAL_NODATA tag), and the user's.
        scales: for each plane, factor and offset from stored numbers to values (GDAL_METADATA tag), (1, 0) where the
            file states none; not applied. Empty where the format has no such tag.
        alpha: True if the file says that its last plane is alpha (opacity), which is not a measurement.
    """

    planes: npt.NDArray[Any]
    format: str
    colour: Colour
    path: Path
    description: str = ""
    nodata: tuple[float, ...] = ()
    scales: tuple[tuple[float, float], ...] = ()
    alpha: bool = False

    @property
    def valid(self) -> BoolArray:
        """(P, H, W) False at `nodata`."""
        return not_nodata(self.planes, *self.nodata)

    @property
    def measured(self) -> BoolArray:
        """(P, H, W) True where a number is finite and valid; for channels computed from several planes."""
        return np.asarray(np.isfinite(self.planes)) & self.valid


def not_nodata(stored: npt.NDArray[Any], *nodata: float | None) -> BoolArray:
    """Return where stored numbers do not mean "no measurement": True everywhere if no number means that."""
    valid = np.ones(np.shape(stored), np.bool_)
    for number in nodata:
        if number is None:
            continue
        # a value beyond float32 equals no number of a plane
        with np.errstate(over="ignore"):
            valid &= np.asarray(stored != number)
    return valid


class ImageReader(Protocol):
    """An image that is read in parts."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W) in pixels."""

    @property
    def georeference(self) -> Georeference | None:
        """Georeference of the whole image, where the file states it."""

    @property
    def origin(self) -> str:
        """Source of the image, for messages."""

    def read(self, window: Window) -> SensorImage:
        """Read a part of the image."""


@runtime_checkable
class OverviewReader(ImageReader, Protocol):
    """An image that can be read in a lower resolution without its other pixels."""

    def read_overview(self, window: Window, step: int) -> SensorImage:
        """Read every step-th pixel of a part."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a user points at in one image.

    Attributes:
        point_coords: (N, 2) float32 xy in pixels of the original image (column, row); (0, 0) is the centre of the
            top-left pixel.
        point_labels: (N,) int64, 1 = on the object, 0 = not on it.
        box: (4,) float32 XYXY of its outer edges, or None: X from 0, the left edge of the image, to W, the right one;
            a box around only the top-left pixel is 0, 0, 1, 1.
        mask_input: (h, w) float32 logits of an earlier prediction at the decoder's mask size, or None.
        mask_window: the part of the image that these logits cover; None is the whole image.
    """

    point_coords: FloatArray
    point_labels: npt.NDArray[np.int64]
    box: FloatArray | None = None
    mask_input: FloatArray | None = None
    mask_window: Window | None = None

    def __post_init__(self) -> None:
        if self.point_coords.ndim != 2 or self.point_coords.shape[1:] != (2,):
            raise DataError(
                f"point_coords must be (N, 2) xy, got shape {self.point_coords.shape}"
            )
        if (
            self.point_labels.shape != (len(self.point_coords),)
            or not np.isin(self.point_labels, (0, 1)).all()
        ):
            raise DataError(
                f"point_labels must be 0 or 1, one for each point, got {self.point_labels.tolist()}"
            )
        if self.box is not None and (
            self.box.shape != (4,) or not (self.box[:2] < self.box[2:]).all()
        ):
            raise DataError(
                f"box must be X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1, got {self.box.tolist()}"
            )
        if self.mask_input is not None and (
            self.mask_input.ndim != 2 or self.mask_input.dtype.kind != "f"
        ):
            raise DataError(
                f"mask_input must be (h, w) float logits, the low_res_logits of an earlier prediction, got "
                f"{self.mask_input.dtype} of {self.mask_input.shape}; mark the object by its box where there is none"
            )
        if len(self.point_coords) == 0 and self.box is None and self.mask_input is None:
            raise DataError("a prompt needs at least one point, a box or a mask")

    @classmethod
    def points(
        cls,
        positive: Sequence[tuple[float, float]],
        negative: Sequence[tuple[float, float]] = (),
    ) -> Prompt:
        """Make a prompt from xy points on the object and points not on it."""
        coords = np.asarray([*positive, *negative], dtype=np.float32).reshape(-1, 2)
        labels = np.asarray([1] * len(positive) + [0] * len(negative), dtype=np.int64)
        return cls(coords, labels)


Aspect = Literal["pad", "stretch"]
MAX_DOWNSCALE = 2
"""How much a side may be downscaled into a network's input without a loss that matters."""
MAX_DOWNSCALE_AS_TRAINED = 3
"""The same for images not larger than those of training, which the network knows at that scale."""
_MAX_BEYOND_WINDOW = 1.25
SMALL_SIDE = 16
"""Objects smaller than a square of this side, in pixels of the network's input, are hardly found."""


def max_untiled_side(
    input_side: int, image_side: int | None, *, takes_windows: bool = False
) -> int:
    """Return the longest side in pixels of an image that is not cut into windows.

    It is shrunk at most `MAX_DOWNSCALE` times to the network's `input_side`. One that is not larger than the training
    images, whose longer side is `image_side`, is shrunk at most `MAX_DOWNSCALE_AS_TRAINED` times. If these were windows
    of images (`takes_windows`), it is at most `_MAX_BEYOND_WINDOW` times as long as a window.
    """
    if takes_windows and image_side is not None:
        return round(_MAX_BEYOND_WINDOW * image_side)
    return max(
        MAX_DOWNSCALE * input_side,
        min(image_side or 0, MAX_DOWNSCALE_AS_TRAINED * input_side),
    )


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The position of one image in the S×S input.

    Attributes:
        original_hw: (height, width) of the original image in pixels.
        size: S.
        aspect: "pad" scales the longest side to S and pads right and bottom; "stretch" scales both sides to S.
    """

    original_hw: tuple[int, int]
    size: int
    aspect: Aspect = "pad"

    @property
    def scaled_hw(self) -> tuple[int, int]:
        """(height, width) of the content within the input, in input pixels."""
        if self.aspect == "stretch":
            return self.size, self.size
        height, width = self.original_hw
        scale = self.size / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    def points_to_input(self, coords_xy: FloatArray) -> FloatArray:
        """Map (..., 2) xy pixels of the original to xy pixels of the input; (0, 0) is a pixel's centre in both.

        `SamPredictor` only multiplies, so its points are up to half a pixel off, which misses small objects in a small
        input.
        """
        points = (
            np.asarray(coords_xy, dtype=np.float64) + 0.5
        ) * self._scale_xy() - 0.5
        return points.astype(np.float32)

    def points_to_original(self, coords_xy: FloatArray) -> FloatArray:
        """Map (..., 2) xy pixels of the input back to the original."""
        points = (
            np.asarray(coords_xy, dtype=np.float64) + 0.5
        ) / self._scale_xy() - 0.5
        return points.astype(np.float32)

    def boxes_to_input(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Map (..., 4) XYXY boxes of the original to the input; corners are pixel edges, so they scale."""
        return (
            np.asarray(boxes_xyxy, dtype=np.float64) * np.tile(self._scale_xy(), 2)
        ).astype(np.float32)

    def _scale_xy(self) -> FloatArray:
        (height, width), (scaled_height, scaled_width) = (
            self.original_hw,
            self.scaled_hw,
        )
        return np.asarray([scaled_width / width, scaled_height / height])

"""The objects of an image: found in label images, drawn as maps, and clicked as a user would click them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.data.card import DataCard
from simmat.data.samples import ALLOWED_MASKS, JPEG_EXTENSIONS, MASK_EXTENSIONS
from simmat.errors import DataError
from simmat.io.images import read_labels
from simmat.io.limits import LIMIT_VARIABLE, decoded_limit
from simmat.io.paths import frame_of
from simmat.types import BoolArray, FloatArray, Window, ZeroMeans

LabelArray = npt.NDArray[np.int64]

_MAX_EXACT = 2**53  # largest whole number up to which float64 is exact

MAX_OBJECTS = 1_000_000
"""Most objects of an image, whose places take about 1 GB."""
PANOPTIC = 1000
"""By rule "panoptic", a label value is the class times this, plus the number of the object in its image.

As in Cityscapes (https://github.com/mcordts/cityscapesScripts, instanceIds).
"""


def read_mask(path: Path, window: Window | None = None) -> LabelArray:
    """Read a label image, or a window of it.

    Args:
        path: 1- to 32-bit PNG, TIFF or BMP of one plane, a palette image (its indices are the labels), or an (H, W)
            .npy of integers, booleans or whole floats; or a frame of a file of masks.

    Returns:
        (H, W) int64; 1-bit images give 0 and 1.

    Raises:
        DataError: missing or damaged file, colours, fractions, a lossy format or compression, more than one page, or a
            TIFF in which 0 is white.
    """
    suffix = path.suffix.lower()
    if suffix not in (*MASK_EXTENSIONS, *JPEG_EXTENSIONS) and frame_of(path) is None:
        raise DataError(
            f"{path}: {suffix or 'no ending'} is not a mask format; allowed: {ALLOWED_MASKS}"
        )
    planes = read_labels(path, window).planes
    if len(planes) != 1:
        raise DataError(
            f"{path}: the mask has {len(planes)} planes; colours are not label numbers. Save one plane of integers: "
            "0 for background, then 1, 2, 3 … for each object or class (8 or 16 bit PNG)"
        )
    values: npt.NDArray[np.generic] = planes[0]
    if values.dtype.kind == "f":
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
            raise DataError(
                f"{path}: the mask holds fractions or NaN ({values.dtype}, {np.nanmin(numbers):g} to "
                f"{np.nanmax(numbers):g}), labels are whole numbers; threshold or round it first"
            )
    low = values.min().item()
    high = values.max().item()
    if not -_MAX_EXACT <= low <= high <= _MAX_EXACT:
        raise DataError(
            f"{path}: label values range from {low:g} to {high:g}; labels are whole numbers up to {_MAX_EXACT} (2^53)"
        )
    return values.astype(np.int64)


def check_equal_size(
    mask: Path | str,
    mask_hw: tuple[int, int],
    image: Path | str,
    image_hw: tuple[int, int],
) -> None:
    """Check that a mask and its image, named for the message, have the same (height, width)."""
    if mask_hw != image_hw:
        raise DataError(
            f"{mask}: the mask is {mask_hw[1]}x{mask_hw[0]}, the image {image} is {image_hw[1]}x{image_hw[0]} "
            "(width x height); they must be equal"
        )


def _check_count(count: int, origin: str) -> None:
    """Raise DataError for more objects in an image than it can have."""
    if count > MAX_OBJECTS:
        raise DataError(
            f"{origin or 'mask'}: has more than {MAX_OBJECTS:,} objects; cut mask and image into tiles, and check that "
            "it holds numbers of objects, not measurements"
        )


def _count_values(mask: LabelArray) -> int:
    """Return the number of different values; np.unique takes minutes for millions of them."""
    values = np.sort(mask, axis=None)
    return 1 + int(np.count_nonzero(np.diff(values)))


def check_object_pixels(pixels: int, origin: str) -> None:
    """Refuse objects of one image that would take more memory than an image may; each pixel of a window is a byte.

    A small file can hold thousands of objects that are as large as their image.

    Args:
        pixels: those of the windows of all objects so far.
        origin: file or image, for the message.

    Raises:
        DataError: they are more than `decoded_limit()` bytes.
    """
    limit = decoded_limit()
    if pixels > limit:
        raise DataError(
            f"{origin}: its objects take more than the limit of {limit / 2**30:.3g} GiB of memory, a byte for each "
            "pixel of the box around an object; the file may be damaged, or hold measurements instead of numbers of "
            "objects. If it is right, cut the image into tiles, or raise the limit: simmat --max-image-gib N … "
            f"(or {LIMIT_VARIABLE})"
        )


EIGHT = np.ones((3, 3), dtype=np.bool_)
"""Neighbourhood of connected components: pixels that touch at a corner are connected."""

_DENSE_LIMIT = 1 << 16


@dataclass(frozen=True)
class Instance:
    """One object of an image.

    Attributes:
        class_id: label value or COCO category; None if the labels are instance ids.
        window: the pixels of the image around it; not empty.
        crop: (y1 - y0, x1 - x0) bool, the region within its window.
        object_id: label value, which is the same in all frames of a sequence; None for pieces of a class, or of COCO.
    """

    class_id: int | None
    window: Window
    crop: BoolArray
    object_id: int | None = None

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.crop))

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of its outer edges in pixels, as `Predictor.predict` takes a box."""
        y0, x0, y1, x1 = self.window
        return x0, y0, x1, y1

    def pixel_xy(self, number: int) -> tuple[float, float]:
        """Return (x, y) in the image of one of its pixels, which are numbered from 0 in raster order."""
        row, column = divmod(int(np.flatnonzero(self.crop)[number]), self.crop.shape[1])
        return float(column + self.window.x0), float(row + self.window.y0)

    def mask(self, size_hw: tuple[int, int]) -> BoolArray:
        """Return the region as (H, W) bool."""
        return self.within(Window(0, 0, *size_hw))

    def within(self, window: Window) -> BoolArray:
        """Return the part of the region inside a window, as (y1 - y0, x1 - x0) bool."""
        part = np.zeros(window.size_hw, dtype=np.bool_)
        shared = window.intersection(self.window)
        if shared is not None:
            part[shared.relative_to(window).slices] = self.crop[
                shared.relative_to(self.window).slices
            ]
        return part

    def picked(
        self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
    ) -> Instance:
        """Return the region sampled at some rows and columns of the image, both ascending; it may be empty."""
        top, left, bottom, right = self.window
        y0, y1 = rows.searchsorted((top, bottom)).tolist()
        x0, x1 = columns.searchsorted((left, right)).tolist()
        crop = self.crop.take(rows[y0:y1] - top, axis=0)
        crop = crop.take(columns[x0:x1] - left, axis=1)
        return Instance(self.class_id, Window(y0, x0, y1, x1), crop)


def pixels_under_centres(size: int, scaled: int) -> npt.NDArray[np.int64]:
    """Return (scaled,): which of `size` pixels along a side contains the centre of each of `scaled` pixels.

    A centre on the border of two pixels belongs to the second, which rounded numbers could not decide.
    """
    return (2 * np.arange(scaled) + 1) * size // (2 * scaled)


@dataclass(frozen=True)
class FoundObject:
    """One object that was found in an image.

    Attributes:
        instance: its pixels in the image, with its class where the model distinguishes classes.
        score: predicted IoU; where the model has a dense head, times the probability of being an object and
            `class_probability`.
        point_xy: the click that found it, in pixels of the image.
        class_probabilities: label value -> probability, of all classes but the background; None without classes.
    """

    instance: Instance
    score: float
    point_xy: tuple[float, float]
    class_probabilities: Mapping[int, float] | None = None

    @property
    def class_probability(self) -> float | None:
        """Probability of its class; None without classes."""
        value = self.instance.class_id
        if value is None or self.class_probabilities is None:
            return None
        return self.class_probabilities[value]

    def shifted(self, y0: int, x0: int) -> FoundObject:
        """Return the object of a window whose first pixel is at row y0 and column x0, in pixels of the image."""
        x, y = self.point_xy
        moved = replace(self.instance, window=self.instance.window.moved(y0, x0))
        return replace(self, instance=moved, point_xy=(x + x0, y + y0))


@dataclass(frozen=True)
class Annotation:
    """The ground truth of one image.

    Attributes:
        size_hw: (H, W) in pixels.
        regions: of a label image by label value, then by first pixel in raster order; of COCO in the order of the
            file. They overlap only where the data set's annotations do.
        ignore: (H, W) bool, True where there is no ground truth or no measurement.
        dropped: number of regions left out, such as those smaller than the card allows.
        smallest: smallest number of pixels of a region, by the card.
        small: what was left out as too small to be prompted for or scored; these pixels keep their class.
    """

    size_hw: tuple[int, int]
    regions: tuple[Instance, ...]
    ignore: BoolArray
    dropped: int = 0
    smallest: int = 1
    small: tuple[Instance, ...] = ()


def label_from_mask(
    mask: LabelArray,
    card: DataCard,
    *,
    zero_means: ZeroMeans | None = None,
    origin: str = "",
) -> Annotation:
    """Find the regions of a label image by the card's rule.

    "instances": all pixels of one value are a region, its class unknown. "classes": the same, and the value is the
    class. "components": each 8-connected component of a value is a region of that class. "panoptic": all pixels of one
    value are a region of class value // `PANOPTIC`. Value 0 makes regions only if `zero_means` is "none"; the ignored
    value never does.

    Args:
        mask: (H, W) whole numbers.

    Raises:
        DataError: negative values that the card does not ignore, values without a class by rule "panoptic", or more
            than `MAX_OBJECTS` objects.
    """
    ignore = np.zeros(mask.shape, dtype=np.bool_)
    if card.ignore is not None:
        ignore = mask == card.ignore
    zero = (zero_means or card.zero_means) == "none"
    found: list[Instance] = []
    pixels = 0
    for value, window, crop in regions_by_value(mask, origin, card.ignore, zero=zero):
        if card.regions == "components":
            pieces = components(crop, value, window[:2], origin)
            pixels += sum(piece.crop.size for piece in pieces)
            check_object_pixels(pixels, origin or "mask")
            found += pieces
        elif card.regions == "classes":
            found.append(Instance(value, window, crop, value))
        elif card.regions == "instances":
            found.append(Instance(None, window, crop, value))
        elif value >= PANOPTIC:
            found.append(Instance(value // PANOPTIC, window, crop, value))
        else:
            raise DataError(
                f"{origin or 'mask'}: label value {value} has no class; with --regions panoptic, values are "
                f"class * {PANOPTIC} + number. Use --regions instances if objects have no classes"
            )
    size_hw = int(mask.shape[0]), int(mask.shape[1])
    return make_label(size_hw, found, ignore, card.smallest_px(size_hw))


def make_label(
    size_hw: tuple[int, int],
    regions: Sequence[Instance],
    ignore: BoolArray,
    min_region: int,
) -> Annotation:
    """Make a label of the regions of at least `min_region` pixels; the others are `small`, and counted as dropped."""
    kept: list[Instance] = []
    small: list[Instance] = []
    for region in regions:
        if region.area >= min_region:
            kept.append(region)
        else:
            small.append(region)
    return Annotation(
        size_hw, tuple(kept), ignore, len(small), min_region, tuple(small)
    )


def region_from_mask(
    mask: BoolArray,
    class_id: int | None,
    offset_yx: tuple[int, int] = (0, 0),
    object_id: int | None = None,
) -> Instance | None:
    """Return the True pixels of an (h, w) mask, which starts at `offset_yx`, as a region; None if there are none."""
    rows = np.asarray(mask.any(axis=1))
    columns = np.asarray(mask.any(axis=0))
    if not rows.any():
        return None
    y0 = int(rows.argmax())
    y1 = len(rows) - int(rows[::-1].argmax())
    x0 = int(columns.argmax())
    x1 = len(columns) - int(columns[::-1].argmax())
    window = Window(y0, x0, y1, x1)
    return Instance(
        class_id,
        window.moved(*offset_yx),
        np.ascontiguousarray(mask[window.slices]),
        object_id,
    )


def distance_inside(crop: BoolArray) -> npt.NDArray[np.float64]:
    """Return (h, w), the distance of each pixel of an (h, w) crop to the nearest one outside of its region; 0 there."""
    from scipy import ndimage

    # several times faster than np.pad
    around = np.zeros((crop.shape[0] + 2, crop.shape[1] + 2), np.bool_)
    around[1:-1, 1:-1] = crop
    return np.asarray(ndimage.distance_transform_edt(around)[1:-1, 1:-1])


def visible_part(region: Instance, ignore: BoolArray) -> Instance | None:
    """Return the part of a region that (H, W) `ignore` does not cover; None if it covers the whole region."""
    hidden = ignore[region.window.slices]
    if not hidden.any():
        return region
    return region_from_mask(
        region.crop & ~hidden, region.class_id, region.window[:2], region.object_id
    )


def visible_regions(label: Annotation) -> tuple[Instance, ...]:
    """Return the regions with at least one pixel that is not ignored."""
    if not label.ignore.any():
        return label.regions
    return tuple(
        region
        for region in label.regions
        if visible_part(region, label.ignore) is not None
    )


def components(
    mask: BoolArray,
    class_id: int | None,
    offset_yx: tuple[int, int] = (0, 0),
    origin: str = "",
) -> list[Instance]:
    """Return the 8-connected components of a mask as regions, by first pixel in raster order.

    Raises:
        DataError: they are too many, or would take too much memory, see `check_object_pixels`.
    """
    from scipy import ndimage

    numbered, count = ndimage.label(mask, structure=EIGHT)
    _check_count(count, origin)
    places = ndimage.find_objects(numbered)
    _check_places(places, origin)
    regions = []
    for number, place in enumerate(places, start=1):
        corner = (place[0].start + offset_yx[0], place[1].start + offset_yx[1])
        region = region_from_mask(numbered[place] == number, class_id, corner)
        if region is not None:
            regions.append(region)
    return regions


def count_joined(label: Annotation) -> int:
    """Return by how much the connected pieces of a label, of at least `smallest` pixels, outnumber its regions."""
    from scipy import ndimage

    joined = 0
    for region in label.regions:
        numbered, _ = ndimage.label(region.crop, structure=EIGHT)
        areas = np.bincount(numbered.ravel())[1:]
        joined += max(int(np.count_nonzero(areas >= label.smallest)) - 1, 0)
    return joined


def regions_by_value(
    mask: LabelArray, origin: str = "", ignored: int | None = None, *, zero: bool
) -> Iterator[tuple[int, Window, BoolArray]]:
    """Yield each label value except the ignored one with its window and its pixels there, in ascending order.

    Raises:
        DataError: they are too many, would take too much memory, see `check_object_pixels`, or a value is negative.
    """
    from scipy import ndimage

    low = int(mask.min())
    high = int(mask.max())
    if high - low > MAX_OBJECTS:
        _check_count(_count_values(mask), origin)
    values: Sequence[int]
    if 0 <= low <= high < _DENSE_LIMIT:  # several times faster than sorting
        values = range(0 if zero else 1, high + 1)
        numbered = mask + 1 if zero else mask
    else:
        unique, inverse = np.unique(mask, return_inverse=True)
        values = unique.tolist()
        numbered = inverse.reshape(mask.shape) + 1
    if low < 0:
        _refuse_negative(
            [value for value in values if value < 0 and value != ignored], origin
        )
    places = ndimage.find_objects(numbered)
    shown = []
    for number, (value, place) in enumerate(zip(values, places, strict=True), start=1):
        is_background = value == 0 and not zero
        if place is None or value == ignored or is_background:
            continue
        shown.append((number, value, place))
    _check_places([place for _, _, place in shown], origin)
    for number, value, place in shown:
        rows, columns = place
        yield (
            value,
            Window(rows.start, columns.start, rows.stop, columns.stop),
            numbered[place] == number,
        )


def _check_places(places: Sequence[tuple[slice, slice]], origin: str) -> None:
    """Check the memory that objects take at these rows and columns before they are cut out."""
    pixels = 0
    for rows, columns in places:
        pixels += (rows.stop - rows.start) * (columns.stop - columns.start)
    check_object_pixels(pixels, origin or "mask")


def _refuse_negative(values: Sequence[int], origin: str) -> None:
    if values:
        raise DataError(
            f"{origin or 'mask'}: label values {values[:5]} are negative; labels start at 0. If one means "
            f"'no ground truth', use --ignore {values[0]}, or ignore = {values[0]} in card.toml"
        )


def class_map(label: Annotation) -> npt.NDArray[np.int64]:
    """Return the (H, W) label values of an image: 0 outside of objects, 1 where an object has no class."""
    every = (*label.regions, *label.small)
    values = (1 if region.class_id is None else region.class_id for region in every)
    return np.asarray([0, *values], np.int64)[number_map(every, label.size_hw)]


def object_map(label: Annotation) -> npt.NDArray[np.int64]:
    """Return the (H, W) numbers of the objects from 1, in the order of `label.regions`; 0 outside of objects."""
    return number_map(label.regions, label.size_hw).astype(np.int64)


def outside_objects(label: Annotation) -> BoolArray:
    """Return (H, W) True where no object is marked."""
    return np.asarray(number_map((*label.regions, *label.small), label.size_hw) == 0)


def number_map(
    every: Sequence[Instance],
    size_hw: tuple[int, int],
    areas: Sequence[int] | None = None,
) -> npt.NDArray[np.int32]:
    """Return (H, W) 1, 2, 3 … in the order of regions; 0 outside. The one with the smaller area is in front."""
    numbers = np.zeros(size_hw, np.int32)
    areas = areas or [region.area for region in every]
    for index in sorted(range(len(every)), key=lambda index: -areas[index]):
        numbers[every[index].window.slices][every[index].crop] = index + 1
    return numbers


def center_click(mask: BoolArray | Instance) -> tuple[float, float]:
    """Return the pixel of a region that is farthest from its outside.

    This is the maximum of the Euclidean distance transform with one background pixel padded around the image, so that
    the image's border counts as outside; the first in raster order among equals.

    Args:
        mask: (H, W) bool, not empty, or a region, for which only its box is computed.

    Returns:
        (x, y), the centre of that pixel.
    """
    region = _region(mask)
    # No pixel outside the box is nearer than those just around it, so the crop is enough.
    distance = distance_inside(region.crop)
    row, column = divmod(int(np.argmax(distance)), distance.shape[1])
    return float(column + region.window.x0), float(row + region.window.y0)


def random_click(
    mask: BoolArray | Instance, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the centre (x, y) of a random pixel of an (H, W) mask or a region."""
    region = _region(mask)
    return region.pixel_xy(int(rng.integers(region.area)))


def corrective_click(
    truth: Instance, prediction: Instance | None, ignore: BoolArray
) -> tuple[tuple[float, float], int] | None:
    """Return the next click that corrects a prediction: the centre of its largest error.

    Errors are the 8-connected components of the false negatives and of the false positives. The one with the most
    pixels is clicked at its centre, see `center_click`; a false negative comes before a false positive of equal size,
    and the first in raster order before others of its kind.

    Args:
        prediction: None if it is empty.
        ignore: (H, W) bool, pixels that are neither right nor wrong.

    Returns:
        ((x, y), label), label 1 on a false negative and 0 on a false positive; None without an error.
    """
    missing = _largest_component(truth, prediction, ignore)
    extra = _largest_component(prediction, truth, ignore)
    if missing is not None and (extra is None or missing.area >= extra.area):
        return center_click(missing), 1
    if extra is not None:
        return center_click(extra), 0
    return None


def tight_box(mask: BoolArray | Instance) -> FloatArray:
    """Return the (4,) float32 XYXY box of an (H, W) mask or a region; x1 and y1 are the last column and row + 1."""
    return np.asarray(_region(mask).box_xyxy, dtype=np.float32)


def jitter_box(
    boxes: FloatArray, size_hw: tuple[int, int], rng: np.random.Generator
) -> FloatArray:
    """Move each side of boxes by up to 10 % of its length, at most 20 px (Kirillov et al. 2023, appendix A).

    Args:
        boxes: (..., 4) XYXY in pixels, inside the image, not empty.
        size_hw: of the image; the result stays inside.

    Returns:
        (..., 4) float32 XYXY.
    """
    corners = boxes.astype(np.float64)
    reach = np.minimum((corners[..., 2:] - corners[..., :2]) * 0.1, 20)
    moved = corners + rng.uniform(-1, 1, size=corners.shape) * np.concatenate(
        [reach, reach], axis=-1
    )
    height, width = size_hw
    inside: FloatArray = np.clip(
        moved, 0, np.asarray([width, height, width, height])
    ).astype(np.float32)
    return inside


def _region(mask: BoolArray | Instance) -> Instance:
    if isinstance(mask, Instance):
        return mask
    region = region_from_mask(mask, None)
    if region is None:
        raise DataError(
            "a click or a box needs a region with at least one pixel, got an empty mask"
        )
    return region


def _largest_component(
    region: Instance | None, without: Instance | None, ignore: BoolArray
) -> Instance | None:
    """Return the largest 8-connected component of a region without another one and (H, W) `ignore`; None if empty.

    It is the first in raster order among equals.
    """
    if region is None:
        return None
    from scipy import ndimage

    left = region.crop & ~ignore[region.window.slices]
    if without is not None:
        left &= ~without.within(region.window)
    around = region_from_mask(left, None, region.window[:2])
    if around is None:
        return None
    numbered, _ = ndimage.label(around.crop, structure=EIGHT)
    sizes = np.bincount(numbered.ravel())
    largest = int(np.argmax(sizes[1:])) + 1
    return region_from_mask(numbered == largest, None, around.window[:2])

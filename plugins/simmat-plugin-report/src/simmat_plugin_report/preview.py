"""Draw sheets of images of a data set, with labels, and with the colours and unit of each quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from simmat.data.dataset import Dataset
from simmat.data.instances import Instance, Label, region_from_mask
from simmat.data.samples import Sample
from simmat.drawing.colour_maps import display_style
from simmat.drawing.display import display_channels
from simmat.errors import DataError, SimMATError
from simmat.sensors.normalize import rgb_indices
from simmat.types import BoolArray, Channel, FloatArray, SensorImage
from simmat_plugin_report.channel_stats import MAX_PIXELS, windows_side_by_side, with_channels
from simmat_plugin_report.sheet import Item, Panel, Sheet

MAX_PANELS = 4
"""Most pictures of one image."""
_READ_PX = 1024
"""Side in pixels of the windows in which a large image is read."""
_VISIBLE = {"red": (0.60, 0.70, 0.665), "green": (0.50, 0.60, 0.56), "blue": (0.42, 0.52, 0.48)}
_NIR = (0.75, 1.0, 0.85)
"""Smallest, largest and best wavelength in µm."""

Problems = list[tuple[str, str]]
"""(sample id, message) of images that cannot be shown."""


def panels_of(channels: Sequence[Channel]) -> tuple[Panel, ...]:
    """Return the pictures of an image with these channels, at most `MAX_PANELS`.

    Colour cameras are shown in true colour; spectral bands in true colour if they have red, green and blue, and in
    false colour with near infrared as red; every other channel separately. Many channels of one quantity without
    wavelengths are shown as false colour of the first three.
    """
    panels: list[Panel] = []
    rest = list(range(len(channels)))
    if (rgb := rgb_indices(channels)) is not None:
        panels.append(Panel("true colour", rgb))
        rest = [index for index in rest if index not in rgb]
    bands = [
        index for index in rest if channels[index].wavelength_um and display_style(channels[index]).colours == "gray"
    ]
    if len(bands) > 2:
        rest = [index for index in rest if index not in bands]
        panels += _of_bands(channels, bands)
    if len(rest) > MAX_PANELS and len({channels[index].quantity for index in rest}) == 1:
        panels.append(Panel("false colour", tuple(rest[:3])))
        rest = []
    panels += [Panel(channels[index].name, (index,)) for index in rest]
    return tuple(panels[:MAX_PANELS])


def _of_bands(channels: Sequence[Channel], bands: Sequence[int]) -> Iterator[Panel]:
    def nearest(low: float, high: float, best: float) -> int | None:
        found = [index for index in bands if low <= (channels[index].wavelength_um or 0) <= high]
        return min(found, key=lambda index: abs((channels[index].wavelength_um or 0) - best), default=None)

    red, green, blue = (nearest(*_VISIBLE[name]) for name in ("red", "green", "blue"))
    nir = nearest(*_NIR)
    if red is not None and green is not None and blue is not None:
        yield Panel("true colour", (red, green, blue))
    if nir is not None and red is not None and green is not None:
        yield Panel("false colour", (nir, red, green))
    elif red is None or green is None or blue is None:
        picked = display_channels([channels[index] for index in bands])
        yield Panel("false colour", tuple(bands[index] for index in picked))


def preview_sheets(
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    per_sheet: int = 24,
    cell_px: int = 240,
    labels: bool = True,
    same_scale: bool = False,
    problems: Problems | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Image.Image]:
    """Draw sheets of images, with a colour bar for every channel that has a scale.

    Args:
        per_sheet: number of images on a sheet.
        cell_px: width of a picture in pixels.
        same_scale: use one colour scale for all images of a sheet; otherwise each image has its own.
        problems: list to which images that cannot be read are added; their cells are empty.

    Raises:
        DataError: there is no sample, or none can be read.
    """
    if not samples:
        raise DataError(f"{dataset.root}: no image to show")
    failed: Problems = [] if problems is None else problems
    dataset = with_channels(dataset, samples)
    count = -(-len(samples) // per_sheet)
    panels: tuple[Panel, ...] = ()
    if dataset.known_channels is not None:
        loaded, transformed = dataset.known_channels
        _, panels = _picked(transformed if any(dataset.adapter.logarithmic(loaded)) else loaded)
    for number in range(count):
        items = []
        for sample in samples[number * per_sheet : (number + 1) * per_sheet]:
            item = _read(dataset, sample, 2 * cell_px, labels=labels)
            items.append(item)
            if item.note:
                failed.append((sample.id, item.note))
            if progress is not None:
                progress(1)
        if len(failed) == len(samples):
            raise DataError(f"{dataset.root}: no image can be read; the first: {failed[0][1]}")
        part = f", sheet {number + 1} of {count}" if count > 1 else ""
        listed = len(dataset.samples) + len(dataset.unlabelled)
        title = f"{dataset.root.resolve().name} · {dataset.adapter.name} · {len(samples)} of {listed} images{part}"
        yield Sheet(dataset, items, panels, cell_px, same_scale=same_scale).draw(title)


def _picked(channels: Sequence[Channel]) -> tuple[list[int], tuple[Panel, ...]]:
    """Return the indices of the shown channels, and the pictures with indices among these."""
    panels = panels_of(channels)
    used = sorted({index for panel in panels for index in panel.channels})
    return used, tuple(Panel(panel.title, tuple(used.index(index) for index in panel.channels)) for panel in panels)


def _read(dataset: Dataset, sample: Sample, side: int, *, labels: bool) -> Item:
    try:
        large = _in_windows(dataset, sample)
        image, size_hw = _thinned(dataset, sample, large, side)
        if any(dataset.adapter.logarithmic(image.channels)):  # radar power is dark except for a few pixels
            image = dataset.adapter.transform(image)
        label = None
        if labels and (sample.has_mask or dataset.coco is not None):
            label = dataset.label(sample) if large is None else _thin_label(dataset, sample, size_hw, side)
            if label.size_hw != size_hw and large is None:
                raise DataError(
                    f"the mask is {label.size_hw[1]}x{label.size_hw[0]}, the image {size_hw[1]}x{size_hw[0]}"
                )
    except SimMATError as error:
        return Item(sample, None, (0, 0), None, str(error))
    return Item(sample, image.select(_picked(image.channels)[0]), size_hw, label)


def _thinned(
    dataset: Dataset, sample: Sample, large: tuple[int, int] | None, side: int
) -> tuple[SensorImage, tuple[int, int]]:
    """Read every n-th pixel of an image, so that its longer side has about `side` pixels; also return its full size.

    Pixels are picked, not averaged: the mean of two angles, or across a depth edge, would not be a measurement.
    """
    if large is None:
        image = dataset.image(sample)
        step = max(max(image.size_hw) // side, 1)
        thin = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
        return _cut_out(image, image.data[thin], image.valid[thin]), image.size_hw
    step, length = _steps(large, side)
    thin = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    rows: dict[int, list[SensorImage]] = {}
    for window in windows_side_by_side(large, length):
        part = dataset.image(sample.within(window))
        rows.setdefault(window.y0, []).append(_cut_out(part, part.data[thin], part.valid[thin]))
    data = np.concatenate([np.concatenate([part.data for part in row], axis=2) for row in rows.values()], axis=1)
    valid = np.concatenate([np.concatenate([part.valid for part in row], axis=2) for row in rows.values()], axis=1)
    return _cut_out(rows[0][0], data, valid), large


def _in_windows(dataset: Dataset, sample: Sample) -> tuple[int, int] | None:
    """Return the (height, width) of an image that is read in windows; None if it is read as a whole."""
    size_hw = dataset.adapter.window_size(sample.files) if sample.window is None else None
    return size_hw if size_hw is not None and size_hw[0] * size_hw[1] > MAX_PIXELS else None


def _steps(size_hw: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the step between kept pixels, and the side of a window, a multiple of the step."""
    step = max(max(size_hw) // side, 1)
    return step, max(_READ_PX // step, 1) * step


def _thin_label(dataset: Dataset, sample: Sample, size_hw: tuple[int, int], side: int) -> Label:
    """Read the label of a large image window by window, at the pixels of `_thinned`; windows cut regions."""
    step, length = _steps(size_hw, side)
    first = step // 2
    found: list[Instance] = []
    for window in windows_side_by_side(size_hw, length):
        for region in dataset.label(sample.within(window)).regions:
            top, left = region.window[:2]
            down, right = (first - top) % step, (first - left) % step  # offset of the first kept pixel
            corner = ((window.y0 + top + down) // step, (window.x0 + left + right) // step)
            kept = region_from_mask(region.crop[down::step, right::step], region.class_id, corner)
            if kept is not None:
                found.append(kept)
    height, width = (len(range(first, length, step)) for length in size_hw)
    return Label((height, width), tuple(found), np.zeros((height, width), np.bool_))


def _cut_out(image: SensorImage, data: FloatArray, valid: BoolArray) -> SensorImage:
    return SensorImage(np.ascontiguousarray(data), np.ascontiguousarray(valid), image.channels, image.origin)

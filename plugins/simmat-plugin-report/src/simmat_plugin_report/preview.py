"""Draw sheets of images of a data set, with labels, and with the colours and unit of each quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, evenly_spaced
from simmat.drawing.display import display_channels, display_style
from simmat.errors import DataError, SimMATError
from simmat.sensors.normalize import rgb_indices
from simmat.types import Channel, SensorImage, Window
from simmat_plugin_report.channel_stats import MAX_PIXELS, with_channels
from simmat_plugin_report.sheet import CELL_PX, Item, Panel, Sheet

MAX_PANELS = 4
"""Most pictures of one image."""
_MIDDLE_PX = 1024
"""Side in pixels of the part of a large image that is shown."""
PER_SHEET = 24
"""Number of images on a sheet."""
Problems = list[tuple[str, str]]
"""(sample id, message) of images that cannot be shown."""


_STRIP = 6
"""Frames of a sequence on a sheet."""


def shown_samples(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` samples, spread evenly; of sequences `_STRIP` frames each, in their order."""
    if not any(sample.sequence for sample in samples):
        return evenly_spaced(samples, count)
    sequences: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.frame):
        sequences.setdefault(sample.sequence, []).append(sample)
    names = evenly_spaced(sorted(sequences), -(-count // _STRIP))
    return tuple(frame for name in names for frame in evenly_spaced(sequences[name], _STRIP))[:count]


def panels_of(channels: Sequence[Channel]) -> tuple[Panel, ...]:
    """Return the pictures of an image with these channels, at most `MAX_PANELS`.

    Colour cameras are shown in true colour, three or more spectral bands in false colour, from the longest wavelength
    as red to the shortest as blue, and every other channel separately. Many channels of one quantity without
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
        shown = display_channels([channels[index] for index in bands])
        panels.append(Panel("false colour", tuple(bands[index] for index in shown)))
    if len(rest) > MAX_PANELS and len({channels[index].quantity for index in rest}) == 1:
        panels.append(Panel("false colour", tuple(rest[:3])))
        rest = []
    panels += [Panel(channels[index].name, (index,)) for index in rest]
    return tuple(panels[:MAX_PANELS])


def preview_sheets(
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    labels: bool = True,
    same_scale: bool = False,
    problems: Problems | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Image.Image]:
    """Draw sheets of images, with a colour bar for every channel that has a scale.

    Args:
        same_scale: use one colour scale for all images of a sheet; otherwise each image has its own.
        problems: list to which images that cannot be read are added; their cells are empty.

    Raises:
        DataError: there is no sample, or none can be read.
    """
    if not samples:
        raise DataError(f"{dataset.root}: no image to show")
    failed: Problems = [] if problems is None else problems
    dataset = with_channels(dataset, samples)
    count = -(-len(samples) // PER_SHEET)
    panels: tuple[Panel, ...] = ()
    if dataset.known_channels is not None:
        loaded, transformed = dataset.known_channels
        _, panels = _picked(transformed if any(dataset.adapter.logarithmic(loaded)) else loaded)
    for number in range(count):
        items = []
        for sample in samples[number * PER_SHEET : (number + 1) * PER_SHEET]:
            item = _read(dataset, sample, labels=labels)
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
        yield Sheet(dataset, items, panels, same_scale=same_scale).draw(title)


def _picked(channels: Sequence[Channel]) -> tuple[list[int], tuple[Panel, ...]]:
    """Return the indices of the shown channels, and the pictures with indices among these."""
    panels = panels_of(channels)
    used = sorted({index for panel in panels for index in panel.channels})
    return used, tuple(Panel(panel.title, tuple(used.index(index) for index in panel.channels)) for panel in panels)


def _read(dataset: Dataset, sample: Sample, *, labels: bool) -> Item:
    """Read an image and its label, of a large image the middle."""
    try:
        size_hw = dataset.adapter.window_size(sample.files) if sample.window is None else None
        if is_large := size_hw is not None and size_hw[0] * size_hw[1] > MAX_PIXELS:
            (y0, height), (x0, width) = (
                (max(length - _MIDDLE_PX, 0) // 2, min(length, _MIDDLE_PX)) for length in size_hw
            )
            sample = sample.within(Window(y0, x0, y0 + height, x0 + width))
        image = dataset.image(sample)
        if any(dataset.adapter.logarithmic(image.channels)):  # radar power is dark except for a few pixels
            image = dataset.adapter.transform(image)
        label = dataset.label(sample, image) if labels and dataset.is_labelled(sample) else None
    except SimMATError as error:
        return Item(sample, None, (0, 0), None, str(error))
    step = max(max(image.size_hw) // (2 * CELL_PX), 1)  # picked, not averaged: two angles have no mean
    rows = slice(step // 2, None, step)
    data, valid = np.ascontiguousarray(image.data[:, rows, rows]), np.ascontiguousarray(image.valid[:, rows, rows])
    thinned = SensorImage(data, valid, image.channels, image.origin).select(_picked(image.channels)[0])
    return Item(sample, thinned, size_hw or image.size_hw, label, is_middle=is_large)

"""Draw sheets of images of a data set, with labels, and with the colours and unit of each quantity."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simmat.data.card import class_title
from simmat.data.dataset import Dataset
from simmat.data.instances import Annotation
from simmat.data.samples import Sample, evenly_spaced
from simmat.drawing.display import (
    Limits,
    colour_bar,
    display_channels,
    display_limits,
    display_style,
    show_channels,
)
from simmat.drawing.found import with_legend
from simmat.drawing.overlay import (
    Colour,
    class_colour,
    font,
    object_colour,
    paint_regions,
    region_colours,
    region_map,
)
from simmat.errors import DataError, SimMATError
from simmat.sensors.normalize import rgb_indices
from simmat.terminal import escape
from simmat.types import Channel, SensorImage, Window
from simmat_plugin_report.channel_stats import MAX_PIXELS, with_channels

MAX_PANELS = 4
"""Most pictures of one image."""
MIDDLE_PX = 1024
"""Side in pixels of the part of a large image that is shown."""
PER_SHEET = 24
"""Number of images on a sheet."""
Problems = list[tuple[str, str]]
"""(sample id, message) of images that cannot be shown."""


_STRIP = 6
"""Frames of a sequence on a sheet."""

GROUND: Colour = (22, 24, 29)
CELL_GROUND: Colour = (34, 37, 44)
TEXT: Colour = (236, 238, 242)
FAINT: Colour = (160, 166, 178)

GAP = 10
MARGIN = 18
LINE = 24

CELL_PX = 240
"""Width of a picture."""
_SHEET_PX = 1560
"""Approximate width of a sheet in pixels."""
_FILL = 0.3


class PreviewPanel(NamedTuple):
    """One picture of an image.

    Attributes:
        channels: index of the shown channel, or of those shown as red, green and blue.
    """

    title: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class PreviewItem:
    """One image on a sheet.

    Attributes:
        image: the shown channels, reduced to about the size of a cell.
        size_hw: (height, width) of the whole image in pixels.
        label: label of the image; None without a label.
        note: why the image cannot be shown; "" if it can.
        is_middle: True if `image` and `label` are of the middle of a large image.
    """

    sample: Sample
    image: SensorImage | None
    size_hw: tuple[int, int]
    label: Annotation | None
    note: str = ""
    is_middle: bool = False


def track_numbers(item: PreviewItem) -> list[int]:
    """Return the numbers that colour the regions: in a sequence their ids, so that a track keeps its colour."""
    regions = item.label.regions if item.label is not None else ()
    ids = [region.object_id for region in regions] if item.sample.sequence else []
    return [
        index if id is None else id
        for index, id in enumerate(ids or [None] * len(regions))
    ]


class Sheet:
    """Draws images of a data set in rows, each with its colour bars and labels."""

    def __init__(
        self,
        dataset: Dataset,
        items: Sequence[PreviewItem],
        panels: Sequence[PreviewPanel],
        *,
        same_scale: bool,
    ) -> None:
        self._items, self._panels = items, panels
        shown = [item.image for item in items if item.image is not None]
        tallest = max(
            (image.size_hw[0] / image.size_hw[1] for image in shown), default=1.0
        )
        self._cell = (CELL_PX, max(round(CELL_PX * min(tallest, 1.25)), CELL_PX // 3))
        self._limits: dict[int, Limits] = {}
        if same_scale and shown:
            for panel in panels:
                if len(panel.channels) == 1:
                    (index,) = panel.channels
                    values = np.concatenate(
                        [image.data[index][image.valid[index]] for image in shown]
                    )[None]
                    style = display_style(shown[0].channels[index])
                    self._limits[index] = display_limits(
                        values, np.ones(values.shape, np.bool_), style
                    )
        found = {
            region.class_id
            for item in items
            if item.label
            for region in item.label.regions
        }
        self._by_class = dataset.has_classes and None not in found
        self._legend: list[tuple[Colour, str]] = []
        names = dataset.class_names
        if self._by_class and (len(found) > 1 or found & set(names)):
            present = sorted(number for number in found if number is not None)
            self._legend = [
                (class_colour(number), escape(class_title(number, names), keep=""))
                for number in present
            ]

    def draw(self, title: str) -> Image.Image:
        """Return the sheet under a title."""
        width = max(len(self._panels), 1) * (self._cell[0] + GAP) - GAP
        columns = min(
            max((_SHEET_PX + 2 * GAP) // (width + 2 * GAP), 1), len(self._items)
        )
        height = LINE + self._cell[1] + 2 * LINE
        places = self.places(columns)
        rows = places[-1][0] + 1
        full = max(2 * MARGIN + columns * (width + 2 * GAP) - 2 * GAP, 420)
        head = MARGIN + LINE + GAP
        sheet = Image.new(
            "RGB", (full, head + rows * (height + GAP) + MARGIN - GAP), GROUND
        )
        pen = ImageDraw.Draw(sheet)
        face = font(17, bold=True)
        pen.text(
            (MARGIN, MARGIN),
            shorten(title, face, full - 2 * MARGIN),
            font=face,
            fill=TEXT,
        )
        for (row, column), item in zip(places, self._items, strict=True):
            self._block(
                sheet,
                pen,
                item,
                MARGIN + column * (width + 2 * GAP),
                head + row * (height + GAP),
                width,
            )
        return with_legend(sheet, self._legend)

    def places(self, columns: int) -> list[tuple[int, int]]:
        """Return row and column of each item; a sequence starts a new row."""
        places = [(0, 0)]
        for before, item in pairwise(self._items):
            row, column = places[-1]
            is_next = (
                before.sample.sequence != item.sample.sequence or column + 1 == columns
            )
            places.append((row + 1, 0) if is_next else (row, column + 1))
        return places

    def _block(
        self,
        sheet: Image.Image,
        pen: ImageDraw.ImageDraw,
        item: PreviewItem,
        left: int,
        top: int,
        width: int,
    ) -> None:
        face, small = font(13, bold=True), font(12)
        size = f"{item.size_hw[1]}x{item.size_hw[0]}" if item.image else ""
        count = len(item.label.regions) if item.label else 0
        objects = (
            f"{count} region{'s' * (count != 1)}"
            if item.label is not None and not item.is_middle
            else ""
        )
        size += ", middle" * item.is_middle
        # the same in a strip, where names are long
        about = () if item.sample.sequence else (item.sample.split, size)
        note = " · ".join(filter(None, (*about, objects)))
        room = width - int(small.getlength(note)) - GAP
        name = shorten(item.sample.id, face, room if room > 60 else width)
        pen.text((left, top + 4), name, font=face, fill=TEXT)
        if room > 60:
            pen.text((left + width, top + 4), note, font=small, fill=FAINT, anchor="ra")
        top += LINE
        for number, panel in enumerate(self._panels):
            x = left + number * (self._cell[0] + GAP)
            pen.rectangle(
                (x, top, x + self._cell[0] - 1, top + self._cell[1] - 1),
                fill=CELL_GROUND,
            )
            if item.image is not None:
                self._picture(sheet, item, item.image, panel, x, top)
                self._caption(pen, item.image, panel, x, top + self._cell[1] + 3)
        if item.image is None:
            lines = textwrap.wrap(
                escape(f"cannot be read: {item.note}", keep=""), (width - 16) // 7
            )
            for number, line in enumerate(lines[: max((self._cell[1] - 16) // 15, 1)]):
                pen.text(
                    (left + 8, top + 8 + 15 * number), line, font=font(11), fill=TEXT
                )

    def _picture(
        self,
        sheet: Image.Image,
        item: PreviewItem,
        image: SensorImage,
        panel: PreviewPanel,
        left: int,
        top: int,
    ) -> None:
        height, width = image.size_hw
        scale = min(self._cell[0] / width, self._cell[1] / height)
        inner = (max(round(width * scale), 1), max(round(height * scale), 1))
        picture = Image.fromarray(
            show_channels(image, panel.channels, self._limits.get(panel.channels[0]))
        )
        larger = inner[0] >= picture.width
        picture = picture.resize(
            inner, Image.Resampling.NEAREST if larger else Image.Resampling.BOX
        )
        if item.label is not None:
            regions = item.label.regions
            numbers = region_map(regions, item.label.size_hw, inner)
            colours = (
                region_colours(regions)
                if self._by_class
                else [object_colour(number) for number in track_numbers(item)]
            )
            picture = Image.fromarray(
                paint_regions(np.asarray(picture), numbers, colours, fill=_FILL)
            )
        corner = (
            left + (self._cell[0] - inner[0]) // 2,
            top + (self._cell[1] - inner[1]) // 2,
        )
        sheet.paste(picture, corner)

    def _caption(
        self,
        pen: ImageDraw.ImageDraw,
        image: SensorImage,
        panel: PreviewPanel,
        left: int,
        top: int,
    ) -> None:
        """Write the title of a picture and its scale."""
        small, width = font(12), self._cell[0]
        channels = [image.channels[index] for index in panel.channels]
        look = display_style(channels[0])
        title = panel.title if len(channels) > 1 else f"{panel.title} [{look.unit}]"
        pen.text((left, top), shorten(title, small, width), font=small, fill=FAINT)
        top += LINE - 5
        if len(channels) > 1:
            names = ", ".join(
                f"{letter} {channel.name}"
                for letter, channel in zip("RGB", channels, strict=True)
            )
            pen.text((left, top), shorten(names, small, width), font=small, fill=FAINT)
            return
        (index,) = panel.channels
        plane, valid = image.data[index], image.valid[index]
        if not valid.any():
            pen.text((left, top), "no valid pixel", font=small, fill=FAINT)
            return
        low, high = self._limits.get(index) or display_limits(plane, valid, look)
        texts = [
            _number(look.shown(value), look.shown(high) - look.shown(low))
            for value in (low, high)
        ]
        first, last = (int(small.getlength(text)) for text in texts)
        pen.text((left, top), texts[0], font=small, fill=TEXT)
        pen.text((left + width, top), texts[1], font=small, fill=TEXT, anchor="ra")
        begin, end = left + first + 7, left + width - last - 7
        for x, colour in zip(
            range(begin, end), colour_bar(look, max(end - begin, 0)), strict=True
        ):
            pen.line((x, top + 3, x, top + 12), fill=colour)


def _number(value: float, span: float) -> str:
    """Format a number with the digits that its scale needs: 21.3 for a span of 20, 0.0213 for 0.02."""
    if not span > 0:
        return f"{value:.4g}"
    digits = min(max(2 - int(np.floor(np.log10(span))), 0), 6)
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.4g}"


def shorten(text: str, face: ImageFont.FreeTypeFont, room: int) -> str:
    """Shorten a text in the middle to at most `room` pixels; characters that cannot be drawn are escaped."""
    text = escape(text, keep="")
    if face.getlength(text) <= room:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = text[: (keep + 1) // 2] + "…" + text[-(keep // 2) :]
        if face.getlength(short) <= room:
            return short
    return "…"


def shown_samples(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` samples, spread evenly; of sequences `_STRIP` frames each, in their order."""
    if not any(sample.sequence for sample in samples):
        return evenly_spaced(samples, count)
    sequences: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.frame):
        sequences.setdefault(sample.sequence, []).append(sample)
    names = evenly_spaced(sorted(sequences), -(-count // _STRIP))
    return tuple(
        frame for name in names for frame in evenly_spaced(sequences[name], _STRIP)
    )[:count]


def panels_of(channels: Sequence[Channel]) -> tuple[PreviewPanel, ...]:
    """Return the pictures of an image with these channels, at most `MAX_PANELS`.

    Colour cameras are shown in true colour, three or more spectral bands in false colour, from the longest wavelength
    as red to the shortest as blue, and every other channel separately. Many channels of one quantity without
    wavelengths are shown as false colour of the first three.
    """
    panels: list[PreviewPanel] = []
    rest = list(range(len(channels)))
    if (rgb := rgb_indices(channels)) is not None:
        panels.append(PreviewPanel("true colour", rgb))
        rest = [index for index in rest if index not in rgb]
    bands = [
        index
        for index in rest
        if channels[index].wavelength_um
        and display_style(channels[index]).colours == "gray"
    ]
    if len(bands) > 2:
        rest = [index for index in rest if index not in bands]
        shown = display_channels([channels[index] for index in bands])
        panels.append(
            PreviewPanel("false colour", tuple(bands[index] for index in shown))
        )
    if (
        len(rest) > MAX_PANELS
        and len({channels[index].quantity for index in rest}) == 1
    ):
        panels.append(PreviewPanel("false colour", tuple(rest[:3])))
        rest = []
    panels += [PreviewPanel(channels[index].name, (index,)) for index in rest]
    return tuple(panels[:MAX_PANELS])


def preview_sheets(
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    labels: bool = True,
    same_scale: bool = False,
    problems: Problems | None = None,
    progress: Callable[[int], object] = lambda _: None,
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
    panels: tuple[PreviewPanel, ...] = ()
    if dataset.known_channels is not None:
        loaded, transformed = dataset.known_channels
        _, panels = _picked(
            transformed if any(dataset.adapter.is_log_scale(loaded)) else loaded
        )
    for number in range(count):
        items = []
        for sample in samples[number * PER_SHEET : (number + 1) * PER_SHEET]:
            item = read_item(dataset, sample, labels=labels)
            items.append(item)
            if item.note:
                failed.append((sample.id, item.note))
            progress(1)
        if len(failed) == len(samples):
            raise DataError(
                f"{dataset.root}: no image can be read; the first: {failed[0][1]}"
            )
        part = f", sheet {number + 1} of {count}" if count > 1 else ""
        listed = len(dataset.samples) + len(dataset.unlabelled)
        title = f"{dataset.root.resolve().name} · {dataset.adapter.name} · {len(samples)} of {listed} images{part}"
        yield Sheet(dataset, items, panels, same_scale=same_scale).draw(title)


def _picked(channels: Sequence[Channel]) -> tuple[list[int], tuple[PreviewPanel, ...]]:
    """Return the indices of the shown channels, and the pictures with indices among these."""
    panels = panels_of(channels)
    used = sorted({index for panel in panels for index in panel.channels})
    return used, tuple(
        PreviewPanel(panel.title, tuple(used.index(index) for index in panel.channels))
        for panel in panels
    )


def read_item(dataset: Dataset, sample: Sample, *, labels: bool) -> PreviewItem:
    """Read an image and its label, of a large image the middle."""
    try:
        size_hw = (
            dataset.adapter.window_size(sample.files) if sample.window is None else None
        )
        if is_large := size_hw is not None and size_hw[0] * size_hw[1] > MAX_PIXELS:
            (y0, height), (x0, width) = (
                (max(length - MIDDLE_PX, 0) // 2, min(length, MIDDLE_PX))
                for length in size_hw
            )
            sample = sample.within(Window(y0, x0, y0 + height, x0 + width))
        image = dataset.image(sample)
        # radar power is dark except for a few pixels
        if any(dataset.adapter.is_log_scale(image.channels)):
            image = dataset.adapter.transform(image)
        label = (
            dataset.label(sample, image)
            if labels and dataset.is_labelled(sample)
            else None
        )
    except SimMATError as error:
        return PreviewItem(sample, None, (0, 0), None, str(error))
    # picked, not averaged: two angles have no mean
    step = max(max(image.size_hw) // (2 * CELL_PX), 1)
    rows = slice(step // 2, None, step)
    data, valid = (
        np.ascontiguousarray(image.data[:, rows, rows]),
        np.ascontiguousarray(image.valid[:, rows, rows]),
    )
    thinned = SensorImage(data, valid, image.channels, image.origin).select(
        _picked(image.channels)[0]
    )
    return PreviewItem(
        sample, thinned, size_hw or image.size_hw, label, is_middle=is_large
    )

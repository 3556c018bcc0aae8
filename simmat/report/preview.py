"""Sheets of the images of a data set, each quantity in its own colours and unit, with the labels drawn over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simmat.data.card import class_title
from simmat.data.channel_stats import MOST_PIXELS, windows_side_by_side, with_channels
from simmat.data.dataset import Dataset
from simmat.data.instances import Instance, Label, region_from_mask
from simmat.data.samples import Sample
from simmat.errors import DataError, SimMATError
from simmat.report.colour_maps import colour_bar, look_of
from simmat.report.display import Limits, display_channels, limits_of, show_channels
from simmat.report.overlay import Colour, font
from simmat.report.regions import class_colours, object_colours, paint_regions, region_map
from simmat.sensors.normalize import rgb_indices
from simmat.terminal import escape
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

GROUND: Colour = (22, 24, 29)
CELL_GROUND: Colour = (34, 37, 44)
TEXT: Colour = (236, 238, 242)
FAINT: Colour = (160, 166, 178)

GAP = 10
MARGIN = 18
LINE = 24

MOST_PANELS = 4
"""Pictures of one image, at most."""
_SHEET_PX = 1560
"""Width of a sheet, about."""
_FILL = 0.3
_IGNORED: Colour = (150, 150, 150)
_READ_PX = 1024
"""Side of the windows in which an image larger than memory is read."""
_VISIBLE = {"red": (0.60, 0.70, 0.665), "green": (0.50, 0.60, 0.56), "blue": (0.42, 0.52, 0.48)}
_NIR = (0.75, 1.0, 0.85)
"""From, to and best wavelength in µm."""

Problems = list[tuple[str, str]]
"""(sample id, message) of images that cannot be shown."""


class Panel(NamedTuple):
    """One picture of an image.

    Attributes:
        title: written below it.
        channels: the channel that is shown, or those shown as red, green and blue.
    """

    title: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class _Item:
    """One image as a sheet shows it.

    Attributes:
        sample: of the data set.
        image: the channels that are shown, thinned out to about the size of a cell.
        size_hw: of the whole image.
        label: of the whole image, or of as many pixels as are kept of a large one; None where it has none.
        note: why it cannot be shown; "" if it can.
    """

    sample: Sample
    image: SensorImage | None
    size_hw: tuple[int, int]
    label: Label | None
    note: str = ""


def panels_of(channels: Sequence[Channel]) -> tuple[Panel, ...]:
    """Return the pictures that show an image of these channels, at most `MOST_PANELS`.

    Colour cameras in true colour, spectral bands in true colour where they have red, green and blue and in false colour
    with near infrared as red; every other channel by itself. Many channels without wavelengths, of one quantity, are a
    false colour of the first three.
    """
    panels: list[Panel] = []
    rest = list(range(len(channels)))
    if (rgb := rgb_indices(channels)) is not None:
        panels.append(Panel("true colour", rgb))
        rest = [index for index in rest if index not in rgb]
    bands = [index for index in rest if channels[index].wavelength_um and look_of(channels[index]).colours == "gray"]
    if len(bands) > 2:
        rest = [index for index in rest if index not in bands]
        panels += _of_bands(channels, bands)
    if len(rest) > MOST_PANELS and len({channels[index].quantity for index in rest}) == 1:
        panels.append(Panel("false colour", tuple(rest[:3])))
        rest = []
    panels += [Panel(channels[index].name, (index,)) for index in rest]
    return tuple(panels[:MOST_PANELS])


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
    progress: Callable[[int], None] | None = None,
) -> Iterator[Image.Image]:
    """Draw sheets of some images; each image has a colour bar for every channel with a scale.

    Args:
        dataset: whose samples they are.
        samples: at least one.
        per_sheet: images on a sheet.
        cell_px: width of a picture in pixels.
        labels: draw the regions over the pictures.
        same_scale: the same values have the same colours in all images of a sheet; otherwise each has its own scale.
        problems: images that cannot be read are added to it; they have an empty cell.
        progress: called with the number of images that were read.

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
        yield _Sheet(dataset, items, panels, cell_px, same_scale=same_scale).draw(title)


def _picked(channels: Sequence[Channel]) -> tuple[list[int], tuple[Panel, ...]]:
    """Return the channels that are shown, and the pictures of these alone."""
    panels = panels_of(channels)
    used = sorted({index for panel in panels for index in panel.channels})
    return used, tuple(Panel(panel.title, tuple(used.index(index) for index in panel.channels)) for panel in panels)


def _read(dataset: Dataset, sample: Sample, side: int, *, labels: bool) -> _Item:
    try:
        image, size_hw = _thinned(dataset, sample, side)
        if any(dataset.adapter.logarithmic(image.channels)):  # a radar's power is all dark but for a few pixels
            image = dataset.adapter.transform(image)
        label = None
        if labels and (sample.has_mask or dataset.coco is not None):
            if _in_windows(dataset, sample) is not None:
                label = _thin_label(dataset, sample, size_hw, side)
            else:
                label = dataset.label(sample)
            if label.size_hw != size_hw and _in_windows(dataset, sample) is None:
                raise DataError(
                    f"the mask is {label.size_hw[1]}x{label.size_hw[0]}, the image {size_hw[1]}x{size_hw[0]}"
                )
    except SimMATError as error:
        return _Item(sample, None, (0, 0), None, str(error))
    return _Item(sample, image.select(_picked(image.channels)[0]), size_hw, label)


def _thinned(dataset: Dataset, sample: Sample, side: int) -> tuple[SensorImage, tuple[int, int]]:
    """Read an image and keep every n-th pixel, so that about `side` are left of its longer side; return its size too.

    Pixels are picked, not averaged: the mean of two angles, or of a hole and what is around it, is no measurement.
    """
    size_hw = _in_windows(dataset, sample)
    if size_hw is None:
        image = dataset.image(sample)
        step = max(max(image.size_hw) // side, 1)
        thin = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
        return _cut_out(image, image.data[thin], image.valid[thin]), image.size_hw
    step, length = _steps(size_hw, side)
    thin = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    rows: dict[int, list[SensorImage]] = {}
    for window in windows_side_by_side(size_hw, length):
        part = dataset.image(sample.within(window))
        rows.setdefault(window.y0, []).append(_cut_out(part, part.data[thin], part.valid[thin]))
    data = np.concatenate([np.concatenate([part.data for part in row], axis=2) for row in rows.values()], axis=1)
    valid = np.concatenate([np.concatenate([part.valid for part in row], axis=2) for row in rows.values()], axis=1)
    return _cut_out(rows[0][0], data, valid), size_hw


def _in_windows(dataset: Dataset, sample: Sample) -> tuple[int, int] | None:
    """Return the (height, width) of an image that is read in windows; None if it is read as a whole."""
    size_hw = dataset.adapter.window_size(sample.files) if sample.window is None else None
    return size_hw if size_hw is not None and size_hw[0] * size_hw[1] > MOST_PIXELS else None


def _steps(size_hw: tuple[int, int], side: int) -> tuple[int, int]:
    """Return which pixel of how many is kept along a side, and the side of a window, a multiple of it."""
    step = max(max(size_hw) // side, 1)
    return step, max(_READ_PX // step, 1) * step


def _thin_label(dataset: Dataset, sample: Sample, size_hw: tuple[int, int], side: int) -> Label:
    """Read the label of a large image window by window, at the pixels that `_thinned` keeps; regions are cut there."""
    step, length = _steps(size_hw, side)
    first = step // 2
    found: list[Instance] = []
    for window in windows_side_by_side(size_hw, length):
        for region in dataset.label(sample.within(window)).regions:
            top, left = region.box[:2]
            down, right = (first - top) % step, (first - left) % step  # to the first pixel that is kept
            corner = ((window.y0 + top + down) // step, (window.x0 + left + right) // step)
            kept = region_from_mask(region.crop[down::step, right::step], region.class_id, corner)
            if kept is not None:
                found.append(kept)
    height, width = (len(range(first, length, step)) for length in size_hw)
    return Label((height, width), tuple(found), np.zeros((height, width), np.bool_))


def _cut_out(image: SensorImage, data: FloatArray, valid: BoolArray) -> SensorImage:
    return SensorImage(np.ascontiguousarray(data), np.ascontiguousarray(valid), image.channels, image.origin)


class _Sheet:
    """Draws one sheet."""

    def __init__(
        self, dataset: Dataset, items: Sequence[_Item], panels: Sequence[Panel], cell_px: int, *, same_scale: bool
    ) -> None:
        self._names, self._items, self._panels = dataset.class_names, items, panels
        shown = [item.image for item in items if item.image is not None]
        tallest = max((image.size_hw[0] / image.size_hw[1] for image in shown), default=1.0)
        self._cell = (cell_px, max(round(cell_px * min(tallest, 1.25)), cell_px // 3))
        self._limits: dict[int, Limits] = {}
        if same_scale and shown:
            for panel in panels:
                if len(panel.channels) == 1:
                    (index,) = panel.channels
                    self._limits[index] = _limits_of_all([image.select([index]) for image in shown])
        self._classes: dict[int, Colour] = {}
        self._present: list[int] = []
        found = {region.class_id for item in items if item.label for region in item.label.regions}
        if dataset.has_classes and None not in found:
            every = sorted({*self._names, *(number for number in found if number is not None)})
            self._classes = dict(zip(every, class_colours(len(every)), strict=True))
            self._present = [number for number in every if number in found]
        self._titles = {number: escape(class_title(number, self._names), keep="") for number in self._present}

    def draw(self, title: str) -> Image.Image:
        width = max(len(self._panels), 1) * (self._cell[0] + GAP) - GAP
        columns = min(max((_SHEET_PX + 2 * GAP) // (width + 2 * GAP), 1), len(self._items))
        height = LINE + self._cell[1] + 2 * LINE
        rows = -(-len(self._items) // columns)
        full = max(2 * MARGIN + columns * (width + 2 * GAP) - 2 * GAP, 420)
        head = MARGIN + LINE + GAP
        legend = self._legend(full)
        foot = legend.height if legend else 0
        sheet = Image.new("RGB", (full, head + rows * (height + GAP) + foot + MARGIN - GAP), GROUND)
        pen = ImageDraw.Draw(sheet)
        face = font(17, bold=True)
        pen.text((MARGIN, MARGIN), shorten(title, face, full - 2 * MARGIN), font=face, fill=TEXT)
        for number, item in enumerate(self._items):
            row, column = divmod(number, columns)
            self._block(sheet, pen, item, MARGIN + column * (width + 2 * GAP), head + row * (height + GAP), width)
        if legend:
            sheet.paste(legend, (MARGIN, sheet.height - foot - MARGIN // 2))
        return sheet

    def _block(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, item: _Item, left: int, top: int, width: int
    ) -> None:
        face, small = font(13, bold=True), font(12)
        size = f"{item.size_hw[1]}x{item.size_hw[0]}" if item.image else ""
        count = len(item.label.regions) if item.label else 0
        is_whole = item.label is not None and item.label.size_hw == item.size_hw
        objects = f"{count} region{'s' * (count != 1)}" if is_whole else ""
        note = " · ".join(filter(None, (item.sample.split, size, objects)))
        room = width - int(small.getlength(note)) - GAP
        name = shorten(item.sample.id, face, room if room > 60 else width)
        pen.text((left, top + 4), name, font=face, fill=TEXT)
        if room > 60:
            pen.text((left + width, top + 4), note, font=small, fill=FAINT, anchor="ra")
        top += LINE
        for number, panel in enumerate(self._panels):
            x = left + number * (self._cell[0] + GAP)
            pen.rectangle((x, top, x + self._cell[0] - 1, top + self._cell[1] - 1), fill=CELL_GROUND)
            if item.image is not None:
                self._picture(sheet, item, item.image, panel, x, top)
                self._caption(sheet, pen, item.image, panel, x, top + self._cell[1] + 3)
        if item.image is None:
            _write_lines(pen, f"cannot be read: {item.note}", left + 8, top + 8, width - 16, self._cell[1] - 16)

    def _picture(self, sheet: Image.Image, item: _Item, image: SensorImage, panel: Panel, left: int, top: int) -> None:
        height, width = item.size_hw
        scale = min(self._cell[0] / width, self._cell[1] / height)
        inner = (max(round(width * scale), 1), max(round(height * scale), 1))
        picture = Image.fromarray(show_channels(image, panel.channels, self._limits.get(panel.channels[0])))
        larger = inner[0] >= picture.width
        picture = picture.resize(inner, Image.Resampling.NEAREST if larger else Image.Resampling.BOX)
        if item.label is not None:
            regions = item.label.regions
            numbers = region_map(regions, item.label.size_hw, inner)
            colours = (
                [self._classes.get(region.class_id or 0, _IGNORED) for region in regions]
                if self._classes
                else object_colours(len(regions))
            )
            picture = Image.fromarray(paint_regions(np.asarray(picture), numbers, colours, fill=_FILL))
        corner = (left + (self._cell[0] - inner[0]) // 2, top + (self._cell[1] - inner[1]) // 2)
        sheet.paste(picture, corner)

    def _caption(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, image: SensorImage, panel: Panel, left: int, top: int
    ) -> None:
        """Write what a picture shows, and its scale."""
        small, width = font(12), self._cell[0]
        channels = [image.channels[index] for index in panel.channels]
        look = look_of(channels[0])
        title = panel.title if len(channels) > 1 else f"{panel.title} [{look.unit}]"
        pen.text((left, top), shorten(title, small, width), font=small, fill=FAINT)
        top += LINE - 5
        if len(channels) > 1:
            names = ", ".join(f"{letter} {channel.name}" for letter, channel in zip("RGB", channels, strict=True))
            pen.text((left, top), shorten(names, small, width), font=small, fill=FAINT)
            return
        (index,) = panel.channels
        plane, valid = image.data[index], image.valid[index]
        if not valid.any():
            pen.text((left, top), "no valid pixel", font=small, fill=FAINT)
            return
        low, high = self._limits.get(index) or limits_of(plane, valid, look)
        texts = [_number(look.shown(value), look.shown(high) - look.shown(low)) for value in (low, high)]
        first, last = (int(small.getlength(text)) for text in texts)
        pen.text((left, top), texts[0], font=small, fill=TEXT)
        pen.text((left + width, top), texts[1], font=small, fill=TEXT, anchor="ra")
        begin, end = left + first + 7, left + width - last - 7
        for x, colour in zip(range(begin, end), colour_bar(look, max(end - begin, 0)), strict=True):
            pen.line((x, top + 3, x, top + 12), fill=colour)

    def _legend(self, width: int) -> Image.Image | None:
        """Name the colours of the classes on the sheet."""
        if not self._present or (len(self._present) == 1 and self._present[0] not in self._names):
            return None
        small = font(13)
        places: list[tuple[int, int, int]] = []
        x = y = 0
        for number in self._present:
            long = 20 + int(small.getlength(self._titles[number]))
            if x and x + long > width - 2 * MARGIN:
                x, y = 0, y + LINE
            places.append((number, x, y))
            x += long + 18
        strip = Image.new("RGB", (width - 2 * MARGIN, y + LINE + 4), GROUND)
        pen = ImageDraw.Draw(strip)
        for number, left, top in places:
            pen.rectangle((left, top + 3, left + 13, top + 16), fill=self._classes[number])
            pen.text((left + 20, top + 1), self._titles[number], font=small, fill=TEXT)
        return strip


def _limits_of_all(images: Sequence[SensorImage]) -> Limits:
    """Return the limits of one channel over images of one plane."""
    planes = [(image.data[0][image.valid[0]]) for image in images]
    values = np.concatenate(planes)[None] if planes else np.zeros((1, 0), np.float32)
    return limits_of(values, np.ones(values.shape, np.bool_), look_of(images[0].channels[0]))


def _number(value: float, span: float) -> str:
    """Return a number with as many digits as its scale needs: 21.3 on one of 20, 0.0213 on one of 0.02."""
    if not span > 0:
        return f"{value:.4g}"
    digits = min(max(2 - int(np.floor(np.log10(span))), 0), 6)
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.4g}"


def _write_lines(pen: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int, height: int) -> None:
    """Write text in lines of at most `width` pixels, as far as there is room."""
    face = font(11)
    line, lines = "", []
    for letter in escape(text, keep=""):
        if face.getlength(line + letter) > width:
            lines.append(line)
            line = ""
        line += letter
    for number, part in enumerate([*lines, line][: max(height // 15, 1)]):
        pen.text((left, top + 15 * number), part, font=face, fill=TEXT)


def shorten(text: str, face: ImageFont.FreeTypeFont, room: int) -> str:
    """Shorten a text in the middle until it is at most `room` pixels wide; what cannot be drawn is escaped."""
    text = escape(text, keep="")
    if face.getlength(text) <= room:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = text[: (keep + 1) // 2] + "…" + text[-(keep // 2) :]
        if face.getlength(short) <= room:
            return short
    return "…"

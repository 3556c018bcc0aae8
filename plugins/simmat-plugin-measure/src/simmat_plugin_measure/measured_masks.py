"""Measure the objects of masks that exist already, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat.data.card import DataCard
from simmat.data.instances import (
    Instance,
    check_equal_size,
    label_from_mask,
    read_mask,
)
from simmat.errors import ConfigError, DataError, few_of
from simmat.inference import check_own_table, write_table
from simmat.io.frames import stack_endings
from simmat.io.paths import stem_of
from simmat.measurement import Measurements
from simmat.predictor import ImageLoader
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.channel_selection import pick_channels
from simmat.types import Georeference, ImageReader, RegionRule, SensorImage, Window
from simmat_plugin_measure.measuring import measure, pixel_areas

_MAX_SIDE = 2048
"""Longest side of an image that is read as a whole; larger ones are read in parts, if the sensor can do that."""


def measure_masks(
    adapter: ModalityAdapter,
    images: Sequence[Mapping[str, Path]],
    masks: Sequence[Path],
    out: Path,
    *,
    regions: RegionRule = "instances",
    pixel_size_um: float | None = None,
    channels: Sequence[str | int] | None = None,
    note: Callable[[str], object],
) -> int:
    """Write a row for each object of the masks; return their number.

    Args:
        adapter: the sensor.
        images: source -> file of each image.
        masks: the mask of each image.
        out: the table, which replaces an earlier one.
        regions: what an object is.
        pixel_size_um: side of a pixel, for areas in µm².
        channels: those that are measured, as `pick_channels` takes them; None for all.
        note: called with what the user should know.

    Raises:
        ConfigError: images and masks do not fit together, an image has no such channel, or `out` is another file.
        DataError: an image or mask cannot be read, they differ in size, or a mask holds no object.
        OutputError: the table cannot be written.
    """
    if len(images) != len(masks):
        raise ConfigError(
            f"{len(images)} images and {len(masks)} --mask: give one mask for each image, in the same order"
        )
    names = [stem_of(next(iter(files.values()))) for files in images]
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(
                f"{count} images are named {name!r}, so rows of the table could not be told apart; use separate "
                "commands"
            )
    check_own_table(out)
    _check_frames(adapter, images)
    loader = ImageLoader(adapter, None)
    card = DataCard(regions=regions)

    def rows() -> Iterator[dict[str, Any]]:
        for name, files, mask in zip(names, images, masks, strict=True):
            image = loader.reader(files, (), _MAX_SIDE)
            objects = _objects(image, mask, card)
            areas, contradiction = pixel_areas(image, pixel_size_um)
            if contradiction:
                note(f"Warning: {contradiction}")
            elif areas is None:
                without_size.append(name)
            seen = image if channels is None else _picked(image, channels)
            yield from _rows(name, objects, measure(seen, objects, areas))

    without_size: list[str] = []
    count = write_table(out, rows())
    if without_size:
        note(
            f"note: the pixel size of {few_of(without_size)} is not known, so areas are in pixels only; give "
            "--pixel-size-um if you know it"
        )
    return count


@dataclass(frozen=True)
class _PickedChannels:
    """Some channels of an image that is read in parts."""

    whole: ImageReader
    indices: Sequence[int]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.whole.size_hw

    @property
    def georeference(self) -> Georeference | None:
        return self.whole.georeference

    @property
    def origin(self) -> str:
        return self.whole.origin

    def read(self, window: Window) -> SensorImage:
        return self.whole.read(window).select(self.indices)


def _picked(image: ImageReader, channels: Sequence[str | int]) -> ImageReader:
    has = image.read(Window(0, 0, 1, 1)).channels
    return _PickedChannels(image, pick_channels(has, channels, origin=image.origin))


def _check_frames(
    adapter: ModalityAdapter, images: Sequence[Mapping[str, Path]]
) -> None:
    """Raise ConfigError for a file of frames that the sensor does not read as one image."""
    sources = dict(zip(adapter.source_names(), adapter.sources, strict=True))
    for files in images:
        for source, file in files.items():
            name = file.name.lower()
            is_image = name.endswith(sources[source].extensions)
            if not is_image and name.endswith(stack_endings()) and file.is_file():
                raise ConfigError(
                    f"{file}: holds frames, and a mask is of one image; name the frame, such as {file / '0000'}, or "
                    "measure all frames: simmat follow --measure"
                )


def _rows(
    name: str, objects: Sequence[Instance], measurements: Measurements
) -> Iterator[dict[str, Any]]:
    """Yield the row of each object of an image."""
    for index, one in enumerate(objects):
        row = {
            "image": name,
            "label": index + 1 if one.object_id is None else one.object_id,
            "class": one.class_id,
            "class_name": None,
            "score": None,
        }
        yield row | measurements.row(index)


def _objects(image: ImageReader, mask: Path, card: DataCard) -> tuple[Instance, ...]:
    """Return the objects of a mask of an image.

    Raises:
        DataError: the mask cannot be read, has another size, or holds no objects, or so many that memory might not
            suffice.
    """
    labels = read_mask(mask)
    check_equal_size(mask, labels.shape, image.origin, image.size_hw)
    found = label_from_mask(labels, card, origin=str(mask)).regions
    if not found:
        raise DataError(f"{mask}: holds no object, all its values are 0")
    return found

"""Images that lack channels a network was trained with: a camera with a dead band, a sensor that is not there today.

A missing channel is there as a plane without a valid pixel. Nothing is filled in; a transfer layer that
`takes_missing` leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from simmat.composition import ComposedModality, SelectedChannels
from simmat.modality import ModalityAdapter, load_sample
from simmat.types import Channel, SensorImage, same_channels

_COUNTED = re.compile(r"band\d+")
"""Names that say no more than a plane's place in its file."""


def load_without(
    adapter: ModalityAdapter, files: Mapping[str, Path], channels: Sequence[Channel], missing: Set[str]
) -> SensorImage:
    """Read a sample in which some channels are missing.

    A part of a composition of which all channels are missing needs no file. A file may have the missing planes or not:
    those it has are not looked at. Planes that have no names but by their place are taken in order.

    Args:
        adapter: the sensor.
        files: source name -> file; those of `optional_sources` may be left out.
        channels: C channels as the sensor loads them when none is missing.
        missing: names of some of them, not of all.

    Returns:
        (C, H, W) with these channels, invalid where they are missing; what the file holds where it does not fit.

    Raises:
        DataError: a file cannot be read, or the parts of a composition do not share one pixel grid.
    """
    if isinstance(adapter, SelectedChannels):
        return load_without(adapter.base, files, channels, missing)
    if isinstance(adapter, ComposedModality):
        return _load_composed(adapter, files, channels, missing)
    image = load_sample(adapter, files)
    kept = [index for index, channel in enumerate(channels) if channel.name not in missing]
    if same_channels(image.channels, channels):
        return _spread(image.select(kept), channels, kept)
    if _fits(image.channels, [channels[index] for index in kept]):
        return _spread(image, channels, kept)
    return image


def optional_sources(adapter: ModalityAdapter, channels: Sequence[Channel], missing: Set[str]) -> tuple[str, ...]:
    """Return the sources whose file need not be given: those of the parts of which all channels are missing."""
    if isinstance(adapter, SelectedChannels):
        return optional_sources(adapter.base, channels, missing)
    if not isinstance(adapter, ComposedModality):
        return ()
    return tuple(
        joined
        for index, group in enumerate(adapter.split(channels))
        if {channel.name for channel in group} <= missing
        for joined in adapter.source_map(index).values()
    )


def _load_composed(
    adapter: ComposedModality, files: Mapping[str, Path], channels: Sequence[Channel], missing: Set[str]
) -> SensorImage:
    images: list[SensorImage | None] = []
    groups = adapter.split(channels)
    for index, (part, group) in enumerate(zip(adapter.parts, groups, strict=True)):
        if {channel.name for channel in group} <= missing:
            images.append(None)
            continue
        own = adapter.own_channels(index, group)
        gone = {mine.name for mine, joined in zip(own, group, strict=True) if joined.name in missing}
        given = {mine: files[joined] for mine, joined in adapter.source_map(index).items()}
        images.append(load_without(part, given, own, gone))
    first = next(image for image in images if image is not None)
    return adapter.stack(
        [
            image if image is not None else _nothing(adapter.own_channels(index, groups[index]), first)
            for index, image in enumerate(images)
        ]
    )


def _nothing(channels: Sequence[Channel], like: SensorImage) -> SensorImage:
    """Return planes without a valid pixel, of another image's size."""
    shape = (len(channels), *like.size_hw)
    return SensorImage(np.zeros(shape, np.float32), np.zeros(shape, np.bool_), tuple(channels), like.origin)


def _spread(image: SensorImage, channels: Sequence[Channel], places: Sequence[int]) -> SensorImage:
    """Return an image of all channels whose planes stand at `places`."""
    whole = _nothing(channels, image)
    whole.data[list(places)], whole.valid[list(places)] = image.data, image.valid
    return replace(whole, georeference=image.georeference)


def _fits(found: Sequence[Channel], kept: Sequence[Channel]) -> bool:
    """True where a file's channels are those that are left, or as many without a name of their own."""
    counted = len(found) == len(kept) and all(_COUNTED.fullmatch(c.name) for c in (*found, *kept))
    renamed = [replace(a, name=b.name) for a, b in zip(found, kept, strict=True)] if counted else found
    return same_channels(renamed, kept)

"""Open images and sequences of a sensor as layers, one for each channel, in its unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import simmat
from simmat.data.formats.frames import is_stack, sequence_frames
from simmat.drawing.display import display_channels, display_limits, display_style
from simmat.errors import DataError
from simmat.plugins.loader import installed
from simmat.types import RGB_QUANTITY, FloatArray

LayerData = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: data, its attributes, its type."""
CHANNELS = "simmat_channels"
"""Key of a layer's metadata: the channels of its planes."""
_chosen: list[simmat.ModalityAdapter] = []


def choose_sensor(adapter: simmat.ModalityAdapter | None) -> None:
    """Open files with this sensor from now on, None for `raster`: napari hands a reader nothing but paths."""
    _chosen[:] = [] if adapter is None else [adapter]


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the function that opens a path, or several as a stack; None for files that the sensor has not."""
    endings = tuple(
        ending for source in _sensor().sources for ending in source.extensions
    )
    paths = [Path(path)] if isinstance(path, str) else map(Path, path)
    known = [
        one.is_dir() or one.name.lower().endswith(endings) or is_stack(one, "folder")
        for one in paths
    ]
    return read if all(known) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Open an image or a sequence of the chosen sensor, `raster` before one is chosen.

    Raises:
        SimMATError: the sensor cannot read it.
    """
    paths = [Path(path)] if isinstance(path, str) else [*map(Path, path)]
    return layers_of(open_frames(paths, _sensor()), paths[0].stem)


def open_frames(
    paths: Sequence[Path], adapter: simmat.ModalityAdapter
) -> simmat.FrameSequence:
    """Return the frames at paths, an image as one; a file in which the sensor reads no image may hold frames.

    Args:
        paths: one of each source of the sensor, in their order, or frames of a sensor with one source.

    Raises:
        SimMATError: they cannot be read, or are not as many as the sources.
    """
    names, problem = adapter.source_names(), None
    if len(names) == 1 < len(paths):
        return simmat.FrameSequence.of_frames(
            adapter, [{names[0]: path} for path in paths]
        )
    if len(paths) != len(names):
        raise DataError(
            f"{paths[0]}: modality {adapter.name!r} needs the files of {', '.join(names)}, got {len(paths)}; open them "
            "together, in this order, as a stack"
        )
    if not any(path.is_dir() or is_stack(path, "folder") for path in paths):
        image = simmat.FrameSequence.of_frames(
            adapter, [dict(zip(names, paths, strict=True))]
        )
        try:
            image[0]
        except DataError as error:
            problem = error
        else:
            return image
    try:
        found = [
            sequence_frames(path, source.extensions, "z")
            for path, source in zip(paths, adapter.sources, strict=True)
        ]
    except DataError as error:
        raise problem or error from None
    if len(set(map(len, found))) > 1:
        raise DataError(
            f"{paths[0]}: the sources have {' and '.join(str(len(one)) for one in found)} frames"
        )
    return simmat.FrameSequence.of_frames(
        adapter,
        [dict(zip(names, own, strict=True)) for own in zip(*found, strict=True)],
    )


def layers_of(frames: simmat.FrameSequence, name: str) -> list[LayerData]:
    """Return a layer for each channel, (H, W) or (T, H, W) float32 with NaN where nothing was measured.

    The colours of a camera are one layer, (…, H, W, 3) uint8. Frames are read when they are shown.
    """
    first = frames[0]
    channels, data, common = first.channels, planes_of(first), dict[str, Any]()
    if len(frames) > 1:  # (T, C, H, W)
        dask: Any = import_module("dask")  # which napari brings; partly typed
        array: Any = import_module("dask.array")
        lazy = [
            dask.delayed(lambda index: planes_of(frames[index]))(index)
            for index in range(len(frames))
        ]
        data = array.stack(
            [array.from_delayed(one, data.shape, np.float32) for one in lazy]
        )
        common = {} if frames.spacing is None else {"scale": frames.spacing}
    layers: list[LayerData] = []
    colours = [
        index
        for index, channel in enumerate(channels)
        if channel.quantity == RGB_QUANTITY
    ]
    if len(colours) == 3 and first.valid[colours].all():
        picture = np.moveaxis(data[..., colours, :, :], -3, -1).astype(np.uint8)
        metadata = {CHANNELS: [channels[index] for index in colours]}
        layers.append(
            (
                picture,
                {**common, "name": name, "rgb": True, "metadata": metadata},
                "image",
            )
        )
    shown = () if layers else display_channels(channels)
    for index, channel in enumerate(channels):
        if layers and index in colours:
            continue
        style = display_style(channel)
        low, high = display_limits(first.data[index], first.valid[index], style)
        mixed = len(shown) > 1 and index in shown
        attributes = {
            **common,
            "name": f"{name} {channel.name} [{channel.unit}]",
            "colormap": ("red", "green", "blue")[shown.index(index)]
            if mixed
            else style.colours,
            "contrast_limits": (low, high if high > low else low + 1),
            "blending": "additive" if mixed else "translucent",
            "visible": index in shown,
            "metadata": {CHANNELS: [channel]},
        }
        layers.append((data[..., index, :, :], attributes, "image"))
    return layers


def planes_of(image: simmat.SensorImage) -> FloatArray:
    """Return (C, H, W) in the channels' units, NaN where nothing was measured."""
    return np.where(image.valid, image.data, np.float32(np.nan))


def _sensor() -> simmat.ModalityAdapter:
    return _chosen[0] if _chosen else installed().modality("raster")

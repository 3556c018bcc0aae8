"""What the layers of a viewer mean to a predictor: images and sequences, and the prompts on one of their frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

import simmat
from napari_simmat.reader import CHANNELS

Coords = npt.NDArray[np.float64]


class LayerImage(Sequence[Any]):
    """The frames of one file, which are layers of our reader, or of one layer of another reader.

    Attributes:
        path: the file; the layer's name for an array.
        sources: the data of the layers.
        is_stack: whether the first axis of the layers is that of frames.
        size_hw: (height, width) in pixels.
        scale: world units per frame, if there are several, row and column.
    """

    def __init__(self, layers: Sequence[Any], channel_count: int) -> None:
        """Take layers, and the channels of the model's sensor: a foreign (N, H, W) is N frames for a sensor of one."""
        self.layer = layers[0]
        self.path = str(self.layer.source.path or self.layer.name)
        self.channels = [
            channel for layer in layers for channel in layer.metadata.get(CHANNELS, ())
        ]
        self.sources = [layer.data for layer in layers]
        self.parts = [
            _planes(layer, bool(self.channels) or channel_count == 1)
            for layer in layers
        ]
        self.is_stack = self.parts[0].ndim == 4
        self.size_hw: tuple[int, int] = self.parts[0].shape[-2:]
        self.scale = np.asarray(self.layer.scale)[-2 - self.is_stack :]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.parts[0]) if self.is_stack else 1

    def __getitem__(self, index: Any) -> Any:
        """Return a frame for `Predictor.set_image`: in the units of its channels, or the stored (C, H, W)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        planes = np.concatenate(
            [np.asarray(part[index] if self.is_stack else part) for part in self.parts]
        )
        return (
            simmat.SensorImage.from_planes(planes, self.channels, origin=self.path)
            if self.channels
            else planes
        )

    def frame_at(self, place: Sequence[float]) -> int:
        """Return the frame at a place in world coordinates, such as where the slider of the viewer stands."""
        return (
            min(max(round(float(self.layer.world_to_data(place)[0])), 0), len(self) - 1)
            if self.is_stack
            else 0
        )

    def points_on(self, frame: int, layer: Any, points: Any = None) -> Coords:
        """Return as (N, 2) xy in pixels points of a layer, all or those given, that lie on a frame."""
        points = points if points is not None or layer is None else layer.data
        places = [
            self.layer.world_to_data(layer.data_to_world(one))
            for one in ([] if layer is None else points)
        ]
        on = [
            one[-2:][::-1]
            for one in places
            if not self.is_stack or round(float(one[0])) == frame
        ]
        return np.asarray(on, np.float64).reshape(-1, 2)

    def boxes_on(self, frame: int, layer: Any) -> list[Coords]:
        """Return XYXY of outer edges, within the image, around the shapes of a layer that lie on a frame."""
        height, width = self.size_hw
        corners = [
            self.points_on(frame, layer, shape)
            for shape in ([] if layer is None else layer.data)
        ]
        # 0 is a pixel's centre
        boxes = [
            np.concatenate([one.min(0), one.max(0)]) + 0.5
            for one in corners
            if len(one)
        ]
        boxes = [np.clip(box, 0, (width, height, width, height)) for box in boxes]
        return [box for box in boxes if (box[2:] - box[:2] >= 1).all()]


def images_in(layers: Iterable[Any], channel_count: int) -> dict[str, LayerImage]:
    """Return the images among layers by name: the layers of one file of our reader are one."""
    groups: dict[Any, list[Any]] = {}
    for layer in layers:
        if isinstance(layer, Image):
            own = CHANNELS in layer.metadata and layer.source.path
            groups.setdefault(own or layer.name, []).append(layer)
    found: dict[str, LayerImage] = {}
    for image in (LayerImage(group, channel_count) for group in groups.values()):
        name = Path(image.path).name
        found[image.path if name in found else name] = image
    return found


def prompts_of(on: Coords, off: Coords, boxes: Sequence[Coords]) -> list[simmat.Prompt]:
    """Return a prompt for each object that points on it, points not on it (N, 2) and boxes XYXY mark.

    All points and one box mark one object. Several boxes mark one each, with the points inside of it.
    """
    coords = np.concatenate([on, off]).astype(np.float32)
    labels = np.repeat(np.asarray([1, 0], np.int64), [len(on), len(off)])
    if len(boxes) < 2:
        only = boxes[0].astype(np.float32) if boxes else None
        return [simmat.Prompt(coords, labels, only)] if len(on) or boxes else []
    prompts, left = [], np.ones(len(coords), np.bool_)
    for box in boxes:
        inside = ((coords >= box[:2] - 0.5) & (coords <= box[2:] - 0.5)).all(1)
        left &= ~inside
        prompts.append(
            simmat.Prompt(coords[inside], labels[inside], box.astype(np.float32))
        )
    return (
        [*prompts, simmat.Prompt(coords[left], labels[left])]
        if labels[left].any()
        else prompts
    )


def _planes(layer: Any, first_is_frame: bool) -> Any:
    """Return the data of a layer, the finest of a pyramid, as (C, H, W), or (T, C, H, W) of frames."""
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.rgb:
        return np.moveaxis(data[..., :3], -1, -3)
    return (
        data[..., None, :, :]
        if data.ndim == 2 or (data.ndim == 3 and first_is_frame)
        else data
    )

"""The labels layer of an image: its objects with their classes, and the mask file that SimMAT reads."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.data.formats.folders import MASKS
from simmat.data.formats.frames import frame_name, sequence_frames
from simmat.data.instances import PANOPTIC
from simmat.data.predicted import read_predicted, write_predicted
from simmat.errors import ConfigError, DataError
from simmat.io.files import atomic_path
from simmat.io.frames import stack_endings
from simmat.io.images import write_image
from simmat.sensors.adapter import Source
from simmat.types import BoolArray, Window

TITLE = "simmat_title"
"""Key of a labels layer's metadata: the path of its image and what it holds; layers' names have the file name alone."""
FOUND = "simmat_found"
"""Key of its metadata: (frame, number) of an object that a model found without a click -> checksum of its pixels.

The frame is None in a layer (H, W)."""
FRAMES = "simmat_frames"
"""Key of the metadata of a layer (T, H, W): the names of the frames in a data set."""


class FoundMask(NamedTuple):
    """An object to label: its mask (h, w) in a window of the image, score, and class, None without classes."""

    window: Window
    mask: BoolArray
    score: float
    class_id: int | None


def titled(layers: Iterable[Any], title: str) -> Any:
    """Return the layer with a title; None if there is none."""
    return next((layer for layer in layers if layer.metadata.get(TITLE) == title), None)


def add_objects(
    layer: Any, frame: int | None, found: Sequence[FoundMask], *, free_only: bool
) -> list[int]:
    """Label objects, the first on top, as one step of the layer's undo; return the numbers of those with a pixel.

    Args:
        layer: labels (H, W), or (T, H, W) with the frame.
        free_only: leave what is labelled as it is.
    """
    before = np.asarray(layer.data if frame is None else layer.data[frame])
    plane, last, added = (
        np.zeros_like(before),
        int(np.max(layer.data)),
        dict[int, tuple[Any, float]](),
    )
    for number, one in enumerate(found, last + 1):
        part = plane[one.window.slices]
        mask = one.mask & (part == 0)
        if free_only or layer.preserve_labels:
            mask &= before[one.window.slices] == 0
        if mask.any():
            part[mask] = number
            added[number] = one.class_id, round(one.score, 3)
    if added:
        where = np.nonzero(plane)
        layer.data_setitem(
            where if frame is None else (np.full(len(where[0]), frame), *where),
            plane[where],
        )
        known = zip(
            *(layer.features.get(name, ()) for name in ("index", "class", "score")),
            strict=True,
        )
        rows = {
            int(number): (class_id, score) for number, class_id, score in known
        } | added
        classes, scores = zip(*rows.values(), strict=True)
        # below the cursor
        layer.features = {
            "index": [*rows],
            "class": np.asarray(classes, object),
            "score": scores,
        }
    return list(added)


def note_found(layer: Any, frame: int | None, numbers: Iterable[int]) -> None:
    """Remember that a model found objects of a layer (H, W), or (T, H, W) with the frame, without a click."""
    labels = np.asarray(layer.data if frame is None else layer.data[frame])
    noted = layer.metadata.setdefault(FOUND, {})
    for number in numbers:
        noted[frame, number] = _checksum(labels == number)


def untouched_frames(
    labels: npt.NDArray[Any], found: Mapping[tuple[int | None, int], int]
) -> set[int | None]:
    """Return the frames with an object that is as a model found it, by what `note_found` remembered."""
    untouched = set[int | None]()
    for (frame, number), checksum in found.items():
        plane = labels if frame is None else labels[frame]
        pixels = plane == number
        if pixels.any() and _checksum(pixels) == checksum:
            untouched.add(frame)
    return untouched


def _checksum(pixels: BoolArray) -> int:
    return zlib.crc32(np.packbits(pixels).tobytes())


def classes_in(features: Any) -> dict[int, int]:
    """Return object id -> class of those that have one, by the features of a labels layer."""
    if features is None or "class" not in features:
        return {}
    pairs = zip(features["index"], features["class"], strict=True)
    return {
        int(number): int(value)
        for number, value in pairs
        if value is not None and value == value
    }


def with_classes(labels: npt.NDArray[Any], features: Any) -> npt.NDArray[Any]:
    """Return labels as class * 1000 + number where every object has a class, else as they are."""
    classes, values = classes_in(features), np.unique(labels[labels > 0]).tolist()
    if not values or not classes.keys() >= set(values):
        return labels
    counts, new = dict[int, int](), np.arange(max(values) + 1)
    for value in values:
        counts[classes[value]] = counts.get(classes[value], 0) + 1
        new[value] = PANOPTIC * classes[value] + counts[classes[value]]
    if max(counts.values()) >= PANOPTIC:
        raise DataError(
            f"a mask has at most {PANOPTIC - 1} objects of a class, got {max(counts.values())}"
        )
    numbered: npt.NDArray[Any] = new[labels]
    return numbered


def write_mask(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer (H, W), or (T, H, W) of a sequence, as the mask file that belongs to the image.

    Values are the layer's, for `regions = "instances"`; where every object has a class, class * 1000 + number, for
    `regions = "panoptic"`. As long as an object is as a model found it, the data set lists the image or frame as one
    whose labels a model made.

    Raises:
        DataError: there are more than 999 objects of a class.
        ConfigError: the format cannot hold these labels.
        OutputError: the file cannot be written.
    """
    labels = np.asarray(data)
    values = with_classes(labels, attributes.get("features"))
    metadata = attributes.get("metadata", {})
    found = metadata.get(FOUND, {})
    place = _in_data_set(Path(path)) if found else None
    if place is None:
        _write_values(path, values)
        return [path]
    root, name = place
    ids: dict[int | None, str] = {None: name}
    for frame, frame_id in enumerate(metadata.get(FRAMES, ())):
        ids[frame] = f"{name}/{frame_id}"
    noted = {ids[frame] for frame, _ in found if frame in ids}
    untouched = untouched_frames(labels, found)
    predicted = {ids[frame] for frame in untouched if frame in ids}
    if predicted:  # before the mask, so that none is without its mark
        write_predicted(root, read_predicted(root) | predicted)
    _write_values(path, values)
    if noted - predicted:
        write_predicted(root, read_predicted(root) - (noted - predicted))
    return [path]


def _write_values(path: str, labels: npt.NDArray[Any]) -> None:
    """Write label values in the smallest type that holds them; errors as of `write_mask`."""
    kind = next(
        kind
        for kind in (np.uint8, np.uint16, np.uint32)
        if labels.max(initial=0) <= np.iinfo(kind).max
    )
    labels, ending = labels.astype(kind), Path(path).suffix.lower()
    if labels.ndim == 3 and ending in (".tif", ".tiff"):
        import tifffile

        with atomic_path(path) as temporary:
            tifffile.imwrite(
                temporary,
                labels,
                photometric="minisblack",
                compression="zlib",
                metadata={"axes": "TYX"},
            )
    elif labels.ndim == 3 and ending == ".png":
        raise ConfigError(
            f"{path}: a PNG holds one frame, got {len(labels)}; use .tif or .npy"
        )
    else:
        write_image(path, labels if labels.ndim == 3 else labels[None])


def _in_data_set(mask: Path) -> tuple[Path, str] | None:
    """Return the folder of the data set and the id of the image that a mask is of; None outside of a data set."""
    for folder in mask.parents:
        if folder.name == MASKS:
            return folder.parent, mask.relative_to(folder).with_suffix("").as_posix()
    return None


def frame_names(image: str, sources: Sequence[Source], count: int) -> list[str]:
    """Return the names that the frames of a sequence have in a data set; none if `image` is no such sequence.

    Args:
        image: its file, or the folder of its frames.
        sources: those of the sensor.
        count: number of frames.
    """
    endings = sources[0].extensions
    try:
        frames = sequence_frames(Path(image), endings, "z")
    except DataError:
        return []
    if len(frames) != count:
        return []
    return [frame_name(frame, endings) for frame in frames]


def mask_path(image: str, sources: Sequence[Source], *, frames: bool) -> str:
    """Return where a data set has the mask of an image: masks/NAME.* beside images/; else a file beside the image.

    Args:
        image: its file, or the folder of its frames.
        sources: those of the sensor, whose endings are no part of NAME, nor the folders of several of its place.
        frames: a new mask is a .tif, not a .png.
    """
    path, endings = (
        Path(image),
        (".tif", ".tiff", ".npy") if frames else (".png", ".tif", ".tiff", ".npy"),
    )
    ignored = (
        *stack_endings(),
        *(ending for source in sources for ending in source.extensions),
    )
    name = path.name if path.is_dir() else frame_name(path, ignored)
    for folder in path.parents:
        if folder.name in ("images", "frames"):
            # SOURCE/…, or SPLIT/SOURCE/…
            inner = list(path.relative_to(folder).parent.parts)
            if (
                own := next(
                    (
                        part
                        for part in inner[:2]
                        if part in [one.name for one in sources]
                    ),
                    None,
                )
            ) is not None:
                inner.remove(own)
            masks = [
                folder.with_name("masks").joinpath(*inner, f"{name}{ending}")
                for ending in endings
            ]
            return str(next(filter(Path.exists, masks), masks[0]))
    return str(path.with_name(f"{name}_mask{endings[0]}"))

"""Masks of objects: run lengths in json, for page and journal, and label images on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, FailFast, Field

from simmat.data.card import DataCard
from simmat.data.instances import (
    PANOPTIC,
    Instance,
    check_equal_size,
    label_from_mask,
    read_mask,
    region_from_mask,
)
from simmat.documents import FromLists, StrictModel, as_tuples
from simmat.errors import DataError

MAX_PX = 2**28
"""Most pixels in the box of a mask, which is decoded as a whole."""

Edge = Annotated[int, Field(ge=0, lt=2**31)]


class MaskDocument(StrictModel):
    """The pixels of one object.

    Attributes:
        box: (x0, y0, x1, y1), outer edges in pixels of the image.
        runs: lengths of runs of pixels in the box, row by row; runs outside and inside the object alternate, and the
            first is outside and may be 0.
    """

    box: FromLists[tuple[Edge, Edge, Edge, Edge]]
    runs: Annotated[
        tuple[Edge, ...],
        FailFast(),
        Field(max_length=2**22),
        BeforeValidator(as_tuples),
    ]


def encode_mask(region: Instance) -> dict[str, list[int]]:
    """Return a region as the values of a `MaskDocument`."""
    y0, x0, y1, x1 = region.window
    flat = region.crop.ravel()  # (h * w,)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=len(flat)).tolist()
    return {"box": [x0, y0, x1, y1], "runs": [0, *runs] if flat[0] else runs}


def decode_mask(mask: MaskDocument, size_hw: tuple[int, int]) -> Instance:
    """Return a mask as a region in its tightest box.

    Args:
        size_hw: (height, width) of the image in pixels.

    Raises:
        DataError: the box is not in the image, the runs do not fill it, or no pixel belongs to the object.
    """
    (x0, y0, x1, y1), (height, width) = mask.box, size_hw
    if not (x0 < x1 <= width and y0 < y1 <= height):
        raise DataError(
            f"the mask's box {[x0, y0, x1, y1]} is not inside the image of {width}x{height} pixels; it is x0, "
            "y0, x1, y1"
        )
    total = (x1 - x0) * (y1 - y0)
    if total > MAX_PX:
        raise DataError(
            f"the mask's box has {total} pixels, at most {MAX_PX} are allowed; mark the object in parts"
        )
    if sum(mask.runs) != total:
        raise DataError(
            f"the mask's runs add up to {sum(mask.runs)} pixels, its box has {total}"
        )
    inside = np.arange(len(mask.runs)) % 2 == 1
    crop = np.repeat(inside, np.asarray(mask.runs, np.int64)).reshape(y1 - y0, x1 - x0)
    found = region_from_mask(crop, None, (y0, x0))
    if found is None:
        raise DataError("the mask is empty; remove the object instead")
    return found


def subtract(region: Instance, others: Iterable[Instance]) -> Instance | None:
    """Return the pixels of a region that are in none of the others; None if there are none."""
    y0, x0, y1, x1 = region.window
    crop = region.crop
    for other in others:
        top, left, bottom, right = other.window
        if top < y1 and y0 < bottom and left < x1 and x0 < right:
            crop = crop & ~other.within(region.window)
    rest = region_from_mask(crop, None, (y0, x0))
    return None if rest is None else replace(region, window=rest.window, crop=rest.crop)


def is_known(region: Instance, labelled: Iterable[Instance]) -> bool:
    """Return whether a found object mostly overlaps one of the labelled objects."""
    return any(
        2 * overlap_px(region, other) > min(region.area, other.area)
        for other in labelled
    )


def overlap_px(one: Instance, other: Instance) -> int:
    """Return the number of pixels that two regions have in common."""
    if (shared := one.window.intersection(other.window)) is None:
        return 0
    return int(np.count_nonzero(one.within(shared) & other.within(shared)))


MAX_PNG_SIDE = 8192
"""Longest side of a PNG mask; larger masks are TIFF, of which a reader can decode a part."""

Objects = dict[int, Instance]
Tracks = Mapping[int, int | None]
"""Id -> class of the objects of a sequence."""


@dataclass(frozen=True)
class Predicted(Instance):
    """An object that a model found, and nobody has drawn, clicked or confirmed since."""


@dataclass(frozen=True)
class Followed(Predicted):
    """An object that was followed from another frame and nobody has accepted; its score is that of `FollowedFrame`."""

    score: float = 0.0


@dataclass(frozen=True)
class Rule:
    """The meaning of mask values, for the whole folder.

    Attributes:
        default: class of objects that were labelled before there were classes; None if there are no classes.
        tracks: of a frame, returns the objects of its sequence, which have one label value in all frames.
    """

    card: DataCard
    default: int | None = None
    tracks: Callable[[], Tracks] | None = field(default=None, compare=False)

    def class_of(self, region: Instance) -> int | None:
        """Return the class of an object; None if objects have no class."""
        if self.card.regions == "instances":
            return None
        return self.default if region.class_id is None else region.class_id

    def next_id(self) -> int:
        """Return the id of the next new object of a sequence: its label value is not that of another one either."""
        ids = self.tracks() if self.tracks is not None else ()
        return 1 + max(
            (
                one if self.card.regions == "instances" else one % PANOPTIC
                for one in ids
            ),
            default=0,
        )

    def values(
        self, objects: Mapping[int, Instance], ignored: Instance | None
    ) -> dict[int, int]:
        """Return the label value of each object.

        Args:
            objects: id -> object.

        Raises:
            DataError: a label image cannot contain these objects, or the pixels without ground truth.
        """
        regions, hidden = self.card.regions, self.card.ignore
        if ignored is not None and hidden is not None and hidden < 0:
            raise DataError(
                f"the card has ignore = {hidden}, which a label image cannot contain; use a positive number"
            )
        counts: dict[int, int] = {}
        values: dict[int, int] = {}
        taken = {hidden}
        for number, region in sorted(objects.items()):
            class_id = self.class_of(region)
            if regions == "instances":
                value = number
            elif class_id is None:
                raise DataError("an object has no class; add a class first")
            elif regions == "panoptic":
                value = PANOPTIC * class_id + number % PANOPTIC
                if self.tracks is None or number % PANOPTIC == 0 or value in taken:
                    free = range(counts.get(class_id, 0) + 1, PANOPTIC)
                    count = next(
                        (one for one in free if PANOPTIC * class_id + one not in taken),
                        PANOPTIC,
                    )
                    counts[class_id], value = count, PANOPTIC * class_id + count
                    if count == PANOPTIC:
                        raise DataError(
                            f"a mask can contain at most {PANOPTIC - 1} objects of a class; cut the image into parts"
                        )
                taken.add(value)
            else:
                value = class_id
            if value == hidden:
                raise DataError(
                    f"label value {value} means no ground truth according to the card; change `ignore` in card.toml"
                )
            values[number] = value
        return values


def draw_labels(
    objects: Mapping[int, Instance],
    size_hw: tuple[int, int],
    rule: Rule,
    ignored: Instance | None,
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Draw the (H, W) label image of objects, in the smallest sufficient unsigned integer type."""
    values = rule.values(objects, ignored)
    hidden = rule.card.ignore if ignored is not None else None
    largest = max([0, *values.values(), *([] if hidden is None else [hidden])])
    plane = np.zeros(size_hw, np.min_scalar_type(largest))
    if ignored is not None and hidden is not None:
        plane[ignored.window.slices][ignored.crop] = hidden
    for number, region in objects.items():
        plane[region.window.slices][region.crop] = values[number]
    return plane


def read_objects(
    path: Path, size_hw: tuple[int, int], rule: Rule, known: Objects
) -> tuple[Objects, Instance | None]:
    """Return the objects of a mask file, including those too small by the card, and its pixels without ground truth.

    Args:
        size_hw: (height, width) of the image in pixels.
        known: id -> object; equal objects of the mask get these ids. In a frame it is the label value that counts.

    Raises:
        DataError: the mask cannot be read, or is of another size.
    """
    card, mask = rule.card, read_mask(path)
    check_equal_size(path, mask.shape, "it labels", size_hw)
    label = label_from_mask(mask, card, origin=str(path))
    ignored = (
        region_from_mask(np.asarray(mask == card.ignore), None)
        if card.ignore is not None
        else None
    )
    if rule.tracks is not None and card.regions in ("instances", "panoptic"):
        return _ids_of_tracks((*label.regions, *label.small), rule), ignored
    found: Objects = {}
    for region in (*label.regions, *label.small):
        row, column = np.argwhere(region.crop)[0]
        value = int(mask[region.window[0] + row, region.window[1] + column])
        found[value if card.regions == "instances" else len(found) + 1] = region
    return _match_ids(found, known, card.ignore), ignored


def _ids_of_tracks(regions: Iterable[Instance], rule: Rule) -> Objects:
    """Return the objects of a frame with the ids that their label values have in the sequence; a new one is its id."""
    assert rule.tracks is not None
    known, ids, found = rule.tracks(), {}, Objects()
    if rule.card.regions == "panoptic":
        ids = {
            PANOPTIC * (one or rule.default or 0) + number % PANOPTIC: number
            for number, one in known.items()
        }
    for region in regions:
        value = region.object_id or 0
        number = ids.get(value, value)
        found[1 + max(*found, *known) if number in found else number] = region
    return found


def _match_ids(found: Objects, known: Objects, hidden: int | None) -> Objects:
    """Give objects from a mask the ids of equal known objects, and new ids where an id is in use."""
    objects: Objects = {}
    unmatched: list[tuple[int, Instance]] = []
    by_box: dict[tuple[int, int, int, int], list[int]] = {}
    for number, region in known.items():
        by_box.setdefault(region.window, []).append(number)
    for number, region in found.items():
        equal = [
            key
            for key in by_box.get(region.window, [])
            if np.array_equal(known[key].crop, region.crop)
        ]
        if equal and equal[0] not in objects:
            old = known[equal[0]]
            objects[equal[0]] = (
                region
                if region.class_id is not None
                else replace(region, class_id=old.class_id)
            )
        else:
            unmatched.append((number, region))
    highest = max([0, *known, *found])
    for number, region in unmatched:
        if number in objects or number in known:
            highest += 1 + (highest + 1 == hidden)
            number = highest
        objects[number] = region
    return objects


def mask_ending(plane: npt.NDArray[Any], present: Path | None) -> str:
    """Return the ending of a mask file: that of the present file if it can store the values, else .png or .tif."""
    ending = "" if present is None else present.suffix.lower()
    if ending in (".tif", ".tiff", ".npy"):
        return ending
    return (
        ".png"
        if plane.dtype.itemsize <= 2 and max(plane.shape) <= MAX_PNG_SIDE
        else ".tif"
    )


def encode_labels(plane: npt.NDArray[Any], ending: str) -> bytes:
    """Return an (H, W) label image as the content of a file; equal images give equal bytes."""
    stream = io.BytesIO()
    if ending == ".npy":
        np.save(stream, plane, allow_pickle=False)
    elif ending == ".png":
        from PIL import Image

        Image.fromarray(plane).save(stream, "png", compress_level=1)
    else:
        import tifffile

        tifffile.imwrite(
            stream,
            plane,
            tile=(512, 512),
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            software=False,
        )
    return stream.getvalue()


def sha256_of(path: Path | None) -> str | None:
    """Return the sha256 of a file; None if it does not exist."""
    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from error


def file_state(path: Path | None) -> tuple[int, int] | None:
    """Return modification time in ns and size in bytes of a file; None if it does not exist."""
    try:
        stat = None if path is None else path.stat()
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_size)

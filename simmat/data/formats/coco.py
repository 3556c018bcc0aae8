"""Read labels from COCO json: polygons and run lengths instead of mask files.

pycocotools draws polygons in C and does not check its input: an invalid corner crashes the process. So they are checked
before they are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from simmat.data.card import DataCard
from simmat.data.formats.folders import IMAGES
from simmat.data.formats.manifest import find_file
from simmat.data.instances import (
    Annotation,
    Instance,
    check_object_pixels,
    components,
    make_label,
    region_from_mask,
)
from simmat.data.predicted import FOUND_BY_PREDICT, FOUND_IN_PAGE
from simmat.data.samples import SPLITS, Sample, split_meant, start_of_paths
from simmat.errors import DataError, all_problems, nearest, shortened
from simmat.io.limits import check_size
from simmat.io.reading import read_json
from simmat.sensors.adapter import Source
from simmat.types import BoolArray, is_finite_number

ANNOTATIONS = "annotations"
"""The name of the one COCO file of a data set, or of the folder of those of its splits."""
MAX_OUTLINE_PX = 2**23
"""Longest outline of the polygons of one object; pycocotools takes 50 bytes a pixel of it."""
_SIMPLER = "use fewer corners, or run lengths"
_MAX_BITS = 30
"""Most bits of a run length in text form before its last 5; 35 hold any length below 2**32."""
_SPLIT_FILE = re.compile(r"(?:instances_)?(train|val|test)\d*\.json")
_IMAGE_FIELDS: dict[str, type | UnionType] = {
    "id": int | str,
    "file_name": str,
    "height": int,
    "width": int,
}
_ANNOTATION_FIELDS: dict[str, type | UnionType] = {
    "id": int | str,
    "image_id": int | str,
    "category_id": int,
}


@dataclass(frozen=True)
class CocoLabels:
    """All annotations of a data set.

    Attributes:
        sizes_hw: sample id -> (height, width) of its image.
        annotations: sample id -> its annotations, as they stand in the json.
        class_names: category id -> name.
        predicted: ids of the samples whose annotations a model made.
    """

    sizes_hw: Mapping[str, tuple[int, int]]
    annotations: Mapping[str, Sequence[Mapping[str, Any]]]
    class_names: Mapping[int, str]
    predicted: frozenset[str] = frozenset()

    def label(self, sample_id: str, card: DataCard) -> Annotation:
        """Return the regions of one sample by the card's rule; crowds and the ignored category become `ignore`.

        "instances" makes each annotation a region of its category; "classes" joins those of one category; "components"
        joins them and takes the connected components.
        """
        size_hw = self.sizes_hw[sample_id]
        ignore = np.zeros(size_hw, dtype=np.bool_)
        groups: dict[int, list[Mapping[str, Any]]] = {}
        for index, annotation in enumerate(self.annotations[sample_id]):
            category = annotation["category_id"]
            if annotation.get("iscrowd") or category == card.ignore:
                ignore |= draw_segmentation(annotation["segmentation"], size_hw)
            else:
                key = index if card.regions in ("instances", "panoptic") else category
                groups.setdefault(key, []).append(annotation)
        regions: list[Instance] = []
        empty = pixels = 0
        origin = f"image {sample_id!r}"
        for _, group in sorted(groups.items()):
            category = group[0]["category_id"]
            drawn = []
            for annotation in group:
                region = draw_region(annotation["segmentation"], size_hw, category)
                if region is not None:
                    pixels += region.crop.size
                    check_object_pixels(pixels, origin)
                    drawn.append(region)
            found = _visible_regions(drawn, ignore, card, origin)
            empty += not found
            regions += found
        label = make_label(size_hw, regions, ignore, card.smallest_px(size_hw))
        return replace(label, dropped=label.dropped + empty)


def _visible_regions(
    drawn: Sequence[Instance], ignore: BoolArray, card: DataCard, origin: str
) -> list[Instance]:
    """Return what regions of one category show outside `ignore`, joined, or with "components" its pieces."""
    if not drawn:
        return []
    window = drawn[0].window
    for region in drawn[1:]:
        window = window.enclosing(region.window)
    visible = np.zeros(window.size_hw, dtype=np.bool_)
    for region in drawn:
        visible[region.window.relative_to(window).slices] |= region.crop
    visible &= ~ignore[window.slices]
    corner = (window.y0, window.x0)
    if card.regions == "components":
        return components(visible, drawn[0].class_id, corner, origin)
    joined = region_from_mask(visible, drawn[0].class_id, corner)
    if joined is None:
        return []
    return [joined]


def annotation_files(root: Path) -> dict[str, Path]:
    """Return the COCO files of a data set: split -> file; the split is "" if one file holds all splits."""
    single = root / f"{ANNOTATIONS}.json"
    found = {"": single} if single.exists() or single.is_symlink() else {}
    folder = root / ANNOTATIONS
    for path in sorted(folder.glob("*.json")):
        match = _SPLIT_FILE.fullmatch(path.name)
        if match is None:
            _refuse_near_split(path)
            continue
        split = match[1]
        if split in found:
            raise DataError(
                f"{folder}: two files for split {split!r}: {found[split].name} and {path.name}"
            )
        found[split] = path
    if "" in found and len(found) > 1:
        raise DataError(
            f"{root}: found both annotations.json and annotations/*.json; remove one of them"
        )
    return found


def _refuse_near_split(path: Path) -> None:
    """Raise DataError for a file that is nearly named after a split; others, such as captions.json, are left alone."""
    stem = path.stem.removeprefix("instances_").rstrip("0123456789")
    meant = split_meant(stem) or nearest(stem.lower(), SPLITS)
    if meant:
        raise DataError(
            f"{path}: unknown split {stem!r}; rename the file to {meant}.json (splits: {', '.join(SPLITS)})"
        )


def read_coco(
    root: Path, sources: Sequence[Source], files: Mapping[str, Path]
) -> tuple[list[Sample], CocoLabels]:
    """Read COCO files into samples and labels.

    Images are searched at `images/FILE_NAME`, `images/SPLIT/FILE_NAME` and `FILE_NAME`; those of several sources at
    `images/SOURCE/FILE_NAME`, where sources after the first may have another ending.

    Raises:
        DataError: the files cannot be used; lists all problems.
    """
    samples: list[Sample] = []
    sizes_hw: dict[str, tuple[int, int]] = {}
    annotations: dict[str, Sequence[Mapping[str, Any]]] = {}
    names: dict[int, str] = {}
    predicted: set[str] = set()
    problems: list[str] = []
    for split, path in files.items():
        # numbers are checked where used
        content = read_json(path, "COCO json", constants=True)
        if not isinstance(content, dict):
            raise DataError(
                f"{path}: COCO json must be an object with images, annotations and categories"
            )
        problems += _read_categories(content, path, names)
        entries = _entries(content, path, "images", _IMAGE_FIELDS)
        known = shortened(str(sorted(names)))
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in entries}
        if len(sizes) < len(entries):
            problems.append(
                f"{path.name}: {len(entries) - len(sizes)} image ids occur twice"
            )
        by_image: dict[int | str, list[Mapping[str, Any]]] = {
            number: [] for number in sizes
        }
        for annotation in _entries(content, path, "annotations", _ANNOTATION_FIELDS):
            problem = _annotation_problem(annotation, sizes, names, known)
            if problem:
                problems.append(
                    f"{path.name}: annotation {annotation['id']}: {problem}"
                )
            else:
                by_image[annotation["image_id"]].append(annotation)
        of_model = _of_model(content, by_image)
        for entry in entries:
            size_hw = sizes[entry["id"]]
            where = f"{path.name}: image {entry['id']}"
            try:
                check_size(Path(where), *size_hw)
                sample = _sample_of(entry, root, split, sources)
            except DataError as error:
                text = str(error)
                problems.append(text if text.startswith(where) else f"{where}: {text}")
                continue
            if sample.id in sizes_hw:
                problems.append(f"image {sample.id!r} occurs twice")
            samples.append(sample)
            sizes_hw[sample.id] = size_hw
            annotations[sample.id] = by_image[entry["id"]]
            if entry["id"] in of_model:
                predicted.add(sample.id)
    if problems:
        raise DataError(
            all_problems(f"{root}: COCO annotations that cannot be used:", problems)
        )
    if not samples:
        raise DataError(
            f"{root}: {', '.join(path.name for path in files.values())} lists no image"
        )
    return samples, CocoLabels(sizes_hw, annotations, names, frozenset(predicted))


def _of_model(
    content: Mapping[str, Any],
    by_image: Mapping[int | str, Sequence[Mapping[str, Any]]],
) -> set[int | str]:
    """Return the ids of the images whose annotations a model made: they have a score.

    Of a file with scores, of `simmat predict`, or of a page, these are also the images in which nothing was found.
    """
    scored: set[int | str] = set()
    empty: set[int | str] = set()
    for number, found in by_image.items():
        if any(annotation.get("score") is not None for annotation in found):
            scored.add(number)
        elif not found:
            empty.add(number)
    info = content.get("info")
    own = (FOUND_BY_PREDICT, FOUND_IN_PAGE)
    is_own = isinstance(info, dict) and info.get("description") in own
    if scored or is_own:
        return scored | empty
    return scored


def _read_categories(
    content: Mapping[str, Any], path: Path, names: dict[int, str]
) -> list[str]:
    """Add the categories of a file to id -> name; return what is wrong with them."""
    problems = []
    for entry in _entries(content, path, "categories", {"id": int, "name": str}):
        number = entry["id"]
        if not -(2**63) <= number < 2**63:
            problems.append(
                f"{path.name}: category id {number} must be a whole number of 64 bits"
            )
        known = names.setdefault(number, entry["name"])
        if known != entry["name"]:
            problems.append(
                f"{path.name}: category {number} is {entry['name']!r}, elsewhere {known!r}"
            )
    return problems


def _sample_of(
    entry: Mapping[str, Any], root: Path, split: str, sources: Sequence[Source]
) -> Sample:
    """Return the sample of an entry of "images"; DataError if a file is missing."""
    name = entry["file_name"]
    stem = name.rpartition(".")[0] or name
    # the same name in two splits is two samples
    id = f"{split}/{stem}" if split else stem
    paths = [_find_image(root, split, name, source, sources) for source in sources]
    return Sample(id, split, tuple(source.name for source in sources), tuple(paths))


def _annotation_problem(
    annotation: Mapping[str, Any],
    sizes: Mapping[int | str, tuple[int, int]],
    names: Mapping[int, str],
    known: str,
) -> str | None:
    """Describe what is invalid about an annotation; `known` lists the ids of `names`."""
    if annotation["image_id"] not in sizes:
        return f"no image has the id {shortened(repr(annotation['image_id']))}"
    if annotation["category_id"] not in names:
        return f"no category has the id {annotation['category_id']!r}; ids: {known}"
    if (annotation.get("iscrowd") or 0) not in (0, 1):
        return f"iscrowd must be 0 or 1, got {shortened(repr(annotation['iscrowd']))}"
    if not annotation.get("segmentation"):
        return "it has no segmentation, and a box is not a mask; add a segmentation, or remove the annotation"
    return segmentation_problem(
        annotation["segmentation"], sizes[annotation["image_id"]]
    )


def _find_image(
    root: Path, split: str, name: str, source: Source, sources: Sequence[Source]
) -> str:
    """Return the path of the file of one source; DataError if it is missing."""
    own = f"{IMAGES}/{source.name}"
    folders = [own] if len(sources) > 1 else [IMAGES, own, "."]
    stem = name.rpartition(".")[0]
    if source is sources[0]:
        names = [name]
    else:
        names = [stem + ending for ending in source.extensions]
    for folder in folders:
        for place in (root / folder, root / folder / split):
            for file in names:
                with suppress(DataError):  # it may be in another folder
                    return find_file(start_of_paths(place), file, source)
    endings = ", ".join(source.extensions)
    raise DataError(
        f"{name!r} is not a file of source {source.name!r} ({endings}) in {', '.join(folders)}"
    )


def _entries(
    content: Mapping[str, Any],
    path: Path,
    key: str,
    needed: Mapping[str, type | UnionType],
) -> list[Mapping[str, Any]]:
    """Return the list under `key`, after checking that its entries have the needed keys and types."""
    entries = content.get(key)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) for entry in entries
    ):
        raise DataError(
            f"{path}: COCO json needs a list {key!r}; it has {shortened(str(sorted(content)))}"
        )
    for index, entry in enumerate(entries):
        for name, kind in needed.items():
            value = entry.get(name)
            if not isinstance(value, kind) or isinstance(value, bool):
                allowed = kind.__name__ if isinstance(kind, type) else kind
                raise DataError(
                    f"{path}: {key}[{index}] has {name} = {shortened(repr(value))}, expected {allowed}"
                )
    return entries


def segmentation_problem(segmentation: Any, size_hw: tuple[int, int]) -> str | None:
    """Describe what is invalid about a segmentation of an image of that size; None if it is valid."""
    if isinstance(segmentation, dict):
        return _runs_problem(segmentation, size_hw)
    if not isinstance(segmentation, list):
        return f"its segmentation is a {type(segmentation).__name__}, not polygons or run lengths"
    corners = (
        sum(len(polygon) for polygon in segmentation if isinstance(polygon, list)) // 2
    )
    if corners > MAX_OUTLINE_PX:
        return f"its polygons have {corners} corners, more than the limit of {MAX_OUTLINE_PX}; {_SIMPLER}"
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "a polygon needs x,y of at least 3 corners"
        if not all(map(is_finite_number, polygon)):
            return "a polygon holds something that is not a finite number"
        if min(polygon) < -max(size_hw) or max(polygon) > 2 * max(size_hw):
            return f"a polygon ranges from {min(polygon):g} to {max(polygon):g}, far outside an image of {size_hw} px"
    may_be_long = corners * 3 * max(size_hw) > MAX_OUTLINE_PX
    length = sum(map(_outline_px, segmentation)) if may_be_long else 0
    if length > MAX_OUTLINE_PX:
        return f"the outline of its polygons has {length} px, more than the limit of {MAX_OUTLINE_PX}; {_SIMPLER}"
    return None


def _outline_px(polygon: Sequence[float]) -> int:
    """Return the length of an outline in pixels, each edge by its longer side, as pycocotools draws it."""
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)  # (N, 2) xy
    edges = np.abs(corners - np.roll(corners, 1, axis=0))
    return int(edges.max(1).sum()) + len(corners)


def draw_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> BoolArray:
    """Draw a segmentation that is valid by `segmentation_problem`, as (H, W) bool."""
    mask = np.zeros(size_hw, np.bool_)
    region = draw_region(segmentation, size_hw, None)
    if region is not None:
        mask[region.window.slices] = region.crop
    return mask


def draw_region(
    segmentation: Any, size_hw: tuple[int, int], class_id: int | None
) -> Instance | None:
    """Draw a segmentation that is valid by `segmentation_problem`, as a region; None if it has no pixel.

    Only the columns of the region are drawn: an image may have ten thousands of small ones.
    """
    height = size_hw[0]
    ends = np.cumsum(_run_lengths(segmentation, size_hw))
    starts = np.concatenate([[0], ends[:-1]])
    # zeros first, so each second run is on the object; runs go down the columns
    filled = np.flatnonzero(starts[1::2] < ends[1::2])
    if not len(filled):
        return None
    x0 = int(starts[1::2][filled[0]]) // height
    x1 = (int(ends[1::2][filled[-1]]) - 1) // height + 1
    inside = np.arange(len(ends)) % 2 == 1
    lengths = np.minimum(ends, x1 * height) - np.maximum(starts, x0 * height)
    columns = np.repeat(inside, np.maximum(lengths, 0)).reshape(x1 - x0, height)
    return region_from_mask(columns.T, class_id, (0, x0))


def _run_lengths(segmentation: Any, size_hw: tuple[int, int]) -> Sequence[int]:
    """Return the run lengths of a valid segmentation down the columns, zeros first."""
    if isinstance(segmentation, list):
        merged = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw))
        counts = merged["counts"].decode()
    else:
        counts = segmentation["counts"]
    if not isinstance(counts, str):
        return list(counts)
    lengths = _lengths_of_text(counts)
    assert lengths is not None
    return lengths


def _runs_problem(runs: Mapping[str, Any], size_hw: tuple[int, int]) -> str | None:
    counts = runs.get("counts")
    if not isinstance(counts, str | list) or "size" not in runs:
        return "its run lengths need 'counts' and 'size'"
    if runs["size"] != list(size_hw):
        size = shortened(str(runs["size"]))
        return f"its run lengths are of size {size}, the image is {list(size_hw)} (height, width)"
    lengths = _lengths_of_text(counts) if isinstance(counts, str) else counts
    if lengths is None or not all(
        isinstance(length, int) and length >= 0 for length in lengths
    ):
        return "its run lengths are neither whole numbers of 0 or more nor COCO's text form of them"
    if sum(lengths) != size_hw[0] * size_hw[1]:
        return f"its run lengths add up to {sum(lengths)}, the image has {size_hw[0] * size_hw[1]} pixels"
    return None


def _lengths_of_text(text: str) -> list[int] | None:
    """Return the run lengths of COCO's text form, as pycocotools reads it; None if it is invalid.

    A character is 48 + 5 bits of a number, lowest first, + 32 if more follow; the highest bit of the last one is the
    sign. From the fourth on, a number is the difference to the length two before.
    """
    lengths: list[int] = []
    number = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > _MAX_BITS:
            return None
        number |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        number -= (code & 16) << (bits - 4)
        if len(lengths) > 2:
            number += lengths[-2]
        lengths.append(number)
        number = bits = 0
    if lengths and not bits:
        return lengths
    return None

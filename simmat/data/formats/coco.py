"""Read labels from COCO json: polygons and run lengths instead of mask files.

pycocotools draws in C and does not check its input: an invalid corner crashes the process, and pixels that no run
covers are uninitialized. So segmentations are checked before they are drawn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from simmat.data.card import DataCard
from simmat.data.formats.folders import IMAGES, files_by_stem
from simmat.data.formats.manifest import find_file
from simmat.data.instances import Instance, Label, components, make_label, region_from_mask
from simmat.data.samples import SPLITS, Sample, split_meant, start_of_paths
from simmat.errors import DataError, all_problems, nearest, shortened
from simmat.io.images import check_size
from simmat.io.reading import read_json
from simmat.sensors.adapter import Source
from simmat.types import BoolArray, is_finite_number

ANNOTATIONS = "annotations"
MAX_JSON_BYTES = 2**31
"""Largest json file that is read (2 GiB); that of COCO 2017 has 450 MiB."""
MAX_OUTLINE_PX = 2**23
"""Longest outline of the polygons of one object; pycocotools takes 50 bytes a pixel of it."""
_Types = type | tuple[type, ...]
_SIMPLER = "use fewer corners, or run lengths"
_WORDS: Mapping[type, str] = {int: "a whole number", str: "text"}
_MAX_BITS = 30
"""Most bits of a run length in text form before its last 5; 35 hold any length below 2**32."""
_SPLIT_FILE = re.compile(r"(?:instances_)?(train|val|test)\d*\.json")


@dataclass(frozen=True)
class CocoImage:
    """The size of one image and its annotations, as they stand in the json."""

    size_hw: tuple[int, int]
    annotations: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class CocoLabels:
    """All annotations of a data set, by sample id, and the names of the categories, by category id."""

    images: Mapping[str, CocoImage]
    class_names: Mapping[int, str]

    def label(self, sample_id: str, card: DataCard) -> Label:
        """Return the regions of one sample by the card's rule; crowds and the ignored category become `ignore`.

        "instances" makes each annotation a region of its category; "classes" joins those of one category; "components"
        joins them and takes the connected components. Masks of the image's size are drawn one at a time to save memory.

        Raises:
            DataError: an annotation cannot be drawn.
        """
        image = self.images[sample_id]
        ignore = np.zeros(image.size_hw, dtype=np.bool_)
        groups: dict[int, list[Mapping[str, Any]]] = {}
        for index, annotation in enumerate(image.annotations):
            category = annotation["category_id"]
            if annotation.get("iscrowd") or category == card.ignore:
                ignore |= _draw([annotation], image.size_hw)
            else:
                key = index if card.regions in ("instances", "panoptic") else category
                groups.setdefault(key, []).append(annotation)
        regions: list[Instance] = []
        empty = 0
        for _, group in sorted(groups.items()):
            category = group[0]["category_id"]
            visible = _draw(group, image.size_hw) & ~ignore
            if card.regions == "components":
                found = components(visible, category)
            else:
                region = region_from_mask(visible, category)
                found = [] if region is None else [region]
            empty += not found
            regions += found
        label = make_label(image.size_hw, regions, ignore, card.smallest_px(image.size_hw))
        return replace(label, dropped=label.dropped + empty)


def annotation_files(root: Path) -> dict[str, Path]:
    """Return the COCO files of a data set: split -> file; the split is "" if one file holds all splits."""
    single = root / f"{ANNOTATIONS}.json"
    found = {"": single} if single.exists() or single.is_symlink() else {}
    folder = root / ANNOTATIONS
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if match := _SPLIT_FILE.fullmatch(path.name):
            if match[1] in found:
                raise DataError(f"{folder}: two files for split {match[1]!r}: {found[match[1]].name} and {path.name}")
            found[match[1]] = path
        elif meant := split_meant(stem := path.stem.removeprefix("instances_").rstrip("0123456789")) or nearest(
            stem.lower(), SPLITS
        ):
            raise DataError(
                f"{path}: unknown split {stem!r}; rename the file to {meant}.json (splits: {', '.join(SPLITS)})"
            )
    if "" in found and len(found) > 1:
        raise DataError(f"{root}: found both annotations.json and annotations/*.json; remove one of them")
    return found


def read_coco(root: Path, sources: Sequence[Source], files: Mapping[str, Path]) -> tuple[list[Sample], CocoLabels]:
    """Read COCO files into samples and labels.

    Images are searched at `images/FILE_NAME`, `images/SPLIT/FILE_NAME` and `FILE_NAME`; those of several sources at
    `images/SOURCE/FILE_NAME`, where sources after the first may have another ending.

    Raises:
        DataError: the files cannot be used; lists all problems.
    """
    reader = _Reader(root, tuple(sources))
    for split, path in files.items():
        reader.read(split, path)
    problems = [*reader.problems, *_duplicates(reader.samples)]
    if problems:
        raise DataError(all_problems(f"{root}: COCO annotations that cannot be used:", problems))
    if not reader.samples:
        raise DataError(f"{root}: {', '.join(path.name for path in files.values())} lists no image")
    return reader.samples, CocoLabels(reader.images, reader.names)


@dataclass
class _Reader:
    """Reads the json files one by one, and collects problems."""

    root: Path
    sources: tuple[Source, ...]
    problems: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    images: dict[str, CocoImage] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    stems: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def read(self, split: str, path: Path) -> None:
        where = path.name
        content = read_json(path, "COCO json", limit=MAX_JSON_BYTES, constants=True)  # numbers are checked where used
        if not isinstance(content, dict):
            raise DataError(f"{path}: COCO json must be an object with images, annotations and categories")
        for entry in _entries(content, path, "categories", {"id": int, "name": str}):
            number, name = entry["id"], entry["name"]
            if not -(2**63) <= number < 2**63:
                self.problems.append(f"{where}: category id {number} must be a whole number of 64 bits")
            if self.names.setdefault(number, name) != name:
                self.problems.append(f"{where}: category {number} is {name!r}, elsewhere {self.names[number]!r}")
        by_image: dict[int | str, list[Mapping[str, Any]]] = {}
        sizes: dict[int | str, tuple[int, int]] = {}
        shape: dict[str, _Types] = {"id": (int, str), "file_name": str, "height": int, "width": int}
        entries = _entries(content, path, "images", shape)
        for entry in entries:
            if entry["id"] in by_image:
                self.problems.append(f"{where}: image id {entry['id']} occurs twice")
            by_image[entry["id"]] = []
            sizes[entry["id"]] = (entry["height"], entry["width"])
        shape = {"id": (int, str), "image_id": (int, str), "category_id": int}
        for annotation in _entries(content, path, "annotations", shape):
            if problem := self._problem_of(annotation, sizes):
                self.problems.append(f"{where}: annotation {annotation['id']}: {problem}")
            else:
                by_image[annotation["image_id"]].append(annotation)
        for entry in entries:
            self._add(split, where, entry, by_image[entry["id"]])

    def _problem_of(self, annotation: Mapping[str, Any], sizes: Mapping[int | str, tuple[int, int]]) -> str | None:
        if annotation["image_id"] not in sizes:
            return f"no image has the id {shortened(repr(annotation['image_id']))}"
        if annotation["category_id"] not in self.names:
            return f"no category has the id {annotation['category_id']!r}; ids: {sorted(self.names)}"
        if (annotation.get("iscrowd") or 0) not in (0, 1):
            return f"iscrowd must be 0 or 1, got {shortened(repr(annotation['iscrowd']))}"
        if not annotation.get("segmentation"):
            return "it has no segmentation, and a box is not a mask; add a segmentation, or remove the annotation"
        return segmentation_problem(annotation["segmentation"], sizes[annotation["image_id"]])

    def _add(self, split: str, where: str, entry: Mapping[str, Any], found: list[Mapping[str, Any]]) -> None:
        name, image, size = entry["file_name"], f"{where}: image {entry['id']}", (entry["height"], entry["width"])
        files: dict[str, Path] = {}
        try:
            check_size(Path(image), *size)
            for index, source in enumerate(self.sources):
                files[source.name] = self._file(split, name, source, exact=index == 0)
        except DataError as error:
            self.problems.append(str(error) if str(error).startswith(image) else f"{image}: {error}")
            return
        stem = name.rpartition(".")[0] or name
        name = f"{split}/{stem}" if split else stem  # the same name in two splits is two samples
        self.samples.append(Sample.of(name, split, files, None))
        self.images[name] = CocoImage(size, tuple(found))

    def _file(self, split: str, name: str, source: Source, *, exact: bool) -> Path:
        """Return the path of one file; DataError if it is missing."""
        own = f"{IMAGES}/{source.name}"
        folders = [own] if len(self.sources) > 1 else [IMAGES, own, "."]
        folders = [place for folder in folders for place in (folder, f"{folder}/{split}" if split else folder)]
        for place in (self.root / folder for folder in folders):
            if exact and place.is_dir():
                with suppress(DataError):  # it may be in another folder
                    found = find_file(start_of_paths(place), name)
                    if name.lower().endswith(source.extensions):
                        return Path(found)
            elif place.is_dir():
                if place not in self.stems:
                    self.stems[place] = files_by_stem(place, source.extensions)
                if paths := self.stems[place].get(name.rpartition(".")[0]):
                    return paths[0]
        endings = ", ".join(source.extensions)
        raise DataError(
            f"{name!r} is no file of source {source.name!r} ({endings}) in {', '.join(dict.fromkeys(folders))}"
        )


def _entries(content: Mapping[str, Any], path: Path, key: str, needed: Mapping[str, _Types]) -> list[Mapping[str, Any]]:
    """Return the list under `key`, after checking that its entries have the needed keys and types."""
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: COCO json needs a list {key!r}; it has {sorted(content)}")
    for index, entry in enumerate(entries):
        if lacking := [name for name in needed if name not in entry]:
            raise DataError(f"{path}: {key}[{index}] lacks {', '.join(lacking)}")
        for name, kind in needed.items():
            if not isinstance(entry[name], kind) or isinstance(entry[name], bool):
                allowed = " or ".join(_WORDS[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
                raise DataError(
                    f"{path}: {key}[{index}] has {name} = {shortened(repr(entry[name]))}; it must be {allowed}"
                )
    return entries


def _duplicates(samples: Sequence[Sample]) -> list[str]:
    ids = Counter(sample.id for sample in samples)
    files = Counter(path for sample in samples for path in sample.images)
    twice = [f"image {name!r} occurs twice" for name, count in ids.items() if count > 1]
    return twice or [f"{path} is in two splits; keep it in one" for path, count in files.items() if count > 1]


def _draw(annotations: Sequence[Mapping[str, Any]], size_hw: tuple[int, int]) -> BoolArray:
    """Return the union of some annotations as (H, W) bool."""
    mask = np.zeros(size_hw, dtype=np.bool_)
    for annotation in annotations:
        try:
            mask |= draw_segmentation(annotation["segmentation"], size_hw)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"annotation {annotation['id']}: its segmentation cannot be drawn: {error}") from None
    return mask


def segmentation_problem(segmentation: Any, size_hw: tuple[int, int]) -> str | None:
    """Describe what is invalid about a segmentation of an image of that size; None if it is valid."""
    if isinstance(segmentation, dict):
        return _runs_problem(segmentation, size_hw)
    if not isinstance(segmentation, list):
        return f"its segmentation is a {type(segmentation).__name__}, not polygons or run lengths"
    corners = sum(len(polygon) for polygon in segmentation if isinstance(polygon, list)) // 2
    if corners > MAX_OUTLINE_PX:
        return f"its polygons have {corners} corners, more than the limit of {MAX_OUTLINE_PX}; {_SIMPLER}"
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "a polygon needs x,y of at least 3 corners"
        if not all(map(is_finite_number, polygon)):
            return "a polygon holds something that is not a finite number"
        if min(polygon) < -max(size_hw) or max(polygon) > 2 * max(size_hw):
            return f"a polygon ranges from {min(polygon):g} to {max(polygon):g}, far outside an image of {size_hw} px"
    if corners * 3 * max(size_hw) > MAX_OUTLINE_PX and (length := sum(map(_outline_px, segmentation))) > MAX_OUTLINE_PX:
        return f"the outline of its polygons has {length} px, more than the limit of {MAX_OUTLINE_PX}; {_SIMPLER}"
    return None


def _outline_px(polygon: Sequence[float]) -> int:
    """Return the length of an outline in pixels, each edge by its longer side, as pycocotools draws it."""
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)  # (N, 2) xy
    return int(np.abs(corners - np.roll(corners, 1, axis=0)).max(1).sum()) + len(corners)


def draw_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> BoolArray:
    """Draw a segmentation that is valid by `segmentation_problem`, as (H, W) bool."""
    if isinstance(segmentation, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw))
    elif isinstance(segmentation["counts"], str):
        runs = {"size": list(size_hw), "counts": segmentation["counts"].encode()}
    else:
        runs = coco_mask.frPyObjects(dict(segmentation), *size_hw)
    return np.asarray(coco_mask.decode(runs), dtype=np.bool_)


def _runs_problem(runs: Mapping[str, Any], size_hw: tuple[int, int]) -> str | None:
    counts = runs.get("counts")
    if not isinstance(counts, str | list) or "size" not in runs:
        return "its run lengths need 'counts' and 'size'"
    if runs["size"] != list(size_hw):
        return f"its run lengths are of size {runs['size']}, the image is {list(size_hw)} (height, width)"
    if isinstance(counts, str):
        counts = _lengths_of_text(counts)
        if counts is None:
            return "its run lengths are not in COCO's text form"
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return "its run lengths hold something that is not a whole number of 0 or more"
    if sum(counts) != size_hw[0] * size_hw[1]:
        return f"its run lengths add up to {sum(counts)}, the image has {size_hw[0] * size_hw[1]} pixels"
    return None


def _lengths_of_text(text: str) -> list[int] | None:
    """Return the run lengths of COCO's text form, as pycocotools reads it; None if it is invalid.

    A character is 48 + 5 bits of a number, lowest first, + 32 if more follow; the highest bit of the last one is the
    sign. From the fourth on, a number is the difference to the length two before.
    """
    lengths: list[int] = []
    number = bits = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or bits > _MAX_BITS:
            return None
        number |= (code & 31) << bits
        bits += 5
        if not code & 32:
            number -= (code & 16) << (bits - 4)
            lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
            number = bits = 0
    return lengths if lengths and not bits else None

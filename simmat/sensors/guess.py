"""Guess which installed sensor reads the files of a folder, with the evidence, and what the files cannot tell."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import DataError, SimMATError, few_of
from simmat.io.frames import frame_paths, stack_endings
from simmat.io.images import has_image_ending, read_image, window_size
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.sensors.facts import FileFacts, FilesOfKind, Recognition
from simmat.types import Channel, ImageFile, Window

_LOOKED_AT = 24
"""Files of each ending that are read, evenly spread."""
_TRIED = 3
"""Files of each kind that a sensor is tried on."""
_WHOLE_PX = 2048
"""Side in pixels above which only the middle of a file is read, where its format allows that."""
_MAX_PLANES_COMPARED = 8
_MASK_FOLDERS = ("masks", "labels", "annotations")
_IMAGE_FOLDERS = ("images", "frames")
_SPLITS = ("train", "val", "test")
_RANKS = {"stated": 0, "likely": 1, "possible": 2, "unlikely": 3}
_PATCHES = 0.97
"""Share of neighbouring pixels that are equal in a label image."""
_MAX_LABELS = 1000
_MAX_BAND_FILES = 16
_PLAIN = ("gray", "raster")
"""The built-in sensors that read numbers as they are stored."""
_COMMON_SEGMENTS = ("JFIF", "Exif", "ICC_PROFILE", "http", "Photoshop", "Adobe")


_Kind = tuple[str, int, str, tuple[str, ...]]
"""Format, number of planes, type of the numbers, and added segments of files."""


@dataclass(frozen=True)
class Candidate:
    """A sensor that reads files of one kind.

    Attributes:
        modality: its name.
        recognition: what it recognizes; of one that only reads the files, without evidence.
        channels: the channels of a file, as it loads them.
    """

    modality: str
    recognition: Recognition
    channels: tuple[Channel, ...]

    @property
    def unit_evidence(self) -> str:
        """Say where the units of its channels come from."""
        if self.recognition.unit:
            return self.recognition.unit
        units = {channel.unit for channel in self.channels}
        if units == {"count"}:
            return "the files state no unit, so numbers are read as they are stored"
        return f"an assumption of modality {self.modality!r}; the files state no unit"

    @property
    def questions(self) -> tuple[str, ...]:
        """What the files cannot tell."""
        if self.recognition.unit or self.recognition.questions:
            return self.recognition.questions
        return ("Which sensor made the files, and what is the unit of its numbers?",)


@dataclass(frozen=True)
class GroupGuess:
    """What is guessed of files of one kind.

    Attributes:
        folder: where they are.
        files: what they show.
        evidence: what they show, a sentence each.
        best: the sensor that reads them; None if none does.
        others: further sensors that read them, best first.
        questions: what the files cannot tell.
        draft: a `sensor.toml` for them; "" if a sensor recognizes them.
    """

    folder: Path
    files: FilesOfKind
    evidence: tuple[str, ...]
    best: Candidate | None
    others: tuple[Candidate, ...]
    questions: tuple[str, ...]
    draft: str = ""

    def modalities(self) -> tuple[str, ...]:
        """Return the names of the sensors that read the files, best first."""
        names = []
        if self.best is not None:
            names.append(self.best.modality)
        for other in self.others:
            names.append(other.modality)
        return tuple(names)


@dataclass(frozen=True)
class FolderGuess:
    """What is guessed of a folder.

    Attributes:
        folder: the folder whose files were looked at.
        groups: files of the same kind, the most frequent first.
        composition: a modality such as "rgb+thermal", where each subfolder is a source of one; "" otherwise.
        unreadable: why files could not be read.
        notes: what else a user should know.
    """

    folder: Path
    groups: tuple[GroupGuess, ...]
    composition: str = ""
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def guess_folder(folder: Path, adapters: Sequence[ModalityAdapter]) -> FolderGuess:
    """Look at the files of a folder, and return which of the sensors reads them.

    Of a data set, its `images/` or `frames/` are looked at.

    Raises:
        DataError: the folder is missing, has no images, holds only masks, or none of its images can be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of the images")
    root = _images_folder(folder)
    known: set[str] = set()
    for adapter in adapters:
        known.update(adapter.source_names())
    sources = _source_folders(root, known)
    notes = []
    groups: list[GroupGuess] = []
    unreadable: list[str] = []
    for place in sources or [root]:
        found, problems, note = _guess_files(place, adapters)
        groups += found
        unreadable += problems
        if note:
            notes.append(note)
    if not groups:
        raise _nothing(folder, root, unreadable)
    labels = 0
    images = []
    for group in groups:
        if _are_labels(group.files):
            labels += group.files.count
        else:
            images.append(group)
    if not images:
        raise DataError(
            f"{root}: holds label images only (few different whole numbers in large patches), no images of a sensor; "
            "give the folder of the images"
        )
    if labels:
        notes.append(f"{labels} files look like label images and are left out")
    return FolderGuess(
        root,
        tuple(images),
        _composition(sources, images),
        tuple(unreadable),
        tuple(notes),
    )


def _images_folder(folder: Path) -> Path:
    for name in _IMAGE_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    return folder


def _source_folders(root: Path, known: Collection[str]) -> list[Path]:
    """Return the subfolders to look at, if a folder has no images of its own: one for each source, or of a split."""
    if _image_files(root):
        return []
    found = []
    for child in _children(root):
        if child.is_dir() and child.name in _SPLITS and _image_files(child):
            return [child]
        if child.is_dir() and child.name in known and _image_files(child):
            found.append(child)
    return found


def _children(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error


def _image_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like images, or like files of frames."""
    stacks = stack_endings()
    found = []
    for child in _children(folder):
        if child.name.startswith(".") or not child.is_file():
            continue
        is_stack = child.name.lower().endswith(stacks) if stacks else False
        if has_image_ending(child) or is_stack:
            found.append(child)
    return found


def _nothing(folder: Path, root: Path, unreadable: Sequence[str]) -> DataError:
    """Return the error for a folder in which no image was read."""
    if unreadable:
        return DataError(
            f"{root}: none of its images can be read; the first: {unreadable[0]}"
        )
    children = _children(root)
    if not children:
        return DataError(f"{root}: the folder is empty; give the folder of the images")
    folders = []
    endings: Counter[str] = Counter()
    for child in children:
        if child.is_dir():
            folders.append(child.name)
        else:
            endings[child.suffix or child.name] += 1
    if folders:
        return DataError(
            f"{folder}: holds no images itself; give one of its folders: {few_of(folders, 6)}"
        )
    listed = few_of([f"{count} {ending}" for ending, count in endings.items()], 6)
    return DataError(f"{root}: holds no images, but {listed}")


def _spread(items: Sequence[Path], count: int) -> list[Path]:
    """Return at most `count` items, evenly spread."""
    step = -(-len(items) // count)
    return list(items[:: max(step, 1)])


def _guess_files(
    folder: Path, adapters: Sequence[ModalityAdapter]
) -> tuple[list[GroupGuess], list[str], str]:
    """Return the guesses of the files of a folder, why some could not be read, and what else is notable."""
    by_ending: dict[str, list[Path]] = defaultdict(list)
    for file in _image_files(folder):
        if file.name.split(".")[0].lower() in ("mask", "masks", "label", "labels"):
            continue
        by_ending[file.suffix.lower()].append(file)
    kinds: dict[_Kind, list[FileFacts]] = defaultdict(list)
    counts: Counter[_Kind] = Counter()
    problems = []
    for files in by_ending.values():
        read = []
        looked_at = _spread(files, _LOOKED_AT)
        for file in looked_at:
            try:
                facts = file_facts(file)
            except (SimMATError, MemoryError) as error:
                problems.append(str(error))
                continue
            key = (facts.format, facts.planes, facts.dtype, facts.segments)
            kinds[key].append(facts)
            read.append(key)
        for key, number in Counter(read).items():
            # of all files with this ending, as many as of those that were looked at
            counts[key] += max(round(len(files) * number / len(looked_at)), number)
    groups = []
    words = _words(folder)
    for key, _ in counts.most_common():
        files_of_kind = FilesOfKind(tuple(kinds[key]), counts[key], words)
        groups.append(_guess_group(folder, files_of_kind, adapters))
    return groups, problems, _band_files(by_ending)


def _words(folder: Path) -> frozenset[str]:
    """Return the words in the names of a folder and of its parent."""
    text = f"{folder.absolute().parent.name} {folder.absolute().name}".lower()
    return frozenset(re.findall(r"[a-z0-9]+", text))


def _band_files(by_ending: Mapping[str, Sequence[Path]]) -> str:
    """Say that each band is in a file of its own, where the ends of the names show it; "" otherwise."""
    for ending, files in by_ending.items():
        scenes: dict[str, set[str]] = defaultdict(set)
        for file in files:
            scene, line, band = file.stem.rpartition("_")
            if line and scene:
                scenes[scene].add(band)
        if len(scenes) < 2:
            continue
        bands = next(iter(scenes.values()))
        same = all(own == bands for own in scenes.values())
        if same and 2 <= len(bands) <= _MAX_BAND_FILES:
            names = ", ".join(f"*_{band}{ending}" for band in sorted(bands))
            return (
                f"each of {len(scenes)} names has the same {len(bands)} ends ({names}), as if each band were in a file "
                "of its own; a sensor.toml with a [[source]] for each end reads them together"
            )
    return ""


def file_facts(path: Path) -> FileFacts:
    """Look at an image file, or at the middle frame of a file of frames.

    Raises:
        DataError: it cannot be read.
    """
    target = path
    if path.name.lower().endswith(stack_endings()) and stack_endings():
        frames = frame_paths(path, "z")
        target = frames[len(frames) // 2]
        image = read_image(target)
    else:
        image = read_image(path, window=_middle(path))
    return _facts_of(path, image)


def _middle(path: Path) -> Window | None:
    """Return the part of a large file that is looked at; None for all of it."""
    size_hw = window_size(path)
    if size_hw is None or max(size_hw) <= _WHOLE_PX:
        return None
    height, width = size_hw
    rows = min(height, _WHOLE_PX)
    columns = min(width, _WHOLE_PX)
    y0 = (height - rows) // 2
    x0 = (width - columns) // 2
    return Window(y0, x0, y0 + rows, x0 + columns)


def _facts_of(path: Path, image: ImageFile) -> FileFacts:
    planes = image.planes
    low = []
    high = []
    zeros = []
    for plane in planes:
        numbers = plane[np.isfinite(plane)]
        if not numbers.size:
            numbers = np.zeros(1)
        low.append(float(numbers.min()))
        high.append(float(numbers.max()))
        zeros.append(float((plane == 0).mean()))
    equal = []
    for one, other in combinations(range(min(len(planes), _MAX_PLANES_COMPARED)), 2):
        if np.array_equal(planes[one], planes[other]):
            equal.append((one, other))
    height, width = planes.shape[1:]
    return FileFacts(
        path,
        image.format,
        len(planes),
        str(planes.dtype),
        (height, width),
        image.colour,
        tuple(low),
        tuple(high),
        tuple(zeros),
        tuple(equal),
        image.description,
        image.nodata,
        image.scales,
        image.alpha,
        _segments(path) if image.format == "jpeg" else (),
        _is_label(image),
    )


def _segments(path: Path) -> tuple[str, ...]:
    """Return the segments of a JPEG that programs and cameras add, with the text with which each begins."""
    found = set()
    with path.open("rb") as stream:
        stream.seek(2)
        while len(head := stream.read(4)) == 4 and head[0] == 0xFF:
            marker = head[1]
            length = int.from_bytes(head[2:], "big")
            # the scan of the pixels begins
            if marker == 0xDA or length < 2:
                break
            start = stream.read(min(length - 2, 16))
            stream.seek(length - 2 - len(start), os.SEEK_CUR)
            if 0xE0 <= marker <= 0xEF:
                text = re.match(rb"([A-Za-z_-]{3,12})(\0|:)", start)
                name = text[1].decode() if text else ""
                if not name.startswith(_COMMON_SEGMENTS):
                    found.add(f"APP{marker - 0xE0} {name}".strip())
    return tuple(sorted(found))


def _is_label(image: ImageFile) -> bool:
    """Return whether an image looks like a mask: one plane of few whole numbers, in large patches."""
    plane = image.planes[0]
    if len(image.planes) > 1 or image.format == "jpeg" or plane.dtype.kind not in "bui":
        return False
    different = np.unique(plane).size
    if not 1 < different <= _MAX_LABELS or plane.shape[1] < 2:
        return False
    return float((plane[:, 1:] == plane[:, :-1]).mean()) >= _PATCHES


def _are_labels(files: FilesOfKind) -> bool:
    return all(one.is_label for one in files.samples)


def _guess_group(
    folder: Path, files: FilesOfKind, adapters: Sequence[ModalityAdapter]
) -> GroupGuess:
    candidates: list[Candidate] = []
    for adapter in adapters:
        found = _candidate(adapter, files)
        if found is not None:
            candidates.append(found)
    candidates.sort(key=_rank)
    best = candidates[0] if candidates else None
    questions = list(best.questions) if best else []
    for other in candidates[1:]:
        if _is_rival(other, best):
            questions += other.recognition.questions
    questions += _questions(files)
    is_known = best is not None and best.recognition.certainty != "possible"
    draft = ""
    if not is_known:
        draft = sensor_draft(files)
    return GroupGuess(
        folder,
        files,
        _evidence(files),
        best,
        tuple(candidates[1:]),
        tuple(dict.fromkeys(questions)),
        draft,
    )


def _is_rival(other: Candidate, best: Candidate | None) -> bool:
    """Return whether another sensor's questions help to choose: it has evidence, and the files do not state theirs."""
    if best is None or best.recognition.certainty == "stated":
        return False
    found = other.recognition
    return bool(found.evidence) and found.certainty != "unlikely"


def _rank(candidate: Candidate) -> tuple[int, bool, bool]:
    """Return what orders candidates: certainty, then evidence, then those that read numbers as they are stored."""
    recognition = candidate.recognition
    is_plain = candidate.modality in _PLAIN
    if recognition.certainty == "possible":
        # without evidence, the sensor that assumes least
        return _RANKS["possible"], not is_plain, candidate.modality == "raster"
    return _RANKS[recognition.certainty], is_plain, not recognition.evidence


def _candidate(adapter: ModalityAdapter, files: FilesOfKind) -> Candidate | None:
    """Return a sensor that reads files of one kind, with what it recognizes; None if it does not read them."""
    if len(adapter.sources) != 1:
        return None
    source = adapter.sources[0]
    path = files.first.path
    # a frame of a volume or a video is read like an image
    is_stack = _loaded(path) != path
    if not is_stack and not path.name.lower().endswith(source.extensions):
        return None
    recognition = _recognition(adapter, files)
    named = sorted(files.words & {adapter.name, source.name})
    if named and recognition.certainty in ("possible", "unlikely"):
        evidence = (*recognition.evidence, f"the folder's name says {named[0]!r}")
        recognition = replace(recognition, certainty="likely", evidence=evidence)
    try:
        changed = adapter.with_options({adapter.name: dict(recognition.options)})
        source = changed.sources[0]
        channels = None
        for facts in files.samples[:_TRIED]:
            image = load_sample(changed, {source.name: _loaded(facts.path)})
            if channels is not None and image.channels != channels:
                return None
            channels = image.channels
    except (SimMATError, MemoryError):
        return None
    assert channels is not None  # a group has a file
    return Candidate(adapter.name, recognition, channels)


def _recognition(adapter: ModalityAdapter, files: FilesOfKind) -> Recognition:
    """Return what a sensor recognizes; a file that it cannot read, or on which its plugin fails, shows nothing."""
    try:
        return adapter.recognize(files) or Recognition("possible")
    except Exception:  # one broken plugin must not hide the answers of the others
        return Recognition("possible")


def _loaded(path: Path) -> Path:
    """Return what a sensor loads of a file: itself, or the middle frame of a file of frames."""
    if path.name.lower().endswith(stack_endings()) and stack_endings():
        frames = frame_paths(path, "z")
        return frames[len(frames) // 2]
    return path


def _evidence(files: FilesOfKind) -> tuple[str, ...]:
    """Return what files show, a sentence each."""
    first = files.first
    planes = "1 plane" if first.planes == 1 else f"{first.planes} planes"
    found = [
        f"{files.count} {first.format.upper()} files, {planes} of {first.dtype}",
        f"stored numbers from {files.low:.6g} to {files.high:.6g} in {len(files.samples)} files that were looked at",
    ]
    height, width = first.size_hw
    if files.are_of_one_size():
        found.append(f"{width}x{height} pixels (width x height)")
    else:
        found.append(f"different sizes, the first {width}x{height} (width x height)")
    for one, other in first.equal:
        if files.planes_are_equal(one, other):
            found.append(f"planes {one} and {other} (from 0) are equal in every pixel")
    if first.nodata:
        numbers = ", ".join(f"{number:g}" for number in first.nodata)
        found.append(f"the files state nodata = {numbers}")
    for plane, (scale, offset) in enumerate(first.scales):
        if (scale, offset) != (1.0, 0.0):
            found.append(
                f"the files state scale {scale:g} and offset {offset:g} of plane {plane}"
            )
    if first.alpha:
        found.append("the last plane is alpha (opacity)")
    if first.segments:
        found.append(f"segments in the JPEG: {', '.join(first.segments)}")
    if first.description.strip():
        text = " ".join(first.description.split())
        found.append(f"the files' description: {text[:120]}")
    return tuple(found)


def _questions(files: FilesOfKind) -> list[str]:
    """Return what to ask of zeros and fill values, which files do not explain."""
    first = files.first
    asked: list[str] = []
    if first.nodata:
        return asked
    zeros = files.zeros
    if zeros >= 0.02 and first.colour != "rgb":
        asked.append(
            f"Do zeros (up to {zeros:.0%} of an image) mean no measurement? Then add --nodata 0"
        )
    low = files.low
    if first.dtype.startswith(("int", "float")) and low <= -999:
        asked.append(f"Does {low:g} mean no measurement? Then add --nodata {low:g}")
    full = {"uint16": 65535.0, "int16": 32767.0}.get(first.dtype)
    if full is not None and files.high == full:
        asked.append(
            f"Does {full:g} mean no measurement, or saturation? If no measurement, add --nodata {full:g}"
        )
    return asked


def _composition(sources: Sequence[Path], groups: Sequence[GroupGuess]) -> str:
    """Return the modality of subfolders that are each a source of one sensor; "" if there is no such modality."""
    if len(sources) < 2:
        return ""
    names = []
    for folder in sources:
        kinds = 0
        known: set[str] = set()
        for group in groups:
            if group.folder == folder:
                kinds += 1
                known.update(group.modalities())
        if kinds != 1 or folder.name not in known:
            return ""
        names.append(folder.name)
    return "+".join(names)


def sensor_draft(files: FilesOfKind) -> str:
    """Return a `sensor.toml` that reads files as they are stored, with comments on what to fill in."""
    first = files.first
    ending = "".join(first.path.suffixes[-1:]).lower()
    lines = [
        "format = 1",
        'name = "my-sensor"  # your sensor\'s name',
        "",
        "[[source]]",
        f'files = ["*{ending}"]',
        f"planes = {first.planes}",
        "",
        "[defaults]",
        'quantity = "counts"  # what is measured',
        'unit = "count"  # the files do not state a unit: value = stored * scale + offset',
    ]
    if first.nodata:
        numbers = ", ".join(f"{number:g}" for number in first.nodata)
        lines.append(f"nodata = [{numbers}]  # stated in the files")
    else:
        lines.append("# nodata = 0  # the number that means no measurement, if any")
    for plane in range(first.planes):
        lines += ["", "[[channel]]", f'name = "band{plane}"', f"plane = {plane}"]
        lines.append(
            f"# {first.low[plane]:.6g} to {first.high[plane]:.6g} in {first.path.name}"
        )
    return "\n".join(lines) + "\n"


def as_json(guess: FolderGuess) -> dict[str, Any]:
    """Return a guess as json values."""
    return {
        "folder": str(guess.folder),
        "composition": guess.composition or None,
        "groups": [_group_json(group) for group in guess.groups],
        "unreadable": list(guess.unreadable),
        "notes": list(guess.notes),
    }


def _group_json(group: GroupGuess) -> dict[str, Any]:
    first = group.files.first
    return {
        "folder": str(group.folder),
        "files": group.files.count,
        "format": first.format,
        "planes": first.planes,
        "dtype": first.dtype,
        "evidence": list(group.evidence),
        "modality": None if group.best is None else group.best.modality,
        "best": None if group.best is None else _candidate_json(group.best),
        "others": [_candidate_json(one) for one in group.others],
        "questions": list(group.questions),
        "sensor_toml": group.draft or None,
    }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "modality": candidate.modality,
        "options": dict(candidate.recognition.options),
        "certainty": candidate.recognition.certainty,
        "evidence": list(candidate.recognition.evidence),
        "channels": [
            {"name": channel.name, "unit": channel.unit}
            for channel in candidate.channels
        ],
        "unit_evidence": candidate.unit_evidence,
    }


def option_text(options: Mapping[str, Any]) -> str:
    """Return options as a command takes them: " --modality-option unit=cK"."""
    text = ""
    for name, value in options.items():
        text += f" --modality-option {name}={_value(value)}"
    return text


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)

"""Guess which installed sensor reads the files of a folder, with the evidence, and what the files cannot tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, get_args

from simmat.errors import DataError, SimMATError, few_of
from simmat.io.frames import stack_endings
from simmat.io.images import has_image_ending
from simmat.io.paths import frame_of
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.sensors.options import format_nodata, format_options
from simmat.types import Channel, SensorImage
from simmat_plugin_guess.band_files import BandFiles, find_band_files
from simmat_plugin_guess.facts import (
    Certainty,
    FileFacts,
    FilesOfKind,
    Recognition,
    RecognizesFiles,
)
from simmat_plugin_guess.look import file_facts, is_stack, middle_of

_LOOKED_AT = 24
"""Files of each ending that are read, evenly spread."""
_TRIED = 3
"""Files of each kind that a sensor is tried on."""
_IMAGE_FOLDERS = ("images", "frames")
_SPLITS = ("train", "val", "test")
_MASK_NAMES = ("mask", "masks", "label", "labels")
_CERTAINTIES = get_args(Certainty)
_PLAIN = {"gray": 0, "raster": 1}
"""The built-in sensors that read numbers as they are stored, with their rank among sensors of equal certainty."""
_MANY_ZEROS = 0.02
_FULL_SCALES = {"uint16": 65535.0, "int16": 32767.0}
_WHICH_SENSOR = "Which sensor made the files, and what is the unit of its numbers?"


@dataclass(frozen=True)
class Candidate:
    """A sensor that reads files of one kind.

    Attributes:
        adapter: the sensor, with the options that it recognized.
        recognition: what it recognizes; of one that only reads the files, without evidence.
        channels: the channels of a file, as it loads them.
    """

    adapter: ModalityAdapter
    recognition: Recognition
    channels: tuple[Channel, ...]

    @property
    def modality(self) -> str:
        """The name of the sensor."""
        return self.adapter.name

    @property
    def arguments(self) -> str:
        """The options as a command takes them, also in a composition: " --modality-option thermal.unit=cK"."""
        text = ""
        for name, value in self.recognition.options.items():
            option = format_options({f"{self.modality}.{name}": value})
            text += f" --modality-option {option}"
        return text

    @property
    def unit_evidence(self) -> str:
        """Say where the units of its channels come from."""
        if self.recognition.unit:
            return self.recognition.unit
        if all(channel.unit == "count" for channel in self.channels):
            return "the files state no unit, so numbers are read as they are stored"
        return f"an assumption of modality {self.modality!r}; the files state no unit"

    def as_json(self) -> dict[str, Any]:
        """Return it as json values."""
        return {
            "modality": self.modality,
            **asdict(self.recognition),
            "channels": [asdict(channel) for channel in self.channels],
            "unit_evidence": self.unit_evidence,
        }


@dataclass(frozen=True)
class GroupGuess:
    """What is guessed of files of one kind.

    Attributes:
        folder: where they are.
        files: what they show.
        evidence: what they show, a sentence each.
        candidates: the sensors that read them, best first.
        questions: what the files cannot tell.
        draft: a `sensor.toml` for them; "" if a sensor recognizes them.
    """

    folder: Path
    files: FilesOfKind
    evidence: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    questions: tuple[str, ...]
    draft: str = ""

    @property
    def best(self) -> Candidate | None:
        """The sensor that reads them best; None if none does."""
        return self.candidates[0] if self.candidates else None

    def as_json(self) -> dict[str, Any]:
        """Return it as json values."""
        first = self.files.first
        candidates = [one.as_json() for one in self.candidates]
        best = candidates[0] if candidates else None
        return {
            "folder": str(self.folder),
            "files": self.files.count,
            "format": first.format,
            "planes": first.planes,
            "dtype": first.dtype,
            "evidence": list(self.evidence),
            "modality": best and best["modality"],
            "best": best,
            "others": candidates[1:],
            "questions": list(self.questions),
            "sensor_toml": self.draft or None,
        }


@dataclass(frozen=True)
class FolderGuess:
    """What is guessed of a folder.

    Attributes:
        folder: the folder whose files were looked at.
        groups: files of the same kind.
        composition: if each subfolder holds the files of one sensor, the sensors by which to read them together, such
            as an RGB and a thermal camera; otherwise empty.
        unreadable: why files could not be read.
        notes: what else a user should know.
        bands: files per band, which belong together.
    """

    folder: Path
    groups: tuple[GroupGuess, ...]
    composition: tuple[Candidate, ...] = ()
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bands: tuple[BandFiles, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as json values."""
        names = "+".join(one.modality for one in self.composition)
        return {
            "folder": str(self.folder),
            "composition": names or None,
            "groups": [group.as_json() for group in self.groups],
            "unreadable": list(self.unreadable),
            "notes": list(self.notes),
            "band_files": [one.as_json() for one in self.bands],
        }


def guess_folder(folder: Path, adapters: Sequence[ModalityAdapter]) -> FolderGuess:
    """Look at the files of a folder, and return which of the sensors reads them.

    Of a data set, its `images/` or `frames/` are looked at.

    Raises:
        DataError: the folder is missing, has no images, holds only masks, or none of its images can be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of the images")
    root = folder
    for name in _IMAGE_FOLDERS[::-1]:
        if (folder / name).is_dir():
            root = folder / name
    sources = {name for adapter in adapters for name in adapter.source_names()}
    kinds: list[tuple[Path, FilesOfKind]] = []
    unreadable: list[str] = []
    notes: list[str] = []
    bands: list[BandFiles] = []
    for place in _image_folders(root, sources):
        for files in _image_files(place).values():
            kinds += [(place, kind) for kind in _sorted_by_kind(files, unreadable)]
            found = find_band_files(files)
            if found is not None:
                bands.append(found)
    if unreadable and not kinds:
        raise DataError(
            f"{root}: none of its images can be read; the first: {unreadable[0]}"
        )
    if not kinds:
        _refuse_other_formats(root, adapters)
        held = few_of([child.name for child in sorted(root.iterdir())], 6)
        raise DataError(
            f"{root}: holds no images itself; it holds {held or 'nothing, it is empty'}; give the folder of the images"
        )
    groups = []
    for place, kind in kinds:
        if all(facts.is_label for facts in kind.samples):
            notes.append(f"{kind.count} files look like label images and are left out")
        else:
            group = _guess_group(place, kind, adapters)
            if any(one.holds(kind.first.path) for one in bands):
                group = replace(group, draft="")
            groups.append(group)
    if not groups:
        raise DataError(
            f"{root}: holds label images only (few different whole numbers in large patches), no images of a sensor; "
            "give the folder of the images"
        )
    return FolderGuess(
        root,
        tuple(groups),
        _composition(groups),
        tuple(unreadable),
        tuple(notes),
        tuple(bands),
    )


def _refuse_other_formats(root: Path, adapters: Sequence[ModalityAdapter]) -> None:
    """Raise DataError if a folder holds files that are not looked at, but that sensors read by their ending."""
    for child in sorted(root.iterdir()):
        readers = []
        for adapter in adapters:
            if child.name.lower().endswith(adapter.sources[0].extensions):
                readers.append(adapter.name)
        if readers and child.name[0] != ".":
            raise DataError(
                f"{root}: {child.name} is of a kind that only some sensors read, so its content is not looked at; try "
                f"--modality {' or '.join(readers)}, and see simmat modalities show {readers[0]}"
            )


def _image_files(folder: Path) -> dict[str, list[Path]]:
    """Return ending -> files of a folder that are named like images or files of frames, but not like masks."""
    found: dict[str, list[Path]] = defaultdict(list)
    for child in sorted(folder.iterdir()):
        is_named = has_image_ending(child) or is_stack(child)
        is_mask = child.name.split(".")[0].lower() in _MASK_NAMES
        if is_named and not is_mask and child.name[0] != "." and child.is_file():
            found[child.suffix.lower()].append(child)
    return found


def _image_folders(root: Path, sources: Collection[str]) -> list[Path]:
    """Return the folder; if it has no images itself, the subfolders of its sources, or that of a split."""
    if _image_files(root):
        return [root]
    found = []
    for child in sorted(root.iterdir()):
        if not child.is_dir() or not _image_files(child):
            continue
        if child.name in _SPLITS:
            return [child]
        if child.name in sources:
            found.append(child)
    return found


def _sorted_by_kind(files: Sequence[Path], unreadable: list[str]) -> list[FilesOfKind]:
    """Look at some of the files with one ending, and return those of the same kind together.

    Args:
        files: the files of a folder.
        unreadable: why files could not be read is added here.
    """
    kinds: dict[tuple[Any, ...], list[FileFacts]] = defaultdict(list)
    looked_at = files[:: ceil(len(files) / _LOOKED_AT)]
    for file in looked_at:
        try:
            facts = file_facts(file)
        except (SimMATError, MemoryError) as error:
            unreadable.append(str(error))
            continue
        kind = (facts.format, facts.planes, facts.dtype, facts.segments)
        kinds[kind].append(facts)
    folder = files[0].absolute().parent
    words = re.findall(r"[a-z0-9]+", f"{folder.parent.name} {folder.name}".lower())
    found = []
    for samples in kinds.values():
        count = round(len(files) * len(samples) / len(looked_at))
        found.append(FilesOfKind(tuple(samples), count, frozenset(words)))
    return found


def _guess_group(
    folder: Path, files: FilesOfKind, adapters: Sequence[ModalityAdapter]
) -> GroupGuess:
    candidates = []
    for adapter in adapters:
        found = _candidate(adapter, files)
        if found is not None:
            candidates.append(found)
    evidence = tuple(_evidence(files))
    if not candidates:
        return GroupGuess(folder, files, evidence, (), (), sensor_draft(files))
    candidates.sort(key=_rank)
    best = candidates[0]
    certainty = best.recognition.certainty
    questions = list(best.recognition.questions)
    if not best.recognition.unit and not questions:
        questions.append(_WHICH_SENSOR)
    questions += _nodata_questions(best.adapter, files)
    for other in candidates[1:]:
        # its question helps to choose, unless the files state whose they are
        rival = other.recognition
        if certainty != "stated" and rival.evidence and rival.certainty != "unlikely":
            questions += rival.questions
    draft = sensor_draft(files) if certainty == "possible" else ""
    unique = tuple(dict.fromkeys(questions))
    return GroupGuess(folder, files, evidence, tuple(candidates), unique, draft)


def _rank(candidate: Candidate) -> tuple[int, int]:
    """Return what orders candidates: by certainty, then those first that read numbers as they are stored."""
    certainty = _CERTAINTIES.index(candidate.recognition.certainty)
    return certainty, _PLAIN.get(candidate.modality, len(_PLAIN))


def _candidate(adapter: ModalityAdapter, files: FilesOfKind) -> Candidate | None:
    """Return a sensor that reads files of one kind, with what it recognizes; None if it does not read them."""
    if len(adapter.sources) != 1:
        return None
    source = adapter.sources[0]
    path = files.first.path
    # a frame of a volume or a video is read like an image of any ending
    if frame_of(path) is None and not path.name.lower().endswith(source.extensions):
        return None
    recognition = Recognition("possible")
    # one broken plugin must not hide the answers of the others
    with suppress(Exception):
        if adapter.name == "rgb":
            recognition = _recognize_rgb(files)
        elif isinstance(adapter, RecognizesFiles):
            recognition = adapter.recognize(files) or recognition
    named = sorted(files.words & {adapter.name, source.name})
    if named and recognition.certainty in ("possible", "unlikely"):
        evidence = (*recognition.evidence, f"the folder's name says {named[0]!r}")
        recognition = replace(recognition, certainty="likely", evidence=evidence)
    loaded = set()
    with suppress(Exception):
        adapter = adapter.with_options({adapter.name: dict(recognition.options)})
        loaded = {
            _load(adapter, facts.path).channels for facts in files.samples[:_TRIED]
        }
    if len(loaded) != 1:
        return None
    return Candidate(adapter, recognition, loaded.pop())


def _recognize_rgb(files: FilesOfKind) -> Recognition:
    """Take a file that says red, green and blue for a colour picture, unless two of its planes are equal."""
    question = "Are the planes red, green and blue, as eyes see them? Other bands need --modality raster"
    if files.first.equal:
        evidence = "two planes are equal, which those of a colour picture are not"
        return Recognition("unlikely", (evidence,), questions=(question,))
    evidence = "the files say that their planes are red, green and blue"
    unit = "counts from 0 to 255 of a picture"
    return Recognition("likely", (evidence,), unit=unit, questions=(question,))


def _load(adapter: ModalityAdapter, path: Path) -> SensorImage:
    """Load a file by a sensor of one source, or the middle of a large one."""
    files = {adapter.sources[0].name: path}
    return load_sample(adapter, files, middle_of(adapter.window_size(files)))


def _evidence(files: FilesOfKind) -> Iterator[str]:
    """Yield what files show, a sentence each."""
    first = files.first
    yield (
        f"{first.format.upper()} of {first.dtype}, planes: {first.planes}; files: {files.count}, looked at: "
        f"{len(files.samples)}"
    )
    yield f"stored numbers from {files.low:.6g} to {files.high:.6g}"
    sizes = [f"{width}x{height}" for height, width in files.sizes_hw]
    yield f"pixels (width x height): {few_of(sizes, 3)}"
    for one, other in first.equal:
        if files.planes_are_equal(one, other):
            yield f"planes {one} and {other} (from 0) are equal in every pixel"
    if first.nodata:
        numbers = ", ".join(f"{number:g}" for number in first.nodata)
        yield f"the files state nodata = {numbers}"
    for plane, (scale, offset) in enumerate(first.scales):
        if (scale, offset) != (1.0, 0.0):
            yield f"the files state scale {scale:g} and offset {offset:g} of plane {plane}"
    if first.alpha:
        yield "the last plane is alpha (opacity)"
    if first.segments:
        yield f"segments in the JPEG: {', '.join(first.segments)}"
    if first.description.strip():
        text = " ".join(first.description.split())
        yield f"the files' description: {text[:120]}"


def _nodata_questions(adapter: ModalityAdapter, files: FilesOfKind) -> Iterator[str]:
    """Ask what zeros and fill values mean if the files do not say it, and the sensor takes them for measurements."""
    first = files.first
    if first.nodata:
        return
    asked: list[tuple[FileFacts, float, str]] = []
    darkest = max(files.samples, key=lambda one: max(one.zeros))
    zeros = max(darkest.zeros)
    if zeros >= _MANY_ZEROS and first.colour != "rgb":
        question = f"Do zeros (up to {zeros:.0%} of an image) mean no measurement?"
        asked.append((darkest, 0.0, question))
    if first.dtype.startswith(("int", "float")) and files.low <= -999:
        lowest = min(files.samples, key=lambda one: min(one.low))
        asked.append((lowest, files.low, f"Does {files.low:g} mean no measurement?"))
    if files.high == _FULL_SCALES.get(first.dtype):
        highest = max(files.samples, key=lambda one: max(one.high))
        question = f"Does {files.high:g} mean no measurement, rather than saturation?"
        asked.append((highest, files.high, question))
    for facts, number, question in asked:
        if _is_measured(adapter, facts.path, number):
            option = format_nodata({adapter.sources[0].name: number})
            yield f"{question} Then add --nodata {option}"


def _is_measured(adapter: ModalityAdapter, path: Path, number: float) -> bool:
    """Return whether a sensor takes a stored number for a measurement unless `nodata` names it."""
    changed = adapter.with_options({adapter.name: {"nodata": number}})
    try:
        image = _load(changed, path)
    except SimMATError:  # such as for files in kelvin, which have no such number
        return False
    return bool(image.valid.sum() < _load(adapter, path).valid.sum())


def _composition(groups: Sequence[GroupGuess]) -> tuple[Candidate, ...]:
    """Return the sensors of folders that each hold files of one kind, and are named as a sensor that reads them."""
    found = []
    for group in groups:
        name = group.folder.name
        found += [one for one in group.candidates if one.modality == name]
    folders = {group.folder for group in groups}
    is_complete = len(folders) == len(groups) == len(found) > 1
    return tuple(found) if is_complete else ()


def sensor_draft(files: FilesOfKind) -> str:
    """Return a `sensor.toml` that reads files as they are stored, with comments on what to fill in."""
    first = files.first
    frame = frame_of(first.path)
    file = first.path if frame is None else frame.file
    endings = [one for one in stack_endings() if file.name.lower().endswith(one)]
    ending = endings[0] if endings else file.suffix.lower()
    text = f"""\
format = 1
name = "my-sensor"  # your sensor's name

[[source]]
files = ["*{ending}"]
planes = {first.planes}

[defaults]
quantity = "counts"  # what is measured
unit = "count"  # the files do not state a unit: value = stored * scale + offset
# nodata = 0  # a further number that means no measurement, if any
"""
    for plane, (low, high) in enumerate(zip(first.low, first.high, strict=True)):
        text += f"""
[[channel]]
name = "band{plane}"
plane = {plane}
# {low:.6g} to {high:.6g} in {file.name}
"""
    return text

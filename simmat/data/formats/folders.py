"""Find samples in folders: `images/`, or `frames/` of sequences, and `masks/` hold files of the same names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import NoReturn

from simmat.data.formats.frames import (
    FRAMES,
    as_sequences,
    frame_name,
    is_stack,
    natural_key,
    numbers_in,
    place_problem,
    sequence_frames,
)
from simmat.data.samples import (
    JPEG_EXTENSIONS,
    MASK_EXTENSIONS,
    SPLITS,
    VECTOR_EXTENSIONS,
    Sample,
    split_meant,
)
from simmat.errors import DataError, all_problems, equal_problems
from simmat.io.frames import stack_endings, stack_format
from simmat.io.paths import is_image_folder
from simmat.sensors.adapter import Source

IMAGES = "images"
MASKS = "masks"


def find_samples(
    root: Path, sources: Sequence[Source], *, masks: bool = True, axis: str = "z"
) -> list[Sample]:
    """Match `images/STEM.*` with `masks/STEM.*`; the id is STEM. Images without a mask are samples too.

    With several sources, a sample has a file `images/SOURCE/STEM.*` for each of them; this is also allowed with one.
    Sources with different endings, such as `_nir.tif` and `_red.tif`, may be side by side in `images/`.
    The folders `images/train/`, `images/val/` and `images/test/`, with or without the same folders in `masks/`, set the
    split, which is "" otherwise. Other folders are part of the id. Hidden files and files with other endings are
    skipped; endings are case-insensitive. `masks=False` is for a folder without masks; with several sources, the
    folders SOURCE, or their files side by side, may then be in the folder itself.

    With `frames/` in place of `images/`, each folder in it is a sequence, and each file of many frames; the id of a
    frame is SEQUENCE/NAME. A file of masks has the same number of frames. `axis` is that of the slices of volumes.

    Raises:
        DataError: the folders cannot be used; lists all problems.
    """
    images = FRAMES if (root / FRAMES).is_dir() else IMAGES
    if images == FRAMES and (root / IMAGES).is_dir():
        raise DataError(
            f"{root}: found both {IMAGES}/ and {FRAMES}/; move sequences and images into two data sets"
        )
    if not masks and not (root / images).is_dir() and _holds_sources(root, sources):
        images = "."
    missing = [
        f"no folder {name}/" for name in (images, MASKS) if not (root / name).is_dir()
    ]
    if missing and masks:
        raise DataError(
            all_problems(
                f"{root}: not a data set: put images into images/ and masks of the same names into masks/, "
                "or write a manifest.csv (id,split,image,mask), or a COCO annotations.json; to label images "
                "without masks, run simmat annotate:",
                missing,
            )
        )
    if not (root / images).is_dir():
        folders = f"{IMAGES}/"
        if len(sources) > 1:
            folders = ", ".join(f"{IMAGES}/{source.name}/" for source in sources)
        raise DataError(
            f"{root}: no folder {folders}; make it and move the images into it, or write a manifest.csv"
        )
    scan = _Scan(root, tuple(sources), images, axis)
    samples = []
    for split, folder in scan.splits():
        samples += scan.samples(split, folder)
    if images == FRAMES:
        faults = scan.sequence_problems  # they make masks without images, too
        if len(faults) == 1:
            raise DataError(faults[0])
        if faults:
            raise DataError(all_problems(f"{root}: invalid sequences:", faults))
        samples = as_sequences(samples)
        if not scan.problems:
            firsts = [sample for sample in samples if not sample.frame]
            scan.problems += filter(
                None, [place_problem(sample.paths) for sample in firsts]
            )
    problems = [*scan.problems, *scan.mask_problems()]
    if problems:
        what = "images and masks" if masks else "images"
        title = f"{root}: {what} do not match; give them the same names, or pair them in a manifest.csv:"
        raise DataError(all_problems(title, equal_problems(problems)))
    if images == FRAMES:
        return samples
    return sorted(samples, key=lambda sample: sample.id)


def unlabelled_samples(
    root: Path, sources: Sequence[Source], axis: str = "z"
) -> tuple[Sample, ...]:
    """Return the images below `images/`, or else below the folder itself, without split and mask, sorted by id.

    Those of `frames/` are in the order of their sequences.
    """
    if (root / FRAMES).is_dir():
        return tuple(find_samples(root, sources, masks=False, axis=axis))
    start = root / IMAGES if (root / IMAGES).is_dir() else root
    folders = [start / source.name for source in sources]
    if are_side_by_side(start, sources):
        folders = [start] * len(sources)
    if not all(folder.is_dir() for folder in folders):
        return ()
    found = []
    for folder, source in zip(folders, sources, strict=True):
        found.append(files_by_stem(folder, source.extensions))
    stems = sorted(set(found[0]).intersection(*found[1:]))
    names = tuple(source.name for source in sources)
    samples = []
    for stem in stems:
        paths = tuple(str(files[stem][0]) for files in found)
        samples.append(Sample(stem, "", names, paths))
    return tuple(samples)


def _holds_sources(folder: Path, sources: Sequence[Source]) -> bool:
    """Return whether a folder without `images/` has the files of several sources itself."""
    if len(sources) < 2:
        return False
    in_folders = all((folder / source.name).is_dir() for source in sources)
    return in_folders or are_side_by_side(folder, sources)


def are_side_by_side(folder: Path, sources: Sequence[Source]) -> bool:
    """Return whether a folder has none for its sources, and the endings of their files tell them apart."""
    if any((folder / source.name).is_dir() for source in sources):
        return False
    for source, other in permutations(sources, 2):
        if any(ending.endswith(other.extensions) for ending in source.extensions):
            return False
    return True


def files_by_stem(folder: Path, extensions: Iterable[str]) -> dict[str, list[Path]]:
    """Return stem -> files below a folder; a stem is a relative path without ending, with "/" between folders.

    Hidden files are skipped, and no folder is entered twice, links included. Several files of one stem differ by their
    ending only.
    """
    endings = sorted(extensions, key=len, reverse=True)
    found: dict[str, list[Path]] = {}
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(_is_visible, folders))
        for name in [name for name in folders if is_image_folder(Path(place, name))]:
            folders.remove(name)
            names.append(name)
        if place == str(folder):
            inner = ""
        else:
            inner = f"{os.path.relpath(place, folder)}/".replace(os.sep, "/")
        for name in sorted(filter(_is_visible, names)):
            ending = next(
                (ending for ending in endings if name.lower().endswith(ending)), None
            )
            if ending:
                found.setdefault(inner + name[: -len(ending)], []).append(
                    Path(place, name)
                )
    return found


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders and of the files in a folder, without hidden ones."""
    _, folders, files = next(os.walk(folder, onerror=_raise))
    return sorted(filter(_is_visible, folders)), sorted(filter(_is_visible, files))


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini")


def _raise(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


class _Scan:
    """Scans the folders of a data set, and collects problems."""

    def __init__(
        self, root: Path, sources: tuple[Source, ...], images: str, axis: str
    ) -> None:
        self.root = root
        self.sources = sources
        self.images = images
        self.axis = axis
        self.problems: list[str] = []
        self.sequence_problems: list[str] = []
        self.mask_stacks: dict[str, list[Path]] = {}
        # JPEG is refused where it is read
        endings = *MASK_EXTENSIONS, *VECTOR_EXTENSIONS, *JPEG_EXTENSIONS
        self.masks = self._files(root / MASKS, endings, "masks")
        self.used: Counter[str] = Counter()

    def splits(self) -> list[tuple[str, Path]]:
        """Return (split, folder) of the folders to search; the split is "" if folders do not set it."""
        images = self.root / self.images
        names, loose = _entries(images)
        for name in names:
            # As a part of ids, it would mix the splits.
            meant = split_meant(name)
            if meant is not None:
                self.problems.append(
                    f"{self.images}/{name}/: split folders are named {', '.join(SPLITS)}; rename it to {meant!r}"
                )
        named = [split for split in SPLITS if split in names]
        if not named:
            return [("", images)]
        others = [
            name for name in names if name not in named and split_meant(name) is None
        ]
        if others or loose:
            self.problems.append(
                f"{self.images}/ holds {', '.join((others + loose)[:3])} next to {', '.join(f'{n}/' for n in named)}; "
                "move everything into the folders of the splits"
            )
        return [(split, images / split) for split in named]

    def samples(self, split: str, folder: Path) -> list[Sample]:
        """Return the samples in the folder of a split."""
        names = tuple(source.name for source in self.sources)
        by_source = [self._images(folder, source) for source in self.sources]
        stems = sorted(set(chain(*by_source)))
        if not stems:
            endings = ", ".join(self.sources[0].extensions)
            self.problems.append(f"{self._name(folder)}/ holds no image ({endings})")
        if self.images == FRAMES:
            self._pair_masks(split, stems)
        samples = []
        for stem in stems:
            name = f"{split}/{stem}" if split else stem
            files = tuple(found.get(stem, "") for found in by_source)
            lacking = [
                source for source, file in zip(names, files, strict=True) if not file
            ]
            if lacking:
                there = ", ".join(self._name(file) for file in files if file)
                self.problems.append(
                    f"sample {name!r} has no file of {', '.join(map(repr, lacking))} beside {there}"
                )
            mask = self.masks.get(name) or self.masks.get(stem)
            if mask:
                files = (*files, mask)
                self.used[mask] += 1
            samples.append(Sample(name, split, names, files))
        return samples

    def _pair_masks(self, split: str, stems: Sequence[str]) -> None:
        """Pair frames with masks of other names: of a file by their order, of a folder by the numbers in the names."""
        sequences: dict[str, list[str]] = {}
        for stem in sorted(stems, key=natural_key):
            sequences.setdefault(stem.rpartition("/")[0], []).append(stem)
        start = f"{split}/" if split else ""
        by_number: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for stem, mask in self.masks.items():
            sequence, _, name = stem.removeprefix(start).rpartition("/")
            by_number.setdefault((sequence, numbers_in(name)), []).append(mask)
        for sequence, frames in sequences.items():
            for name in {sequence, start + sequence} & self.mask_stacks.keys():
                masks = list(map(str, self.mask_stacks.pop(name)))
                if len(frames) != len(masks):
                    self.problems.append(
                        f"{self._name(masks[0])}: one of {len(masks)} masks, but sequence {sequence!r} has "
                        f"{len(frames)} frames; a file of masks has one for each frame, in their order"
                    )
                self.masks |= {
                    start + stem: mask
                    for stem, mask in zip(frames, masks, strict=False)
                }
            for stem in frames:
                numbered = by_number.get(
                    (sequence, numbers_in(stem.rpartition("/")[2])), ()
                )
                if len(numbered) == 1 and stem not in self.masks:
                    self.masks.setdefault(start + stem, numbered[0])

    def mask_problems(self) -> Iterator[str]:
        """Describe masks without an image and masks of two images."""
        for path, count in self.used.items():
            if count > 1:
                yield f"{self._name(path)}: the mask of two images; move masks into masks/train/ and so on"
        left = [str(masks[0]) for masks in self.mask_stacks.values()]
        for path in sorted((set(self.masks.values()) - self.used.keys()).union(left)):
            yield f"{self._name(path)}: a mask without an image"

    def _images(self, folder: Path, source: Source) -> dict[str, str]:
        own = folder / source.name
        if own.is_dir():
            has_split_folder = folder.name != IMAGES
            if not has_split_folder:
                self._refuse_splits_within(own, source)
            folder = own
        elif not are_side_by_side(folder, self.sources):
            self.problems.append(
                f"no folder {self._name(own)}/ for source {source.name!r}"
            )
            return {}
        return self._files(folder, source.extensions, "images")

    def _refuse_splits_within(self, folder: Path, source: Source) -> None:
        """Note the folders of a source that are named after a split."""
        folders, _ = _entries(folder)
        for name in folders:
            split = name if name in SPLITS else split_meant(name)
            if split:
                self.problems.append(
                    f"{self._name(folder)}/{name}/: split folders must contain the source folders; move it to "
                    f"{IMAGES}/{split}/{source.name}/"
                )

    def _files(
        self, folder: Path, extensions: Iterable[str], kind: str
    ) -> dict[str, str]:
        """Return stem -> file below a folder, which may be missing."""
        found: dict[str, list[Path]] = {}
        if self.images == FRAMES:
            found = self._frames(folder, tuple(extensions), kind)
        elif folder.is_dir():
            found = files_by_stem(folder, extensions)
        for paths in found.values():
            if len(paths) > 1:
                self.problems.append(
                    f"two {kind} with the same name: {', '.join(map(self._name, paths))}"
                )
        return {stem: str(paths[0]) for stem, paths in found.items()}

    def _frames(
        self, folder: Path, extensions: tuple[str, ...], kind: str
    ) -> dict[str, list[Path]]:
        """Return stem -> frames of the sequences below a folder; masks that are frames of a file are kept apart."""
        if not folder.is_dir():
            return {}
        sequences, found = self._sequences_and_masks(folder, extensions, kind)
        for name, files in sequences.items():
            listed = ", ".join(map(str, sorted(files)))
            if not name:
                self.sequence_problems.append(
                    f"{listed}: holds single images; put the frames of each sequence into a folder in it"
                )
                continue
            if len(files) > 1:
                self.sequence_problems.append(
                    f"two sequences with the same name: {listed}"
                )
                continue
            try:
                frames = sequence_frames(files.pop(), extensions, self.axis)
            except DataError as error:
                self.sequence_problems.append(str(error))
                continue
            if kind == "masks":
                self.mask_stacks[name] = frames
                continue
            for frame in frames:
                found.setdefault(f"{name}/{frame_name(frame, extensions)}", []).append(
                    frame
                )
        return found

    def _sequences_and_masks(
        self, folder: Path, extensions: tuple[str, ...], kind: str
    ) -> tuple[dict[str, set[Path]], dict[str, list[Path]]]:
        """Return name -> files or folders of frames, and stem -> masks that are files of their own."""
        sequences: dict[str, set[Path]] = {}
        masks: dict[str, list[Path]] = {}
        for stem, paths in files_by_stem(
            folder, (*extensions, *stack_endings())
        ).items():
            inside = stem.rpartition("/")[0]
            # without the folder of the split, which masks may have
            in_sequence = inside
            first, _, rest = inside.partition("/")
            if kind == "masks" and first in SPLITS:
                in_sequence = rest
            for path in paths:
                if not is_stack(path, in_sequence):
                    if kind == "masks":
                        masks.setdefault(stem, []).append(path)
                    else:
                        sequences.setdefault(inside, set()).add(path.parent)
                    continue
                form = stack_format(path)
                if form is not None and form.is_folder:
                    sequences.setdefault(inside, set()).add(path.parent)
                else:
                    sequences.setdefault(stem, set()).add(path)
        return sequences, masks

    def _name(self, path: Path | str) -> str:
        return Path(path).relative_to(self.root).as_posix()

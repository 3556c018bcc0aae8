"""Find samples in folders: `images/` and `masks/` hold files of the same names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from simmat.data.samples import (
    ALLOWED_MASKS,
    JPEG_EXTENSIONS,
    MASK_EXTENSIONS,
    SPLITS,
    VECTOR_EXTENSIONS,
    Divider,
    Listing,
    Sample,
    decide_splits,
    split_meant,
)
from simmat.errors import DataError, all_problems, equal_problems
from simmat.sensors.adapter import Source

IMAGES = "images"
MASKS = "masks"

SYSTEM_FILES = ("thumbs.db", "desktop.ini")


def scan_folders(root: Path, sources: Sequence[Source], divider: Divider | None = None) -> Listing:
    """Match `images/STEM.*` with `masks/STEM.*`; the id is STEM. Images without a mask are set aside.

    With several sources, a sample has a file `images/SOURCE/STEM.*` for each of them; this is also allowed with one.
    The folders `images/train/`, `images/val/` and `images/test/`, with or without the same folders in `masks/`, set the
    split. Other folders are part of the id. Hidden files are skipped; endings are case-insensitive.

    Raises:
        DataError: the folders cannot be used; lists all problems.
    """
    samples = find_samples(root, sources)
    if not any(sample.has_mask for sample in samples):
        raise DataError(
            f"{root}: none of the {len(samples)} images has a mask; save a mask as masks/{samples[0].id}.png"
        )
    return decide_splits(root, samples, "the folders of images/", divider=divider)


def find_samples(
    root: Path, sources: Sequence[Source], *, masks: bool = True, others: list[str] | None = None
) -> list[Sample]:
    """Match images with masks as `scan_folders` does; those without a mask are samples too. The split may be "".

    `masks=False` is for a folder whose masks are yet to be made. Files that are neither images nor masks are a problem,
    or with a list `others` are left out and described there. DataError lists all problems.
    """
    missing = [f"no folder {name}/" for name in (IMAGES, MASKS) if not (root / name).is_dir()]
    if missing and masks:
        raise DataError(
            all_problems(
                f"{root}: not a data set: put images into images/ and masks of the same names into masks/, "
                "or write a manifest.csv (id,split,image,mask), or a COCO annotations.json; `simmat annotate` labels "
                "images without masks:",
                missing,
            )
        )
    if not (root / IMAGES).is_dir():
        raise DataError(f"{root}: no folder {IMAGES}/; make it and move the images into it, or write a manifest.csv")
    scan = _Scan(root, tuple(sources))
    samples = [sample for split, folder in scan.splits() for sample in scan.samples(split, folder)]
    problems = [*scan.problems, *scan.mask_problems()]
    if others is not None:
        others += scan.others
    if problems or (scan.others and others is None):
        title = f"{root}: images and masks do not match; give them the same names, or pair them in a manifest.csv:"
        if not problems:
            title = f"{root}: {IMAGES}/ and {MASKS}/ hold files that are no images or masks; move them elsewhere:"
        raise DataError(all_problems(title, equal_problems([*problems, *([] if others is not None else scan.others)])))
    return sorted(samples, key=lambda sample: sample.id)


def unlabelled_samples(root: Path, sources: Sequence[Source]) -> tuple[Sample, ...]:
    """Return the images below `images/`, or else below the folder itself, without split and mask, sorted by id."""
    start = root / IMAGES if (root / IMAGES).is_dir() else root
    folders = [start / source.name for source in sources]
    if len(sources) == 1 and not folders[0].is_dir():
        folders = [start]
    if not all(folder.is_dir() for folder in folders):
        return ()
    found = [files_by_stem(folder, source.extensions) for folder, source in zip(folders, sources, strict=True)]
    stems = sorted(set(found[0]).intersection(*found[1:]))
    files = [{source.name: files[stem][0] for source, files in zip(sources, found, strict=True)} for stem in stems]
    return tuple(Sample.of(stem, "", paths, None) for stem, paths in zip(stems, files, strict=True))


def files_by_stem(folder: Path, extensions: Iterable[str]) -> dict[str, list[Path]]:
    """Return stem -> files below a folder; a stem is a relative path without ending, with "/" between folders.

    Hidden files and links to parent folders are skipped. Several files of one stem differ by their ending only.
    """
    extensions = tuple(extensions)
    found = _Folders(extensions).find(str(folder), extensions)
    return {stem: [Path(one) for one in sorted(found.twice.get(stem, {path}))] for stem, path in found.files.items()}


class _Folders:
    """Lists folders, each once.

    A link with the ending of an image is assumed to be a file: checking 100,000 of them takes a second.
    """

    def __init__(self, extensions: Iterable[str]) -> None:
        self._extensions = tuple(extensions)
        self._names: dict[str, tuple[list[str], list[str]]] = {}

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the sorted names of the folders and of the files in a folder, without hidden ones."""
        if folder not in self._names:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = entry.name.lower()
                        is_folder = entry.is_dir(follow_symlinks=not name.endswith(self._extensions))
                        if not name.startswith(".") and name not in SYSTEM_FILES:
                            (folders if is_folder else files).append(entry.name)
            except OSError as error:
                raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
            self._names[folder] = sorted(folders), sorted(files)
        return self._names[folder]

    def find(self, folder: str, extensions: Iterable[str]) -> _Found:
        """Find the files below a folder that have one of some endings; no folder is entered twice, links included."""
        found = _Found(sorted(extensions, key=len, reverse=True))
        seen: set[str] = set()
        waiting = [(folder, "")]
        while waiting:
            place, inner = waiting.pop()
            real = os.path.realpath(place)
            if real not in seen:
                seen.add(real)
                folders, files = self.names(place)
                found.add(os.path.join(place, ""), inner, files)
                waiting += [(os.path.join(place, name), f"{inner}{name}/") for name in reversed(folders)]
        return found


@dataclass
class _Found:
    """Files below a folder.

    Attributes:
        files: stem, see `files_by_stem` -> file.
        twice: stem -> all files, for stems with several endings.
        rest: relative path -> file with another ending.
    """

    endings: Sequence[str]
    files: dict[str, str] = field(default_factory=dict)
    twice: dict[str, set[str]] = field(default_factory=dict)
    rest: dict[str, str] = field(default_factory=dict)

    def add(self, start: str, inner: str, names: Iterable[str]) -> None:
        """Add the files of a folder whose relative path is `inner`."""
        for name in names:
            lower = name.lower()
            for ending in self.endings:
                if lower.endswith(ending):
                    stem, path = inner + name[: -len(ending)], start + name
                    if (first := self.files.setdefault(stem, path)) is not path:
                        self.twice.setdefault(stem, {first}).add(path)
                    break
            else:
                self.rest[inner + name] = start + name

    def others(self) -> list[str]:
        """Return files with other endings, except those that belong to a file ("a.tif.aux.xml" to "a.tif")."""
        return sorted(path for name, path in self.rest.items() if not self._belongs_to_a_file(name))

    def _belongs_to_a_file(self, name: str) -> bool:
        folder, slash, file = name.rpartition("/")
        parts = file.split(".")
        return any(folder + slash + ".".join(parts[:count]) in self.files for count in range(1, len(parts)))


@dataclass
class _Scan:
    """Scans the folders of a data set once, and collects problems; `others` describes files of other kinds."""

    root: Path
    sources: tuple[Source, ...]
    problems: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: _Folders = field(init=False)
    masks: _Found = field(init=False)
    used: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        masks = *MASK_EXTENSIONS, *VECTOR_EXTENSIONS, *JPEG_EXTENSIONS
        self.folders = _Folders({*masks, *(ending for source in self.sources for ending in source.extensions)})
        folder = self.root / MASKS
        self.masks = self.folders.find(str(folder), masks) if folder.is_dir() else _Found(())
        self._note(self.masks, "masks", f"not a mask format; allowed: {ALLOWED_MASKS}")

    def splits(self) -> list[tuple[str, Path]]:
        """Return (split, folder) of the folders to search; the split is "" if folders do not set it."""
        images = self.root / IMAGES
        names, loose = self.folders.names(str(images))
        self.problems += [
            f"images/{name}/: split folders are named {', '.join(SPLITS)}; rename it to {meant!r}"
            for name in names
            if (meant := split_meant(name)) is not None  # as a part of ids, it would mix the splits
        ]
        named = [split for split in SPLITS if split in names]
        if not named:
            return [("", images)]
        others = [name for name in names if name not in named and split_meant(name) is None]
        if others or loose:
            self.problems.append(
                f"images/ holds {', '.join((others + loose)[:3])} next to {', '.join(f'{n}/' for n in named)}; "
                "move everything into the folders of the splits"
            )
        return [(split, images / split) for split in named]

    def samples(self, split: str, folder: Path) -> list[Sample]:
        """Return the samples in the folder of a split."""
        sources = tuple(source.name for source in self.sources)
        by_source = [self._images(folder, source) for source in self.sources]
        stems = sorted(dict.fromkeys(chain(*by_source)))
        if not stems:
            endings = ", ".join(self.sources[0].extensions)
            self.problems.append(f"{self._name(folder)}/ holds no image ({endings})")
        names = [f"{split}/{stem}" for stem in stems] if split else stems
        images = zip(*([found.get(stem, "") for stem in stems] for found in by_source), strict=True)
        masks = self.masks.files
        samples = []
        for name, stem, files in zip(names, stems, images, strict=True):
            if "" in files:
                lacking = [source for source, file in zip(sources, files, strict=True) if not file]
                self.problems.append(f"sample {name!r} has no file of {', '.join(map(repr, lacking))}")
            if mask := masks.get(name) or masks.get(stem):
                files = (*files, mask)
                self.used.append(mask)
            samples.append(Sample(name, split, sources, files))
        return samples

    def mask_problems(self) -> Iterator[str]:
        """Describe masks without an image and masks of two images."""
        used = Counter(self.used)
        for path, count in used.items():
            if count > 1:
                yield f"{self._name(path)}: the mask of two images; move masks into masks/train/ and so on"
        for path in sorted(set(self.masks.files.values()) - used.keys()):
            yield f"{self._name(path)}: a mask without an image"

    def _images(self, folder: Path, source: Source) -> dict[str, str]:
        own = folder / source.name
        if own.is_dir():
            if folder.name == IMAGES:  # there is no split folder
                for inner in self.folders.names(str(own))[0]:
                    if meant := inner if inner in SPLITS else split_meant(inner):
                        self.problems.append(
                            f"{self._name(own)}/{inner}/: split folders must contain the source folders; move it to "
                            f"{IMAGES}/{meant}/{source.name}/"
                        )
            folder = own
        elif len(self.sources) > 1:
            self.problems.append(f"no folder {self._name(own)}/ for source {source.name!r}")
            return {}
        found = self.folders.find(str(folder), source.extensions)
        self._note(found, "images", f"not a file of source {source.name!r} ({', '.join(source.extensions)})")
        return found.files

    def _note(self, found: _Found, kind: str, other: str) -> None:
        self.others += [f"{self._name(path)}: {other}" for path in found.others()]
        for paths in found.twice.values():
            self.problems.append(f"two {kind} with the same name: {', '.join(map(self._name, sorted(paths)))}")

    def _name(self, path: Path | str) -> str:
        return Path(path).relative_to(self.root).as_posix()

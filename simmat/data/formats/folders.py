"""Samples from folders alone: `images/` and `masks/` hold files of the same names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simmat.data.samples import JPEG_EXTENSIONS, MASK_EXTENSIONS, SPLITS, Listing, Sample, decide_splits, split_meant
from simmat.errors import DataError, all_problems
from simmat.sensors.adapter import Source

IMAGES = "images"
MASKS = "masks"

SYSTEM_FILES = ("thumbs.db", "desktop.ini")


def scan_folders(root: Path, sources: Sequence[Source]) -> Listing:
    """Match `images/STEM.*` with `masks/STEM.*`; the id is STEM. Images without a mask are set aside.

    With several sources a sample is `images/SOURCE/STEM.*` for each of them (so it may be with one).
    `images/train/`, `images/val/` and `images/test/`, with the same folders in `masks/` or none, say
    the split. Further folders are part of the id. Hidden files are passed over; endings count without
    regard to case.

    Args:
        root: folder of the data set.
        sources: of the modality, reference first.

    Raises:
        DataError: all that is wrong, at once.
    """
    missing = [f"no folder {name}/" for name in (IMAGES, MASKS) if not (root / name).is_dir()]
    if missing:
        raise DataError(
            all_problems(
                f"{root}: not a data set: put images into images/ and masks of the same names into masks/, "
                "or write a manifest.csv (id,split,image,mask), or a COCO annotations.json:",
                missing,
            )
        )
    scan = _Scan(root, tuple(sources))
    samples = [sample for split, folder in scan.splits() for sample in scan.samples(split, folder)]
    problems = [*scan.problems, *scan.unused_masks()]
    if problems:
        raise DataError(all_problems(f"{root}: images and masks do not fit together:", problems))
    samples.sort(key=lambda sample: sample.id)
    if not any(sample.has_mask for sample in samples):
        raise DataError(
            f"{root}: none of the {len(samples)} images has a mask; draw one, and save it as masks/{samples[0].id}.png"
        )
    return decide_splits(root, samples, "the folders of images/")


def files_by_stem(folder: Path, extensions: Iterable[str]) -> dict[str, list[Path]]:
    """Find the files below a folder, by their path relative to it without ending, "/" between folders.

    Hidden files, and links that lead back up, are passed over. Several files of one stem differ by their ending only.
    """
    found = _Found(str(folder), extensions, _Folders())
    return {stem: [*map(Path, found.twice.get(stem, (path,)))] for stem, path in found.files.items()}


class _Folders:
    """Folders that were listed, each once: a folder of 100,000 links takes a second."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[list[str], list[str]]] = {}

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of the folders, and of the files, in a folder, sorted; hidden ones are passed over."""
        if folder not in self._names:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            (folders if entry.is_dir() else files).append(entry.name)
            except OSError as error:
                raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
            files = [name for name in files if name.lower() not in SYSTEM_FILES]
            self._names[folder] = sorted(folders), sorted(files)
        return self._names[folder]

    def walk(self, folder: str) -> Iterator[tuple[str, str, list[str]]]:
        """Yield each folder, its path below the first with "/" at the end, and the names of its files.

        Links to folders are followed, but none leads into a folder a second time.
        """
        seen: set[str] = set()
        waiting = [(folder, "")]
        while waiting:
            place, inner = waiting.pop()
            real = os.path.realpath(place)
            if real not in seen:
                seen.add(real)
                folders, files = self.names(place)
                yield place, inner, files
                waiting += [(os.path.join(place, name), f"{inner}{name}/") for name in reversed(folders)]


class _Found:
    """The files below a folder.

    Attributes:
        files: path below it without ending -> the first file.
        twice: the same -> all files, where there are several.
        others: files of other endings, but for what stands beside a file of the same name ("a.tif.aux.xml" beside
            "a.tif").
    """

    def __init__(self, folder: str, extensions: Iterable[str], folders: _Folders) -> None:
        endings = tuple(sorted(extensions, key=len, reverse=True))
        self.files: dict[str, str] = {}
        self.twice: dict[str, list[str]] = {}
        others: list[tuple[str, str]] = []
        for place, inner, names in folders.walk(folder):
            start = os.path.join(place, "")
            for name in names:
                lower = name.lower()
                for ending in endings:
                    if lower.endswith(ending):
                        break
                else:
                    others.append((inner + name, start + name))
                    continue
                stem, path = inner + name[: -len(ending)], start + name
                if (first := self.files.setdefault(stem, path)) is not path:
                    self.twice.setdefault(stem, [first]).append(path)
        self.others = [path for name, path in others if not self._stands_beside(name)]

    def _stands_beside(self, name: str) -> bool:
        folder, slash, file = name.rpartition("/")
        parts = file.split(".")
        return any(folder + slash + ".".join(parts[:count]) in self.files for count in range(1, len(parts)))


@dataclass
class _Scan:
    """One walk through a data set's folders; notes what is wrong."""

    root: Path
    sources: tuple[Source, ...]
    problems: list[str] = field(default_factory=list)
    folders: _Folders = field(default_factory=_Folders)
    masks: _Found = field(init=False)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.masks = _Found(str(self.root / MASKS), (*MASK_EXTENSIONS, *JPEG_EXTENSIONS), self.folders)
        self._note(self.masks, "masks", f"no mask format; allowed: {', '.join(MASK_EXTENSIONS)}")

    def splits(self) -> list[tuple[str, Path]]:
        """Return the folders to search with their split; the split is "" where folders do not say it."""
        images = self.root / IMAGES
        names, loose = self.folders.names(str(images))
        self.problems += [
            f"images/{name}/: splits are called {', '.join(SPLITS)}; rename it to {meant!r}"
            for name in names
            if (meant := split_meant(name)) is not None  # taken for part of an id, it would mix the splits
        ]
        named = [split for split in SPLITS if split in names]
        if not named:
            return [("", images)]
        beside = [name for name in names if name not in named and split_meant(name) is None]
        if beside or loose:
            self.problems.append(
                f"images/ holds {', '.join((beside + loose)[:3])} beside {', '.join(f'{n}/' for n in named)}; "
                "move everything into the folders of the splits"
            )
        return [(split, images / split) for split in named]

    def samples(self, split: str, folder: Path) -> list[Sample]:
        """Return the samples of one split's folder."""
        names = tuple(source.name for source in self.sources)
        by_source = [self._images(folder, source) for source in self.sources]
        stems = sorted(set().union(*by_source))
        if not stems:
            endings = ", ".join(self.sources[0].extensions)
            self.problems.append(f"{self._name(folder)}/ holds no image ({endings})")
        samples = []
        for stem in stems:
            name = f"{split}/{stem}" if split else stem
            mask = self._mask(name, stem)
            if lacking := [source for source, found in zip(names, by_source, strict=True) if stem not in found]:
                self.problems.append(f"sample {name!r} has no file of {', '.join(map(repr, lacking))}")
            else:
                samples.append(Sample(name, split, names, (*(found[stem] for found in by_source), *mask)))
        return samples

    def unused_masks(self) -> list[str]:
        """Name the masks that no image asked for."""
        unused = sorted(self.masks.files.keys() - self.used)
        return [f"{self._name(self.masks.files[stem])}: a mask without an image" for stem in unused]

    def _images(self, folder: Path, source: Source) -> dict[str, str]:
        own = folder / source.name
        if own.is_dir():
            if folder.name == IMAGES:  # no split is named above
                for inner in self.folders.names(str(own))[0]:
                    if meant := inner if inner in SPLITS else split_meant(inner):
                        self.problems.append(
                            f"{self._name(own)}/{inner}/: a split stands above the sources; move it to "
                            f"{IMAGES}/{meant}/{source.name}/"
                        )
            folder = own
        elif len(self.sources) > 1:
            self.problems.append(f"no folder {self._name(own)}/ for source {source.name!r}")
            return {}
        found = _Found(str(folder), source.extensions, self.folders)
        self._note(found, "images", f"not a file of source {source.name!r} ({', '.join(source.extensions)})")
        return found.files

    def _mask(self, name: str, stem: str) -> tuple[str, ...]:
        key = name if name in self.masks.files else stem
        if key not in self.masks.files:
            return ()
        if key in self.used:
            self.problems.append(f"masks/{key}: the mask of two images; put masks into masks/train/ and so on")
        self.used.add(key)
        return (self.masks.files[key],)

    def _note(self, found: _Found, kind: str, other: str) -> None:
        self.problems += [f"{self._name(path)}: {other}" for path in found.others]
        self.problems += [
            f"two {kind} of one name: {', '.join(map(self._name, paths))}" for paths in found.twice.values()
        ]

    def _name(self, path: Path | str) -> str:
        return Path(path).relative_to(self.root).as_posix()

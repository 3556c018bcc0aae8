"""Samples from folders alone: `images/` and `masks/` hold files of the same names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    if all(sample.mask is None for sample in samples):
        raise DataError(
            f"{root}: none of the {len(samples)} images has a mask; draw one, and save it as masks/{samples[0].id}.png"
        )
    return decide_splits(root, samples, "the folders of images/")


def files_by_stem(folder: Path, extensions: Iterable[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Find the files below a folder, by their path relative to it without ending, "/" between folders.

    Hidden files, links that lead back up, and what stands beside a file of the same name ("a.tif.aux.xml"
    beside "a.tif") are passed over.

    Returns:
        The files with one of the endings, several where they differ by it only; and all other files.
    """
    endings = sorted(extensions, key=len, reverse=True)
    found: dict[str, list[Path]] = {}
    others: dict[str, Path] = {}
    start = 0 if folder == Path() else len(os.path.join(folder, ""))
    for path in _visible_files(folder):
        name = str(path)[start:].replace(os.sep, "/")
        ending = next((ending for ending in endings if name.lower().endswith(ending)), None)
        if ending is None:
            others[name] = path
        else:
            found.setdefault(name[: -len(ending)], []).append(path)
    return found, [path for name, path in others.items() if not _stands_beside(name, found)]


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield files in sorted order, following links to folders but never in a circle."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}")

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in seen else []
        if real not in seen:
            yield from (
                Path(place, name)
                for name in sorted(files)
                if not name.startswith(".") and name.lower() not in SYSTEM_FILES
            )
        seen.add(real)


def _stands_beside(name: str, found: Mapping[str, object]) -> bool:
    folder, slash, file = name.rpartition("/")
    parts = file.split(".")
    return any(folder + slash + ".".join(parts[:count]) in found for count in range(1, len(parts)))


@dataclass
class _Scan:
    """One walk through a data set's folders; notes what is wrong."""

    root: Path
    sources: tuple[Source, ...]
    problems: list[str] = field(default_factory=list)
    masks: dict[str, list[Path]] = field(init=False)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.masks, others = files_by_stem(self.root / MASKS, (*MASK_EXTENSIONS, *JPEG_EXTENSIONS))
        self.problems += [
            f"{self._name(path)}: no mask format; allowed: {', '.join(MASK_EXTENSIONS)}" for path in others
        ]
        for paths in self.masks.values():
            if len(paths) > 1:
                self.problems.append(f"two masks of one name: {', '.join(map(self._name, paths))}")

    def splits(self) -> list[tuple[str, Path]]:
        """Return the folders to search with their split; the split is "" where folders do not say it."""
        images = self.root / IMAGES
        names = {path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith(".")}
        self.problems += [
            f"images/{name}/: splits are called {', '.join(SPLITS)}; rename it to {meant!r}"
            for name in sorted(names)
            if (meant := split_meant(name)) is not None  # taken for part of an id, it would mix the splits
        ]
        named = [split for split in SPLITS if split in names]
        if not named:
            return [("", images)]
        beside = sorted(name for name in names - set(named) if split_meant(name) is None)
        loose = sorted(path.name for path in images.iterdir() if path.is_file() and not path.name.startswith("."))
        if beside or loose:
            self.problems.append(
                f"images/ holds {', '.join((beside + loose)[:3])} beside {', '.join(f'{n}/' for n in named)}; "
                "move everything into the folders of the splits"
            )
        return [(split, images / split) for split in named]

    def samples(self, split: str, folder: Path) -> list[Sample]:
        """Return the samples of one split's folder."""
        by_source = {source.name: self._images(folder, source) for source in self.sources}
        stems = sorted(set().union(*by_source.values()))
        if not stems:
            endings = ", ".join(self.sources[0].extensions)
            self.problems.append(f"{self._name(folder)}/ holds no image ({endings})")
        return [self._sample(split, stem, by_source) for stem in stems]

    def unused_masks(self) -> list[str]:
        """Name the masks that no image asked for."""
        return [
            f"{self._name(paths[0])}: a mask without an image"
            for stem, paths in sorted(self.masks.items())
            if stem not in self.used
        ]

    def _images(self, folder: Path, source: Source) -> dict[str, Path]:
        own = folder / source.name
        if len(self.sources) > 1 and not own.is_dir():
            self.problems.append(f"no folder {self._name(own)}/ for source {source.name!r}")
            return {}
        if own.is_dir() and folder.name == IMAGES:  # no split is named above
            for inner in sorted(path.name for path in own.iterdir() if path.is_dir()):
                if meant := inner if inner in SPLITS else split_meant(inner):
                    self.problems.append(
                        f"{self._name(own)}/{inner}/: a split stands above the sources; move it to "
                        f"{IMAGES}/{meant}/{source.name}/"
                    )
        found, others = files_by_stem(own if own.is_dir() else folder, source.extensions)
        for path in others:
            self.problems.append(
                f"{self._name(path)}: not a file of source {source.name!r} ({', '.join(source.extensions)})"
            )
        for paths in found.values():
            if len(paths) > 1:
                self.problems.append(f"two images of one name: {', '.join(map(self._name, paths))}")
        return {stem: paths[0] for stem, paths in found.items()}

    def _sample(self, split: str, stem: str, by_source: dict[str, dict[str, Path]]) -> Sample:
        name = f"{split}/{stem}" if split else stem
        lacking = [source for source, found in by_source.items() if stem not in found]
        if lacking:
            self.problems.append(f"sample {name!r} has no file of {', '.join(map(repr, lacking))}")
        return Sample(
            id=name,
            split=split,
            files={source: found[stem] for source, found in by_source.items() if stem in found},
            mask=self._mask(name, stem),
        )

    def _mask(self, name: str, stem: str) -> Path | None:
        key = name if name in self.masks else stem
        if key not in self.masks:
            return None
        if key in self.used:
            self.problems.append(f"masks/{key}: the mask of two images; put masks into masks/train/ and so on")
        self.used.add(key)
        return self.masks[key][0]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

"""Find the files of a layout: by name in a folder, or by a path in a list from another machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from simmat.data.formats.folders import files_by_stem
from simmat.errors import DataError, all_problems

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def by_name(folder: Path, pattern: str, endings: Iterable[str]) -> dict[str, Path]:
    """Return NAME -> file for the files in a folder whose name without ending matches a pattern.

    Args:
        folder: searched without its subfolders.
        pattern: regular expression for the full name, whose first group is NAME.
        endings: lower case, with the dot.

    Raises:
        DataError: two files have the same NAME.
    """
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    twice: list[str] = []
    for stem, paths in sorted(files_by_stem(folder, endings).items()):
        match = re.fullmatch(pattern, stem)
        if match is None or "/" in stem:
            continue
        twice += [f"{path.name} and {found.get(match[1], paths[0]).name}" for path in paths[1:]]
        if match[1] in found:
            twice.append(f"{paths[0].name} and {found[match[1]].name}")
        found[match[1]] = paths[0]
    if twice:
        raise DataError(all_problems(f"{folder}: two files with the same name; remove one of them:", twice))
    return found


def names_of(columns: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """Return the sorted NAMEs of all columns."""
    return sorted({name for files in columns.values() for name in files})


class Tree:
    """The files below a folder, found by the ends of their paths.

    Lists hold the paths of another machine: "/home/x/IVRG_RGBNIR/Outdoor_dataset/nir/1.png". Such a path means the file
    that matches the longest end of it.
    """

    def __init__(self, root: Path, endings: Iterable[str]) -> None:
        self.root = root
        self.paths = [path for paths in files_by_stem(root, endings).values() for path in paths]
        self._by_name: dict[str, list[Path]] = {}
        for path in self.paths:
            self._by_name.setdefault(path.name.lower(), []).append(path)

    def find(self, text: str) -> Path | str:
        """Return the file that a path means, or a description of the problem."""
        wanted = [part for part in text.strip().strip("\"'").replace("\\", "/").split("/") if part not in ("", ".")]
        if not wanted:
            return "is empty"
        ranked = sorted(
            ((self._agreement(path, wanted), path) for path in self._by_name.get(wanted[-1].lower(), [])),
            key=lambda pair: (-pair[0], pair[1]),
        )
        if not ranked:
            return f"{text!r}: no such file"
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            two = " and ".join(path.relative_to(self.root).as_posix() for _, path in ranked[:2])
            return f"{text!r} may be {two}"
        return ranked[0][1]

    def parts(self, path: Path) -> tuple[str, ...]:
        """Return the parts of a path below the folder, the last without its ending."""
        inner = path.relative_to(self.root)
        return (*inner.parts[:-1], inner.stem)

    def _agreement(self, path: Path, wanted: list[str]) -> int:
        own = path.relative_to(self.root).parts
        pairs = list(zip(reversed(own), reversed(wanted), strict=False))
        return next((i for i, (a, b) in enumerate(pairs) if a.lower() != b.lower()), len(pairs))

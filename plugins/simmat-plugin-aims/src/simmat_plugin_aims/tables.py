"""Read samples from csv files with undocumented columns, which are recognized by their contents.

The kind of files in a column follows from its title, then from words in its cells ("Outdoor_dataset/nir/1.png"), then
from the ending of its files. For a kind without a column, the file is found by the path of another file: only the word
for the kind differs ("nir/1.png" and "rgb/1.png", "1_nir.tiff" and "1_rgb.tiff").
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from simmat.data.samples import MASK_EXTENSIONS
from simmat.errors import DataError
from simmat_plugin_aims.files import Tree
from simmat_plugin_aims.layout import Found

MASK = "mask"
_MASK_WORDS = (
    *("mask", "masks", "gt", "groundtruth", "truth", "label", "labels"),
    *("segmentation", "annotation", "annotations"),
)
_MIN_SHARE = 0.5


@dataclass(frozen=True)
class Role:
    """A kind of file.

    Attributes:
        name: manifest column.
        words: words in a path or in a column's title that mean this kind.
        endings: lower case, with the dot.
    """

    name: str
    words: Sequence[str]
    endings: Sequence[str]


MASK_ROLE = Role(MASK, _MASK_WORDS, MASK_EXTENSIONS)


def read_tables(root: Path, table: str, roles: Sequence[Role]) -> Found:
    """Read the samples that two csv files list.

    Args:
        root: folder of the tables and of the files they name.
        table: file name of the tables, with {} for the split, train or test.
        roles: kinds of file that each sample has, the mask last.

    Raises:
        DataError: a table cannot be read, or its columns cannot be recognized.
    """
    endings = sorted({ending for role in roles for ending in role.endings})
    finder = _Finder(Tree(root, endings), roles)
    found = Found()
    for split in ("train", "test"):
        path = root / table.format(split)
        rows, columns = _open(path, finder)
        seen: set[tuple[Path | None, ...]] = set()
        for line, row in rows:
            files = finder.sample(f"{path.name} line {line}", row, columns, found)
            key = tuple(files.values()) if files else ()
            if files and key not in seen:  # a table with a row per object repeats the files of an image
                seen.add(key)
                mask = files.pop(MASK)
                named = next(path for path in (*files.values(), mask) if path)  # a row names at least one
                found.add("/".join(finder.tree.parts(named)), split, files, mask)
    found.keep_test_apart()
    found.tell_apart()
    return found


class _Finder:
    """Finds files by kind, which follows from the words in their paths."""

    def __init__(self, tree: Tree, roles: Sequence[Role]) -> None:
        self.tree = tree
        self.roles = roles
        self._words = {word for role in roles for word in role.words}
        self._alike: dict[tuple[tuple[str, ...], str], list[Path]] = {}
        for path in tree.paths:
            if role := self.role_of(path):
                self._alike.setdefault((self._place(path), role.name), []).append(path)

    def role_of(self, path: Path) -> Role | None:
        """Return the kind of a file by the words in its path, or None."""
        return self._named("/".join(self.tree.parts(path)), path.suffix)

    def role_of_text(self, text: str) -> Role | None:
        """Return the kind of a file in a table: by its full path if it exists, else by its name and folder."""
        found = self.tree.find(text)
        if isinstance(found, Path):
            return self.role_of(found)
        path = PurePosixPath(text.replace("\\", "/"))
        return self._named(f"{path.parent.name}/{path.stem}", path.suffix)

    def _named(self, text: str, ending: str) -> Role | None:
        """Return the kind that the last matching word means, among the kinds with that ending."""
        for word in reversed(words_of(text)):
            for role in self.roles:
                if word in role.words and ending.lower() in role.endings:
                    return role
        return None

    def sample(
        self, where: str, row: Sequence[str], columns: Mapping[str, int], found: Found
    ) -> dict[str, Path | None] | None:
        """Return a row's files by kind, None for a missing kind; None instead of a dict if a named file is missing."""
        files: dict[str, Path | None] = {}
        for name, index in columns.items():
            path = self.tree.find(row[index] if index < len(row) else "")
            if isinstance(path, str):
                found.missing.append(f"{where}: {name} {path}")
                return None
            files[name] = path
        known = [path for path in files.values() if path is not None]
        return {role.name: files.get(role.name) or self._sibling(known, role) for role in self.roles}

    def _sibling(self, known: Sequence[Path], role: Role) -> Path | None:
        for path in known:
            others = self._alike.get((self._place(path), role.name), [])
            if len(others) == 1:
                return others[0]
        return None

    def _place(self, path: Path) -> tuple[str, ...]:
        """Return the words of a path that do not mean a kind, which are the same for all files of a sample."""
        return tuple(word for word in words_of("/".join(self.tree.parts(path))) if word not in self._words)


def words_of(text: str) -> list[str]:
    """Split a path or name into lower-case words and numbers: "gtMask_01" is gt, mask, 01."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)]


def _open(path: Path, finder: _Finder) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    """Return the rows with their line numbers, and the column of each kind of file."""
    rows = _rows(path)
    header: list[str] = []
    if not any(PurePosixPath(cell).suffix for cell in rows[0][1]):
        header, rows = rows[0][1], rows[1:]
    if not rows:
        raise DataError(f"{path}: no rows below the header")
    columns = _columns(path, header, [row for _, row in rows], finder)
    return rows, columns


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        mark = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(c.strip() for c in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: not valid CSV: {error}") from None
    if not rows:
        raise DataError(f"{path}: the file is empty; it must name an image and a mask per line")
    return rows


def _columns(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], finder: _Finder) -> dict[str, int]:
    """Return the column of each kind of file; columns without file names are skipped.

    Raises:
        DataError: there is no column of masks or none of images, or two columns are of the same kind.
    """
    endings = {ending for role in finder.roles for ending in role.endings}
    places: dict[str, list[int]] = {}
    unknown: list[int] = []
    for index in range(max(len(row) for row in rows)):
        cells = [row[index] for row in rows if index < len(row)]
        if sum(PurePosixPath(cell).suffix.lower() in endings for cell in cells) < _MIN_SHARE * len(rows):
            continue
        role = _role(cells, header[index] if index < len(header) else "", finder)
        places.setdefault(role.name, []).append(index) if role else unknown.append(index)
    open_roles = [role.name for role in finder.roles if role.name not in places]
    if len(unknown) == len(open_roles) == 1:
        places[open_roles[0]] = unknown
    twice = [name for name, columns in places.items() if len(columns) > 1]
    sensors = [name for name in places if name != MASK]
    if twice or MASK not in places or not sensors:
        shown = "; ".join(", ".join(row) for row in ([header] if header else []) + list(rows[:1]))
        why = f"two columns seem to be {twice[0]}" if twice else f"no column of {'masks' if sensors else 'images'}"
        raise DataError(
            f"{path}: it is not clear what its columns are ({why}): {shown}. A column is recognized by words in its "
            f"title or file names: {'; '.join(f'{r.name}: ' + ', '.join(r.words) for r in finder.roles)}"
        )
    return {name: columns[0] for name, columns in places.items()}


def _role(cells: Sequence[str], title: str, finder: _Finder) -> Role | None:
    """Return the kind of a column's files: by its title, else by their paths, else by their endings."""
    votes = [role.name for role in map(finder.role_of_text, cells) if role]
    by_title = [role for role in finder.roles if set(words_of(title)) & set(role.words)]
    if len(by_title) == 1:
        return by_title[0]
    for role in finder.roles:
        if votes.count(role.name) > _MIN_SHARE * len(cells):
            return role
    endings = {PurePosixPath(cell).suffix.lower() for cell in cells}
    fitting = [role for role in finder.roles if endings <= set(role.endings)]
    return fitting[0] if len(fitting) == 1 else None

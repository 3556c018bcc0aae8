"""Read samples from csv files with undocumented columns, which are recognized by their contents.

The kind of files in a column follows from its title, else from words in its cells ("Outdoor_dataset/nir/1.png"), else
from their endings. For a kind without a column, the file is found by the path of another file: only the word for the
kind differs ("nir/1.png" and "rgb/1.png", "1_nir.tiff" and "1_rgb.tiff").
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from simmat.data.formats.folders import files_by_stem
from simmat.data.samples import MASK_EXTENSIONS
from simmat.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


class Role(NamedTuple):
    """A kind of file: its manifest column, the words that mean it in a path or a title, and its endings."""

    name: str
    words: Sequence[str]
    endings: Sequence[str]


MASK_ROLE = Role(
    "mask",
    (
        "mask",
        "masks",
        "gt",
        "groundtruth",
        "truth",
        "label",
        "labels",
        "segmentation",
        "annotation",
        "annotations",
    ),
    MASK_EXTENSIONS,
)
Row = dict[str, Path | str | None]
"""Kind of file -> the file; a sentence for one that is named and not found, None for one that is not named."""


def read_table(path: Path, roles: Sequence[Role]) -> Iterator[tuple[int, Row]]:
    """Yield the line number and the files of each row of a table, whose files are in the folder of the table.

    Raises:
        DataError: the table cannot be read, or its columns cannot be recognized.
    """
    rows = _rows(path)
    has_header = not any(PurePosixPath(cell).suffix for cell in rows[0][1])
    header = rows.pop(0)[1] if has_header else []
    if not rows:
        raise DataError(f"{path}: no rows below the header")
    tree = _Tree(path.parent, roles)
    columns = _columns(path, header, [cells for _, cells in rows], tree)
    for line, cells in rows:
        named = {
            name: tree.find(cells[column] if column < len(cells) else "")
            for name, column in columns.items()
        }
        known = [file for file in named.values() if isinstance(file, Path)]
        yield (
            line,
            {
                role.name: named.get(role.name) or tree.sibling(known, role)
                for role in roles
            },
        )


def words_of(text: str) -> list[str]:
    """Split a path or name into lower-case words and numbers: "gtMask_01" is gt, mask, 01."""
    return [
        word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)
    ]


class _Tree:
    """The files below a folder, found by the ends of their paths: a table holds those of another machine."""

    def __init__(self, root: Path, roles: Sequence[Role]) -> None:
        self.root, self.roles = root, roles
        self.endings = {ending for role in roles for ending in role.endings}
        self._by_name: dict[str, list[Path]] = {}
        self._by_sample: dict[tuple[tuple[str, ...], str], list[Path]] = {}
        for path in (
            path
            for paths in files_by_stem(root, sorted(self.endings)).values()
            for path in paths
        ):
            self._by_name.setdefault(path.name.lower(), []).append(path)
            if role := self._role(path.relative_to(root)):
                self._by_sample.setdefault((self._sample(path), role.name), []).append(
                    path
                )

    def find(self, text: str) -> Path | str:
        """Return the file whose path agrees longest with the end of a text, or a description of the problem."""
        wanted = [
            part.lower()
            for part in re.split(r"[/\\]", text.strip("\"'"))
            if part not in ("", ".")
        ]
        if not wanted:
            return "is empty"
        ranked: dict[int, list[Path]] = {}
        for path in self._by_name.get(wanted[-1], []):
            pairs = list(
                zip(path.relative_to(self.root).parts[::-1], wanted[::-1], strict=False)
            )
            same = next(
                (n for n, (own, other) in enumerate(pairs) if own.lower() != other),
                len(pairs),
            )
            ranked.setdefault(same, []).append(path)
        if not ranked:
            return f"{text!r}: no such file"
        best = sorted(ranked[max(ranked)])
        if len(best) > 1:
            return f"{text!r} may be {' and '.join(path.relative_to(self.root).as_posix() for path in best[:2])}"
        return best[0]

    def sibling(self, known: Sequence[Path], role: Role) -> Path | None:
        """Return the file of another kind whose path has the same words but for that of the kind, if there is one."""
        found = (
            self._by_sample.get((self._sample(path), role.name), []) for path in known
        )
        return next((paths[0] for paths in found if len(paths) == 1), None)

    def role_in_column(self, cells: Sequence[str], title: str) -> Role | None:
        """Return the kind of a column's files: by its title, else by most paths, else by their endings."""
        by_title = [
            role for role in self.roles if set(words_of(title)) & set(role.words)
        ]
        if len(by_title) == 1:
            return by_title[0]
        votes = []
        for cell in cells:
            file = self.find(cell)
            # of a missing file: its folder and name
            end = PurePosixPath(*re.split(r"[/\\]", cell)[-2:])
            votes.append(
                self._role(
                    file.relative_to(self.root) if isinstance(file, Path) else end
                )
            )
        likely = [role for role in self.roles if votes.count(role) > len(cells) / 2]
        endings = {PurePosixPath(cell).suffix.lower() for cell in cells}
        fitting = likely or [
            role for role in self.roles if endings <= set(role.endings)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _role(self, path: PurePath) -> Role | None:
        """Return the kind that the last matching word of a path means, among the kinds with its ending."""
        for word in reversed(words_of(path.with_suffix("").as_posix())):
            for role in self.roles:
                if word in role.words and path.suffix.lower() in role.endings:
                    return role
        return None

    def _sample(self, path: Path) -> tuple[str, ...]:
        """Return the words of a path that do not mean a kind, which are the same for all files of a sample."""
        kinds = {word for role in self.roles for word in role.words}
        words = words_of(path.relative_to(self.root).with_suffix("").as_posix())
        return tuple(word for word in words if word not in kinds)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return line number and cells of each row that is not empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        mark = max(",;\t", key=text.lstrip().partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        rows = [
            (reader.line_num, [cell.strip() for cell in row])
            for row in reader
            if any(c.strip() for c in row)
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not a csv file in UTF-8: {error}; save it again"
        ) from None
    if not rows:
        raise DataError(
            f"{path}: the file is empty; it must name an image and a mask per line"
        )
    return rows


def _columns(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], tree: _Tree
) -> Mapping[str, int]:
    """Return the column of each kind of file; columns that name no files are skipped."""
    places: dict[str, list[int]] = {}
    unknown: list[int] = []
    for index in range(max(map(len, rows))):
        cells = [row[index] for row in rows if index < len(row)]
        names_files = (
            sum(PurePosixPath(cell).suffix.lower() in tree.endings for cell in cells)
            >= len(rows) / 2
        )
        role = (
            tree.role_in_column(cells, header[index] if index < len(header) else "")
            if names_files
            else None
        )
        if names_files:
            (places.setdefault(role.name, []) if role else unknown).append(index)
    missing = [role.name for role in tree.roles if role.name not in places]
    if len(unknown) == len(missing) == 1:
        places[missing[0]] = unknown
    twice = [name for name, columns in places.items() if len(columns) > 1]
    if twice or MASK_ROLE.name not in places or len(places) < 2:
        shown = "; ".join(
            ", ".join(row) for row in ([header] if header else []) + list(rows[:1])
        )
        lacking = "masks" if set(places) - {MASK_ROLE.name} else "images"
        why = (
            f"two columns seem to be {twice[0]}" if twice else f"no column of {lacking}"
        )
        raise DataError(
            f"{path}: it is not clear what its columns are ({why}): {shown}. A column is recognized by words in its "
            f"title or file names: {'; '.join(f'{role.name}: ' + ', '.join(role.words) for role in tree.roles)}"
        )
    return {name: columns[0] for name, columns in places.items()}

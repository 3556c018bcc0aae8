"""The index of a data set as a file: what one pass over its images found, for as long as nothing changes.

It lies beside the data, in `.simmat/`, or in the cache folder where that cannot be written. It may be a stranger's: one
that is damaged, of another format or of another sensor counts as none.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from simmat.data.dataset import Dataset
from simmat.data.fingerprint import FileState
from simmat.documents import Document, validate
from simmat.errors import OutputError, SimMATError
from simmat.io.files import atomic_write_bytes, parse_json, require_file
from simmat.io.weights import cache_folder
from simmat.model_spec import Channels
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import Channel

FORMAT = 1
FOLDER = ".simmat"
"""Folder of indexes in that of a data set."""
NO_CLASS = -(2**63)
"""Class of an instance whose class is not known."""
_MOST = 1e90
"""Above any sum of squares of float32."""
_MOST_KEPT = 8
"""Indexes of one data set, each of a sensor and a rule for regions; older ones are removed."""
_CARD = {"regions", "min_region", "min_region_share", "nodata", "ignore", "zero_means", "intrinsics"}
"""Fields of the data card that say how files are read."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class _Channels(Document):
    """Channels as they are loaded, and as they reach the network."""

    loaded: Channels
    seen: Channels


class Facts(NamedTuple):
    """What the pass found out about one sample.

    Attributes:
        numbers: (4·C·C + 2·C,) packed moments, then the least and the largest value of each channel.
        counts: (6,) height and width; instances dropped; pixels ignored; instances hidden; whether one can be repeated.
        instances: (R, 2) class, or `NO_CLASS`, and area in pixels.
        stored: (Q, 8), see `simmat.data.fill_values.count_stored`.
    """

    numbers: Floats
    counts: Ints
    instances: Ints
    stored: Ints


@dataclass(frozen=True)
class Table:
    """The facts of N samples, joined.

    Attributes:
        numbers: (N, 4·C·C + 2·C).
        counts: (N, 6).
        instances: (M, 2), sample after sample.
        stored: (Q, 8), sample after sample.
        ends: (N, 2) where each sample's instances and stored numbers end.
    """

    numbers: Floats
    counts: Ints
    instances: Ints
    stored: Ints
    ends: Ints

    @classmethod
    def of(cls, facts: Sequence[Facts], channels: int) -> Table:
        """Join the facts of samples of C channels."""
        numbers = np.stack([fact.numbers for fact in facts]) if facts else np.empty((0, _width(channels)))
        return cls(
            numbers,
            np.stack([fact.counts for fact in facts]) if facts else np.empty((0, 6), np.int64),
            np.concatenate([fact.instances for fact in facts]) if facts else np.empty((0, 2), np.int64),
            np.concatenate([fact.stored for fact in facts]) if facts else np.empty((0, 8), np.int64),
            np.cumsum([(len(fact.instances), len(fact.stored)) for fact in facts], axis=0, dtype=np.int64).reshape(
                -1, 2
            ),
        )

    @classmethod
    def join(cls, tables: Sequence[Table]) -> Table:
        """Put tables of the same channels one after the other."""
        shifts = np.cumsum([(0, 0), *((len(table.instances), len(table.stored)) for table in tables)], axis=0)
        ends = [table.ends + shift for table, shift in zip(tables, shifts[:-1], strict=True)]
        return cls(
            np.concatenate([table.numbers for table in tables]),
            np.concatenate([table.counts for table in tables]),
            np.concatenate([table.instances for table in tables]),
            np.concatenate([table.stored for table in tables]),
            np.concatenate(ends),
        )

    def __getitem__(self, row: int) -> Facts:
        """Return the facts of one sample."""
        (start, first), (end, last) = self.ends[row - 1] if row else (0, 0), self.ends[row]
        return Facts(self.numbers[row], self.counts[row], self.instances[start:end], self.stored[first:last])

    def take(self, rows: Sequence[int]) -> Table:
        """Return some rows as a table, in the order given."""
        if list(rows) == list(range(len(self.counts))):
            return self
        return Table.of([self[row] for row in rows], _channels(self.numbers.shape[1]))

    def is_sound(self, channels: int, sources: int) -> bool:
        """Return whether the parts fit each other, and numbers are such as images of that sensor give."""
        moments, ranges = np.split(self.numbers, [4 * channels * channels], axis=1)
        ends = np.concatenate([np.zeros((1, 2), np.int64), self.ends])
        return bool(
            len(self.numbers) == len(self.counts) == len(self.ends)
            and self.numbers.shape[1] == _width(channels)
            and (np.abs(moments) < _MOST).all()
            and not np.isnan(ranges).any()
            and (self.counts >= 0).all()
            and (np.diff(ends, axis=0) >= 0).all()
            and tuple(ends[-1].tolist()) == (len(self.instances), len(self.stored))
            and (self.stored >= 0).all()
            and (self.stored[:, 0] < sources).all()
        )


_PARTS: Mapping[str, tuple[type, int | None]] = {
    "numbers": (np.float64, None),
    "counts": (np.int64, 6),
    "instances": (np.int64, 2),
    "stored": (np.int64, 8),
    "ends": (np.int64, 2),
    "times": (np.int64, 3),
    "digests": (np.uint8, 32),
    "notes": (np.uint8, 1),
}
"""Tensors of the file: type, columns."""


@dataclass(frozen=True)
class Kept:
    """What an index holds.

    Attributes:
        table: facts of N samples.
        samples: N keys of samples, see `simmat.data.index.sample_key`, in the order of the table.
        files: file -> its state when it was read.
        channels: those of the first image, as loaded and as they reach the network.
        first: key of the sample that has them.
    """

    table: Table
    samples: tuple[str, ...]
    files: Mapping[Path, FileState]
    channels: tuple[tuple[Channel, ...], tuple[Channel, ...]]
    first: str


def places_of(dataset: Dataset) -> tuple[Path, ...]:
    """Return where the index of a data set may lie, the best place first; none where its sensor cannot be told.

    The name says the sensor with its options, the code that reads it, and the rule for regions.
    """
    classes: set[type] = set()
    try:
        what = {
            "format": FORMAT,
            "sensor": _told(dataset.adapter, classes),
            "code": _code(classes),
            "card": dataset.card.model_dump(mode="json", include=_CARD),
        }
    except (_UntoldError, OSError):
        return ()
    name = f"index-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]}.safetensors"
    root = hashlib.sha256(str(dataset.root.resolve()).encode(errors="surrogateescape")).hexdigest()[:24]
    return dataset.root / FOLDER / name, cache_folder() / "index" / root / name


def read_kept(dataset: Dataset, places: Sequence[Path]) -> Kept | None:
    """Return the index of a data set that lies at one of some places; None where there is none that can be used."""
    for place in places:
        try:
            require_file(place)
            return _read(dataset, place)
        except (
            ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError, SimMATError,
            TypeError, ValueError,
        ):  # fmt: skip
            continue
    return None


def write_kept(dataset: Dataset, places: Sequence[Path], kept: Kept) -> None:
    """Write an index at the first of some places that takes it; where none does, the next start reads all anew."""
    files = [(path, state) for path, state in kept.files.items()]
    tensors: dict[str, npt.NDArray[Any]] = {name: getattr(kept.table, name) for name in list(_PARTS)[:5]}
    tensors["times"] = np.asarray([(s.size, s.mtime_ns, s.ctime_ns) for _, s in files], np.int64).reshape(-1, 3)
    tensors["digests"] = np.frombuffer(b"".join(s.digest for _, s in files), np.uint8).reshape(-1, 32)
    notes: dict[str, object] = {
        "format": FORMAT,
        "samples": kept.samples,
        "files": [_relative(dataset.root, path) for path, _ in files],
        "channels": [[asdict(channel) for channel in group] for group in kept.channels],
        "first": kept.first,
    }
    tensors["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8).reshape(-1, 1)
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    content = save(whole, metadata={"sha256": digest_of(whole)})
    for place in places:
        with suppress(OutputError):
            atomic_write_bytes(place, content)
            _remove_old(place.parent)
            return


def _read(dataset: Dataset, place: Path) -> Kept:
    with safe_open(place, framework="np") as file:
        digest = (file.metadata() or {})["sha256"]
        tensors = {name: file.get_tensor(name) for name in _PARTS}
    for name, (kind, columns) in _PARTS.items():
        value = tensors[name]
        if value.dtype != kind or value.ndim != 2 or columns not in (None, value.shape[1]):
            raise ValueError(f"{name} is {value.dtype} of shape {value.shape}")
    notes = parse_json(tensors["notes"].tobytes(), constants=True)
    found = validate(_Channels, dict(zip(("loaded", "seen"), notes["channels"], strict=True)))
    loaded, seen = found.loaded, found.seen
    samples, names = notes["samples"], notes["files"]
    table = Table(*(tensors[name] for name in list(_PARTS)[:5]))
    if (
        notes["format"] != FORMAT
        or digest != digest_of(tensors)
        or not table.is_sound(len(seen), len(dataset.adapter.sources))
        or not all(isinstance(text, str) for text in (*samples, *names, notes["first"]))
        or not len(samples) == len(table.counts)
        or not len(names) == len(tensors["times"]) == len(tensors["digests"])
    ):
        raise ValueError("its parts do not fit each other")
    states = zip(names, tensors["times"].tolist(), tensors["digests"], strict=True)
    files = {
        dataset.root / name: FileState(size, changed, touched, bytes(found))
        for name, (size, changed, touched), found in states
    }
    return Kept(table, tuple(samples), files, (loaded, seen), notes["first"])


def digest_of(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the sha256 of all that an index says: a bit that a disk changed must not reach a network."""
    found = hashlib.sha256()
    for name in _PARTS:
        found.update(struct.pack("<2q", *tensors[name].shape))
        found.update(np.ascontiguousarray(tensors[name]).data)
    return found.hexdigest()


def _remove_old(folder: Path) -> None:
    with suppress(OSError):
        found = sorted(folder.glob("index-*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found[_MOST_KEPT:]:
            path.unlink(missing_ok=True)


def _relative(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _width(channels: int) -> int:
    return 4 * channels * channels + 2 * channels


def _channels(width: int) -> int:
    return next(count for count in range(width + 1) if _width(count) >= width)


class _UntoldError(Exception):
    """A sensor holds something of which cannot be told whether it is the same the next time."""


def _told(value: object, classes: set[type]) -> object:
    """Return a sensor, or what it is made of, as json values that are equal for equal sensors; collect its classes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_told(part, classes) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _told(part, classes) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if "<" in name:  # made by a function, whose arguments are not known
        raise _UntoldError(name)
    if isinstance(value, type):
        return name
    if isinstance(value, BaseModel):
        return [name, value.model_dump(mode="json")]
    if isinstance(value, ModalityAdapter):
        classes.add(kind)
        return [name, value.name, _told(vars(value), classes)]
    if is_dataclass(value):
        return [name, {field.name: _told(getattr(value, field.name), classes) for field in fields(value)}]
    raise _UntoldError(name)


def _code(classes: Iterable[type]) -> list[str]:
    """Return the sha256 of the source code of the packages that some classes and those they stand on are from."""
    modules = {base.__module__.partition(".")[0] for kind in classes for base in kind.__mro__}
    return [f"{name} {_code_of(name)}" for name in sorted(modules - sys.stdlib_module_names)]


def _code_of(package: str) -> str:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        raise _UntoldError(package)
    main = Path(file)
    found = hashlib.sha256()
    for path in sorted(main.parent.rglob("*.py")) if main.name == "__init__.py" else [main]:
        found.update(f"{path.relative_to(main.parent)}\0".encode(errors="surrogateescape"))
        found.update(path.read_bytes() + b"\0")
    return found.hexdigest()

"""The file of an index: the results of one pass over a data set, valid while its files do not change.

It is in `.simmat/` of the data set's folder, or in the cache folder if that is not writable or a link. It may come from
someone else, so a file that is damaged, or of another format or sensor, is ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from simmat.data.dataset import Dataset
from simmat.data.fill_values import channels_by_source
from simmat.data.fingerprint import Bytes, annotations_digest
from simmat.data.samples import start_of_paths
from simmat.documents import Document, validate
from simmat.errors import OutputError, SimMATError
from simmat.io.files import atomic_write_bytes, parse_json, require_file
from simmat.io.weights import cache_folder
from simmat.model_spec import Channels
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import Channel

FORMAT = 4
FOLDER = ".simmat"
"""Folder for indexes in the folder of a data set."""
NO_CLASS = -(2**63)
"""Class of an instance without a class."""
_MOST = 1e90
"""Larger than any sum of squares of float32 values."""
_MOST_KEPT = 8
"""Most indexes per data set, one per sensor and region rule; the oldest are removed."""
_CARD = {"regions", "min_region", "min_region_share", "nodata", "ignore", "zero_means", "intrinsics"}
"""Fields of the data card that affect how files are read."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class _Channels(Document):
    """Channels as loaded, and after the transform."""

    loaded: Channels
    seen: Channels


@dataclass(frozen=True)
class Table:
    """The facts about N samples of P files and C channels, and the state of the files.

    Attributes:
        keys: (N, 16), see `sample_keys`.
        times: (N, 3·P), see `simmat.data.fingerprint.Times`.
        digests: (N, 32·P) sha256 of each file.
        numbers: (N, 4·C·C + 2·C) packed moments, then the smallest and the largest values of the channels.
        places: (N, 5) smallest x and y and largest x and y on the earth, and a number of the coordinate system; NaN and
            0 without a georeference.
        counts: (N, 7) height; width; dropped instances; ignored pixels; instances without a visible pixel; 1 if an
            instance can be repeated, else 0; by rule "classes", pieces that are joined to another one, see
            `simmat.data.instances.count_joined`.
        ends: (N, 2) end of each sample's rows in `instances` and in `stored`.
        instances: (M, 2) class, or `NO_CLASS`, and area in pixels, ordered by sample.
        stored: (Q, 8), see `simmat.data.fill_values.count_stored`, ordered by sample.
    """

    keys: Bytes
    times: Ints
    digests: Bytes
    numbers: Floats
    places: Floats
    counts: Ints
    ends: Ints
    instances: Ints
    stored: Ints

    @classmethod
    def empty(cls, dataset: Dataset) -> Table:
        """Return a table without rows for a data set."""
        kinds = _kinds(dataset, len(dataset.channels()))
        return cls(**{name: np.empty((0, kinds[name][1]), kinds[name][0]) for name in _COLUMNS})

    @classmethod
    def join(cls, tables: Sequence[Table]) -> Table:
        """Concatenate tables of the same sensor, at least one."""
        if len(tables) == 1:
            return tables[0]
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}
        sizes = np.asarray([(len(table.instances), len(table.stored)) for table in tables])
        columns["ends"] += np.repeat(np.cumsum(sizes, axis=0) - sizes, [len(table.keys) for table in tables], axis=0)
        return cls(**columns)

    def split_numbers(self) -> tuple[Floats, Floats, Floats]:
        """Return (N, 4·C·C) packed moments, (N, C) smallest and (N, C) largest values."""
        channels = (math.isqrt(4 * self.numbers.shape[1] + 1) - 1) // 4
        moments, low, high = np.split(self.numbers, [-2 * channels, -channels], axis=1)
        return moments, low, high

    def take(self, rows: Ints) -> Table:
        """Return a table of some rows, in the given order."""
        if np.array_equal(rows, np.arange(len(self.keys))):
            return self
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS[:6]}
        starts, ends = np.concatenate([np.zeros((1, 2), np.int64), self.ends[:-1]])[rows], self.ends[rows]
        for place, name in enumerate(("instances", "stored")):
            within = [np.arange(start, end) for start, end in zip(starts[:, place], ends[:, place], strict=True)]
            columns[name] = getattr(self, name)[np.concatenate([np.arange(0), *within])]
        return Table(**columns, ends=np.cumsum(ends - starts, axis=0))

    def is_sound(self, sources: int) -> bool:
        """Return True if the columns match each other and all numbers are possible for a number of sources."""
        moments, low, high = self.split_numbers()
        ends = np.concatenate([np.zeros((1, 2), np.int64), self.ends])
        return bool(
            len(self.keys) > 0
            and len({len(getattr(self, name)) for name in _COLUMNS[:7]}) == 1
            and (np.abs(moments) < _MOST).all()
            and not np.isnan(low).any()
            and not np.isnan(high).any()
            and (self.counts >= 0).all()
            and (np.diff(ends, axis=0) >= 0).all()
            and tuple(ends[-1].tolist()) == (len(self.instances), len(self.stored))
            and (self.stored >= 0).all()
            and (self.stored[:, 0] < sources).all()
        )


_COLUMNS = [column.name for column in fields(Table)]
_NOTES = "notes"
"""Tensor of the file that holds json text."""


def _kinds(dataset: Dataset, channels: int) -> dict[str, tuple[type, int]]:
    """Return dtype and number of columns of each tensor of the file."""
    files = len(dataset.samples[0].paths)
    return {
        "keys": (np.uint8, 16),
        "times": (np.int64, 3 * files),
        "digests": (np.uint8, 32 * files),
        "numbers": (np.float64, 4 * channels * channels + 2 * channels),
        "places": (np.float64, 5),
        "counts": (np.int64, 7),
        "ends": (np.int64, 2),
        "instances": (np.int64, 2),
        "stored": (np.int64, 8),
        _NOTES: (np.uint8, 1),
    }


@dataclass(frozen=True)
class Kept:
    """The contents of an index.

    Attributes:
        table: one row per usable sample.
        channels: those of the reference image, as loaded and after the transform.
        first: key of the reference sample, in hexadecimal digits.
    """

    table: Table
    channels: tuple[tuple[Channel, ...], tuple[Channel, ...]]
    first: str


def sample_keys(dataset: Dataset) -> Bytes:
    """Return (S, 16) digests of what identifies each sample, apart from the contents of its files."""
    start = len(start_of_paths(dataset.root))
    keys = []
    for sample in dataset.samples:
        names = [path[start:] for path in sample.paths]  # relative, so that the folder can be moved
        parts = [*names, sample.zero_means or "", annotations_digest(dataset, sample)]
        if sample.window is not None:
            parts.append(repr(tuple(sample.window)))
        if dataset.polygons is not None and sample.has_polygons:
            parts.append(dataset.polygons.key)
        what = "\0".join(parts)
        keys.append(hashlib.sha256(what.encode(errors="surrogateescape")).digest()[:16])
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)


def places_of(dataset: Dataset) -> tuple[Path, ...]:
    """Return the paths where an index can be stored, in order of preference; none if the sensor cannot be compared.

    The file name is a digest of the sensor with its options, its code, and the region rule.
    """
    classes: set[type] = set()
    try:
        what = {
            "format": FORMAT,
            "sensor": _as_json(dataset.adapter, classes),
            "code": _code(classes),
            "card": dataset.card.model_dump(mode="json", include=_CARD),
        }
    except (_NotComparableError, OSError):
        return ()
    name = f"index-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]}.safetensors"
    root = hashlib.sha256(str(dataset.root.resolve()).encode(errors="surrogateescape")).hexdigest()[:24]
    places = (dataset.root / FOLDER / name, cache_folder() / "index" / root / name)
    return places[1:] if (dataset.root / FOLDER).is_symlink() else places  # of a stranger's set, it leads anywhere


def read_kept(dataset: Dataset, places: Sequence[Path]) -> Kept | None:
    """Return the first usable index at some paths, or None."""
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
    """Write an index to the first path that is writable; without one, the next start reads all files again."""
    notes: dict[str, object] = {
        "format": FORMAT,
        "channels": [[asdict(channel) for channel in group] for group in kept.channels],
        "first": kept.first,
    }
    tensors = {name: np.ascontiguousarray(getattr(kept.table, name)) for name in _COLUMNS}
    tensors[_NOTES] = np.frombuffer(json.dumps(notes).encode(), np.uint8).reshape(-1, 1)
    content = save(tensors, metadata={"sha256": digest_of(tensors)})
    for place in places:
        with suppress(OutputError):
            atomic_write_bytes(place, content)
            _remove_old(place.parent)
            return


def _read(dataset: Dataset, place: Path) -> Kept:
    with safe_open(place, framework="np") as file:
        digest = (file.metadata() or {})["sha256"]
        tensors = {name: file.get_tensor(name) for name in (*_COLUMNS, _NOTES)}
    notes = parse_json(tensors[_NOTES].tobytes(), constants=True)
    found = validate(_Channels, dict(zip(("loaded", "seen"), notes["channels"], strict=True)))
    channels_by_source(dataset.adapter, found.loaded)  # fails if their number is not the sensor's
    for name, (kind, columns) in _kinds(dataset, len(found.seen)).items():
        if tensors[name].dtype != kind or tensors[name].shape[1:] != (columns,):
            raise ValueError(f"{name} is {tensors[name].dtype} of shape {tensors[name].shape}")
    table = Table(**{name: tensors[name] for name in _COLUMNS})
    if (
        notes["format"] != FORMAT
        or digest != digest_of(tensors)
        or not isinstance(notes["first"], str)
        or not table.is_sound(len(dataset.adapter.sources))
    ):
        raise ValueError("its parts do not match")
    return Kept(table, (found.loaded, found.seen), notes["first"])


def digest_of(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the sha256 of the contents of an index, which detects a damaged file."""
    found = hashlib.sha256()
    for name in (*_COLUMNS, _NOTES):
        found.update(struct.pack("<2q", *tensors[name].shape))
        found.update(np.ascontiguousarray(tensors[name]).data)
    return found.hexdigest()


def _remove_old(folder: Path) -> None:
    with suppress(OSError):
        found = sorted(folder.glob("index-*.safetensors"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in found[_MOST_KEPT:]:
            path.unlink(missing_ok=True)


class _NotComparableError(Exception):
    """A sensor holds a value that cannot be compared with that of another process."""


def _as_json(value: object, classes: set[type]) -> object:
    """Return a sensor or a value it holds as json values, equal for equal sensors; collect the sensors' classes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_as_json(part, classes) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _as_json(part, classes) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if "<" in name:  # made within a function, whose arguments are unknown
        raise _NotComparableError(name)
    if isinstance(value, type):
        return name
    if isinstance(value, BaseModel):
        return [name, value.model_dump(mode="json")]
    if isinstance(value, ModalityAdapter):
        classes.add(kind)
        return [name, value.name, _as_json(vars(value), classes)]
    if is_dataclass(value):
        return [name, {field.name: _as_json(getattr(value, field.name), classes) for field in fields(value)}]
    raise _NotComparableError(name)


def _code(classes: Iterable[type]) -> list[str]:
    """Return the sha256 of the source code of the packages that define some classes or their bases."""
    modules = {base.__module__.partition(".")[0] for kind in classes for base in kind.__mro__}
    return [f"{name} {_code_of(name)}" for name in sorted(modules - sys.stdlib_module_names)]


def _code_of(package: str) -> str:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        raise _NotComparableError(package)
    main = Path(file)
    found = hashlib.sha256()
    for path in sorted(main.parent.rglob("*.py")) if main.name == "__init__.py" else [main]:
        found.update(f"{path.relative_to(main.parent)}\0".encode(errors="surrogateescape"))
        found.update(path.read_bytes() + b"\0")
    return found.hexdigest()

"""The file of an index: the results of one pass over a data set, valid while its files do not change.

It is in `.simmat/` of the data set's folder, or in the cache folder if that is not writable or a link. It may come from
someone else, so a file that is damaged, or of another format or sensor, is ignored.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from simmat.data.dataset import Dataset
from simmat.data.fingerprint import Bytes, annotations_digest
from simmat.data.samples import start_of_paths
from simmat.documents import Document, validate
from simmat.errors import OutputError, SimMATError
from simmat.io.files import atomic_write_bytes, cache_folder, parse_json, require_file
from simmat.model_spec import Channels
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.channel_selection import channels_by_source
from simmat.types import Channel
from simmat.version import __version__

FORMAT = 5
FOLDER = ".simmat"
"""Folder for indexes in the folder of a data set."""
NO_CLASS = -(2**63)
"""Class of an instance without a class."""
_MAX_SQUARES = 1e90
"""Larger than any sum of squares of float32 values."""
_MAX_FILES = 8
"""Most indexes per data set, one per sensor and region rule; the oldest are removed."""
_CARD = {"regions", "min_region", "min_region_share", "ignore", "zero_means", "intrinsics"}
"""Fields of the data card that affect how files are read."""
_TENSORS = ("rows", "instances")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.void]


def row_type(files: int, channels: int) -> np.dtype[np.void]:
    """Return the type of a row of a table: the facts about one sample of P files and C channels."""
    return np.dtype(
        [
            ("key", np.uint8, 16),  # see `sample_keys`
            ("times", np.int64, (files, 3)),  # see `simmat.data.fingerprint.Times`
            ("sha256", np.uint8, (files, 32)),
            ("moments", np.float64, (4, channels, channels)),  # see `Moments.stacked`
            ("low", np.float64, (channels,)),  # smallest value of each channel
            ("high", np.float64, (channels,)),
            (
                "place",
                np.float64,
                5,
            ),  # smallest x, y, largest x, y on the earth, number of the coordinate system; or NaN
            ("height", np.int64),
            ("width", np.int64),
            ("dropped", np.int64),  # instances smaller than the card's smallest
            ("ignored", np.int64),  # pixels
            ("hidden", np.int64),  # instances without a visible pixel
            ("repeatable", np.int64),  # 1 if an instance can be repeated
            ("joined", np.int64),  # see `simmat.data.instances.count_joined`
        ]
    )


@dataclass(frozen=True)
class Table:
    """The facts about N samples, and the state of their files.

    Attributes:
        rows: (N,) see `row_type`.
        instances: (M, 3) row of the sample, class or `NO_CLASS`, area in pixels; ordered by row.
    """

    rows: Rows
    instances: Ints

    @classmethod
    def empty(cls, files: int, channels: int) -> Table:
        """Return a table without samples, of P files and C channels."""
        return cls(np.empty(0, row_type(files, channels)), np.empty((0, 3), np.int64))

    @classmethod
    def join(cls, tables: Sequence[Table]) -> Table:
        """Concatenate tables of the same sensor, at least one."""
        if len(tables) == 1:
            return tables[0]
        starts = np.cumsum([0, *(len(table.rows) for table in tables)])
        instances = np.concatenate([table.instances for table in tables])
        instances[:, 0] += np.repeat(starts[:-1], [len(table.instances) for table in tables])
        return cls(np.concatenate([table.rows for table in tables]), instances)

    def take(self, rows: Ints) -> Table:
        """Return a table of some different rows, in the given order."""
        if np.array_equal(rows, np.arange(len(self.rows))):
            return self
        place = np.full(len(self.rows), -1)
        place[rows] = np.arange(len(rows))
        instances = np.column_stack([place[self.instances[:, 0]], self.instances[:, 1:]])
        instances = instances[instances[:, 0] >= 0]
        return Table(self.rows[rows], instances[np.argsort(instances[:, 0], kind="stable")])

    def instance_counts(self) -> Ints:
        """Return (N,) the number of instances of each sample."""
        return np.bincount(self.instances[:, 0], minlength=len(self.rows))

    def is_sound(self) -> bool:
        """Return True if the parts match each other."""
        owner = self.instances[:, 0]
        inside = ((owner >= 0) & (owner < len(self.rows))).all() and (np.diff(owner) >= 0).all()
        return bool(len(self.rows) and inside and (np.abs(self.rows["moments"]) < _MAX_SQUARES).all())


@dataclass(frozen=True)
class StoredIndex:
    """The contents of an index: one row per usable sample; the channels as loaded and after the transform."""

    table: Table
    channels: tuple[tuple[Channel, ...], tuple[Channel, ...]]


class _Channels(Document):
    loaded: Channels
    seen: Channels


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
            parts.append(repr((dataset.card.class_attribute, sorted(dataset.polygons.class_names.items()))))
        keys.append(hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).digest()[:16])
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)


def index_paths(dataset: Dataset) -> tuple[Path, ...]:
    """Return the paths where an index can be stored, in order of preference; none if the sensor cannot be compared.

    The file name is a digest of the sensor with its options and its class's files, and of the region rule.
    """
    try:
        card = dataset.card.model_dump(mode="json", include=_CARD)
        what = json.dumps([FORMAT, __version__, _state_of(dataset.adapter), card], sort_keys=True)
    except (TypeError, OSError):
        return ()
    name = f"index-{hashlib.sha256(what.encode()).hexdigest()[:24]}.safetensors"
    root = hashlib.sha256(str(dataset.root.resolve()).encode(errors="surrogateescape")).hexdigest()[:24]
    paths = (dataset.root / FOLDER / name, cache_folder() / "index" / root / name)
    return paths[1:] if (dataset.root / FOLDER).is_symlink() else paths  # of a stranger's set, it leads anywhere


def _state_of(value: object) -> object:
    """Return a sensor or a value that it holds as json values, equal for equal sensors; TypeError if it is unknown."""
    if isinstance(value, list | tuple):
        return [_state_of(part) for part in value]
    if isinstance(value, ModalityAdapter) and "<locals>" not in type(value).__qualname__:
        bases = [base for base in type(value).__mro__ if issubclass(base, ModalityAdapter)]
        folders = dict.fromkeys(Path(inspect.getfile(base)).parent for base in bases)
        code = hashlib.sha256(b"\0".join(file.read_bytes() for f in folders for file in sorted(f.glob("*.py"))))
        state = {name: _state_of(part) for name, part in vars(value).items()}
        return [str(type(value)), value.name, code.hexdigest(), state]
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    if " at 0x" in text:
        raise TypeError(text)
    return text


def read_stored(dataset: Dataset, paths: Sequence[Path]) -> StoredIndex | None:
    """Return the first usable index at some paths, or None."""
    for path in paths:
        try:
            require_file(path)
            return _read(dataset, path)
        except (AttributeError, LookupError, OSError, SafetensorError, SimMATError, TypeError, ValueError):
            continue  # AttributeError: safetensors', of a type that numpy does not have
    return None


def write_stored(paths: Sequence[Path], index: StoredIndex) -> None:
    """Write an index to the first path that is writable; without one, the next start reads all files again."""
    rows = np.ascontiguousarray(index.table.rows)
    tensors: dict[str, npt.NDArray[Any]] = {
        "rows": rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize),
        "instances": np.ascontiguousarray(index.table.instances),
    }
    loaded, seen = ([asdict(channel) for channel in group] for group in index.channels)
    channels = json.dumps({"loaded": loaded, "seen": seen})
    content = save(tensors, metadata={"channels": channels, "sha256": digest_of(tensors, channels)})
    for path in paths:
        with suppress(OutputError):
            atomic_write_bytes(path, content)
            _remove_old(path.parent)
            return


def _read(dataset: Dataset, path: Path) -> StoredIndex:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in _TENSORS}
    if metadata["sha256"] != digest_of(tensors, metadata["channels"]):
        raise ValueError("it is damaged")
    channels = validate(_Channels, parse_json(metadata["channels"], constants=True))
    channels_by_source(dataset.adapter, channels.loaded)  # fails if their number is not the sensor's
    kind = row_type(len(dataset.samples[0].paths), len(channels.seen))
    shapes = {"rows": (np.uint8, kind.itemsize), "instances": (np.int64, 3)}
    for name, (dtype, columns) in shapes.items():
        if tensors[name].dtype != dtype or tensors[name].shape[1:] != (columns,):
            raise ValueError(f"{name} is {tensors[name].dtype} of shape {tensors[name].shape}")
    table = Table(tensors["rows"].view(kind)[:, 0], tensors["instances"])
    if not table.is_sound():
        raise ValueError("its parts do not match")
    return StoredIndex(table, (channels.loaded, channels.seen))


def digest_of(tensors: dict[str, npt.NDArray[Any]], channels: str) -> str:
    """Return the sha256 of the contents of an index, which detects a damaged file."""
    found = hashlib.sha256(channels.encode())
    for name in _TENSORS:
        found.update(repr(tensors[name].shape).encode())
        found.update(np.ascontiguousarray(tensors[name]).data)
    return found.hexdigest()


def _remove_old(folder: Path) -> None:
    with suppress(OSError):
        found = sorted(folder.glob("index-*.safetensors"), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in found[_MAX_FILES:]:
            path.unlink(missing_ok=True)

"""The file of an index: facts about the samples of a data set, kept for the next command.

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
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load, save

from simmat.data.dataset import Dataset
from simmat.data.digest import Bytes, annotations_digest
from simmat.data.samples import start_of_paths
from simmat.errors import OutputError, SimMATError
from simmat.io.files import atomic_write_bytes, cache_folder
from simmat.io.paths import require_file
from simmat.io.reading import parse_json
from simmat.io.states import file_times
from simmat.model_spec import Channels
from simmat.sensors.adapter import ModalityAdapter, channels_by_source
from simmat.sensors.contract import LEVELS, MAX_ORDERED
from simmat.version import __version__

FORMAT = 9
FOLDER = ".simmat"
"""Folder for indexes in the folder of a data set."""
NO_CLASS = -(2**63)
"""Class of an instance without a class, and its id where it has none."""
_MAX_FILES = 8
"""Most indexes per data set, one per sensor and region rule; the oldest are removed."""
_CARD = {
    "regions",
    "min_region",
    "min_region_share",
    "ignore",
    "zero_means",
    "intrinsics",
    "class_attribute",
}
"""Fields of the data card that affect how files are read."""
Ints = npt.NDArray[np.int64]
KnownChannels = tuple[Channels, Channels]
"""The channels of all images, as loaded and after the transform."""


def row_type(files: int, loaded: int, channels: int) -> np.dtype[np.void]:
    """Return the type of a row of a table: the facts about one sample of P files and C channels.

    Args:
        files: P.
        loaded: L channels before the sensor's transform.
        channels: C channels after it.
    """
    ordered = loaded if loaded <= MAX_ORDERED else 0
    return np.dtype(
        [
            ("key", np.uint8, 16),  # see `_sample_keys`
            ("times", np.int64, (files, 3)),  # see `file_times`
            ("sha256", np.uint8, (files, 32)),
            ("moments", np.float64, (4, channels, channels)),  # see `Moments.stacked`
            ("low", np.float64, (channels,)),  # smallest value of each channel
            ("high", np.float64, (channels,)),
            ("quantiles", np.float32, (loaded, LEVELS)),  # see `ImageValues`
            ("correlation", np.float32, (ordered, ordered)),
            ("height", np.int64),
            ("width", np.int64),
            ("dropped", np.int64),  # instances smaller than the card's smallest
            ("ignored", np.int64),  # pixels
            ("hidden", np.int64),  # instances without a visible pixel
            ("joined", np.int64),  # see `simmat.data.instances.count_joined`
        ]
    )


@dataclass(frozen=True)
class IndexTable:
    """The facts about N samples, and the state of their files.

    Attributes:
        rows: (N,) see `row_type`.
        instances: (M, 4) row of the sample, class or `NO_CLASS`, area in pixels, id or `NO_CLASS`; ordered by row.
    """

    rows: npt.NDArray[np.void]
    instances: Ints

    @classmethod
    def join(cls, tables: Sequence[IndexTable]) -> IndexTable:
        """Concatenate tables of the same sensor, at least one."""
        starts = np.cumsum([0, *(len(table.rows) for table in tables)])
        instances = np.concatenate([table.instances for table in tables])
        instances[:, 0] += np.repeat(
            starts[:-1], [len(table.instances) for table in tables]
        )
        return cls(np.concatenate([table.rows for table in tables]), instances)

    def take(self, rows: Ints) -> IndexTable:
        """Return a table of some different rows, in the given order."""
        place = np.full(len(self.rows), -1)
        place[rows] = np.arange(len(rows))
        instances = np.column_stack(
            [place[self.instances[:, 0]], self.instances[:, 1:]]
        )
        instances = instances[instances[:, 0] >= 0]
        return IndexTable(
            self.rows[rows], instances[np.argsort(instances[:, 0], kind="stable")]
        )

    def instance_counts(self) -> Ints:
        """Return (N,) the number of instances of each sample."""
        return np.bincount(self.instances[:, 0], minlength=len(self.rows))


def load_index(dataset: Dataset) -> tuple[IndexTable, KnownChannels, Ints] | None:
    """Return the stored table of a data set, the channels, and (S,) the row of each sample; None without an index.

    The row of a sample is -1 if it is not stored, or one of its files changed, came or went, see `file_states`.
    """
    for path in _index_paths(dataset):
        try:
            require_file(path)
            content = path.read_bytes()
            if hashlib.sha256(content[:-32]).digest() != content[-32:]:
                continue
            tensors = load(content[:-32])
            known = tuple(parse_json(tensors["channels"].tobytes(), constants=True))
            channels = TypeAdapter(KnownChannels).validate_python(known)
            # fails if their number is not the sensor's
            channels_by_source(dataset.adapter, channels[0])
            kind = row_type(
                len(dataset.samples[0].paths), len(channels[0]), len(channels[1])
            )
            table = IndexTable(tensors["rows"].view(kind)[:, 0], tensors["instances"])
        except (
            LookupError,
            OSError,
            SafetensorError,
            SimMATError,
            TypeError,
            ValueError,
        ):
            continue
        stored = {key.tobytes(): row for row, key in enumerate(table.rows["key"])}
        rows = np.array(
            [stored.get(key.tobytes(), -1) for key in _sample_keys(dataset)]
        )
        now = file_times(
            path for sample in dataset.samples for path in sample.paths
        ).reshape(len(rows), -1, 3)
        return (
            table,
            channels,
            np.where((table.rows["times"][rows] == now).all(axis=(1, 2)), rows, -1),
        )
    return None


def save_index(dataset: Dataset, table: IndexTable, places: Ints) -> None:
    """Write the table of the samples at some places to the first path that is writable, if there is one."""
    channels = dataset.loaded_channels, dataset.channels()
    table.rows["key"] = _sample_keys(dataset)[places]
    loaded, seen = ([asdict(channel) for channel in group] for group in channels)
    tensors: dict[str, npt.NDArray[Any]] = {
        "rows": table.rows.view(np.uint8).reshape(
            len(table.rows), table.rows.dtype.itemsize
        ),
        "instances": table.instances,
        "channels": np.frombuffer(json.dumps([loaded, seen]).encode(), np.uint8),
    }
    content = save(tensors)
    for path in _index_paths(dataset):
        with suppress(OutputError):
            atomic_write_bytes(path, content + hashlib.sha256(content).digest())
            with suppress(OSError):
                indexes = path.parent.glob("index-*.bin")
                for old in sorted(indexes, key=lambda path: path.lstat().st_mtime_ns)[
                    :-_MAX_FILES
                ]:
                    old.unlink(missing_ok=True)
            return


def _sample_keys(dataset: Dataset) -> Bytes:
    """Return (S, 16) digests of what identifies each sample, apart from the contents of its files."""
    start = len(start_of_paths(dataset.root))
    keys = []
    for sample in dataset.samples:
        # relative, so that the folder can be moved
        names = [path[start:] for path in sample.paths]
        parts = [
            *names,
            sample.zero_means or "",
            annotations_digest(dataset, sample),
            repr(sample.window),
        ]
        keys.append(
            hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).digest()[
                :16
            ]
        )
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)


def _index_paths(dataset: Dataset) -> tuple[Path, ...]:
    """Return the paths where an index can be stored, in order of preference; none if the sensor cannot be compared.

    The file name is a digest of the sensor with its options, of the file that its class is in, and of the region rule.
    """
    card = dataset.card.model_dump(mode="json", include=_CARD)
    classes = dict(dataset.polygons.class_names) if dataset.polygons else None
    try:
        what = json.dumps(
            [FORMAT, __version__, dataset.adapter, card, classes],
            sort_keys=True,
            default=_plain,
        )
    except (TypeError, ValueError, OSError):
        return ()
    if "<locals>" in what or " at 0x" in what:
        return ()
    name = f"index-{hashlib.sha256(what.encode()).hexdigest()[:24]}.bin"
    root = hashlib.sha256(
        str(dataset.root.resolve()).encode(errors="surrogateescape")
    ).hexdigest()[:24]
    in_cache = cache_folder() / "index" / root / name
    if (dataset.root / FOLDER).is_symlink():  # of a stranger's set, it leads anywhere
        return (in_cache,)
    return dataset.root / FOLDER / name, in_cache


def _plain(value: object) -> object:
    """Return a sensor or a value that it holds as json values, equal for equal sensors."""
    if isinstance(value, ModalityAdapter):
        kind = type(value)
        code = Path(inspect.getfile(kind)).read_bytes()
        return [
            kind.__module__,
            kind.__qualname__,
            hashlib.sha256(code).hexdigest(),
            value.name,
            vars(value),
        ]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return repr(value)

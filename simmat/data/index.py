"""Index of a data set: the facts that training needs, found in one pass over its files and stored.

A later start reads only the files that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from simmat.data.dataset import Dataset, Sample
from simmat.data.fingerprint import Bytes, Contents, file_times, read_files
from simmat.data.index_file import NO_CLASS, Floats, Ints, Kept, Table, places_of, read_kept, sample_keys, write_kept
from simmat.data.index_pass import read_samples
from simmat.data.statistics import merge_moments
from simmat.errors import ConfigError, DataError, SimMATError, all_problems, equal_problems
from simmat.io.files.locks import locked
from simmat.sensors.normalize import Statistics
from simmat.sensors.options import describe_nodata
from simmat.types import MOST_SHRUNK, SMALL_SIDE, Window

Progress = Callable[[int], object]
"""Called with the number of samples that were completed since the last call."""

_PATIENCE_S = 3600.0
"""How long to wait for another process that reads the same data set."""
_TOGETHER = 1024
"""Number of samples whose moments are merged at once."""


@dataclass(frozen=True)
class DataIndex:
    """The result of one pass over a data set.

    Attributes:
        table: facts about the usable samples, in their order.
        faults: sample id -> why it cannot be used.
    """

    dataset: Dataset
    table: Table = field(repr=False)
    faults: Mapping[str, SimMATError]

    @cached_property
    def contents(self) -> Contents:
        """Digests of all files; DataError lists those that cannot be read."""
        rows = np.array([self._rows.get(sample.id, -1) for sample in self.dataset.samples])
        return Contents.of(self.dataset, self.table.digests[rows], rows >= 0)

    def table_of(self, samples: Iterable[Sample]) -> Table:
        """Return the rows of some samples, in their order; raise the fault of a sample that cannot be used."""
        return self.table.take(self._rows_of(samples))

    def reference_digests(self) -> Iterator[bytes | None]:
        """Yield the sha256 of the reference file of each sample; None if the sample cannot be used."""
        digests = iter(self.table.digests[:, :32])
        for sample in self.dataset.samples:
            yield None if sample.id in self.faults else next(digests).tobytes()

    def with_regions(self, samples: Sequence[Sample], what: str) -> tuple[Sample, ...]:
        """Return the samples that have a region with a valid pixel; DataError names their use `what` and all faults."""
        faults = [self.faults[sample.id] for sample in samples if sample.id in self.faults]
        for fault in faults:
            if not isinstance(fault, DataError):  # a fault of the sensor's plugin, the same for every sample
                raise fault
        problems = equal_problems(list(dict.fromkeys(map(str, faults))))
        if len(problems) == 1:
            raise DataError(problems[0])
        if problems:
            raise DataError(all_problems(f"{self.dataset.root}: {what} samples that cannot be used:", problems))
        instances = np.diff(self.table.ends[:, 0], prepend=0)
        visible = (instances > self.table.counts[:, 4])[self._rows_of(samples)].tolist()
        return tuple(sample for sample, seen in zip(samples, visible, strict=True) if seen)

    def training_samples(self) -> tuple[Sample, ...]:
        """Return the training samples that have a region with a valid pixel; raise DataError if none has."""
        found = self.with_regions(self.dataset.split("train"), "training")
        if not found:
            raise DataError(
                f"{self.dataset.root}: no training sample has a region of at least {self.dataset.card.smallest} "
                "with a valid pixel in its image; check the masks, --regions, --min-region and --nodata"
            )
        return found

    def classes(self, samples: Sequence[Sample]) -> tuple[int | None, ...]:
        """Return the classes of the objects in some samples, in rising order; (None,) where objects have none."""
        found = np.unique(self.table_of(samples).instances[:, 0]).tolist()
        return tuple(None if value == NO_CLASS else value for value in found)

    def image_sides(self, samples: Sequence[Sample]) -> Ints:
        """Return the longer side in pixels of each image, or of the crops that are taken of it: (N,)."""
        sides: Ints = self.table.counts[self._rows_of(samples), :2].max(axis=1)
        crop = self.dataset.card.crop
        return sides if crop is None else np.minimum(sides, crop)

    def shrunk_warning(self, samples: Sequence[Sample], size: int) -> str:
        """Say in how many samples, each with an object, the input of `size` pixels makes one too small; "" if in none.

        Only images that are shrunk more than `MOST_SHRUNK` times count.
        """
        table, factors = self.table_of(samples), self.image_sides(samples) / size
        areas = np.minimum.reduceat(table.instances[:, 1], np.concatenate([[0], table.ends[:-1, 0]]))
        lost = (factors > MOST_SHRUNK) & (areas < (SMALL_SIDE * factors) ** 2)
        if not lost.any():
            return ""
        return (
            f"Warning: in {np.count_nonzero(lost)} of {len(samples)} training images an object is smaller than "
            f"{SMALL_SIDE} x {SMALL_SIDE} pixels where the network sees it, since images are shrunk up to "
            f"{factors.max():.3g} times, to {size} pixels; cut them by --crop, or use a larger --image-size"
        )

    def with_repeatable(self, samples: Sequence[Sample]) -> int:
        """Return the number of samples that have an object which `repeat_regions` can copy."""
        return int(np.count_nonzero(self.table.counts[self._rows_of(samples), 5]))

    def joined_note(self, samples: Sequence[Sample]) -> str:
        """Say how many pieces of one class are joined to one region in some samples; "" if none are."""
        joined = self.table.counts[self._rows_of(samples), 6]
        if not joined.any():
            return ""
        images, pieces = np.count_nonzero(joined), joined.sum()
        return (
            f"In {images} of {len(samples)} images a class has separate pieces, {pieces} more than there are regions: "
            "--regions classes makes one region of all, which one click stands for. Where the pieces are objects, use "
            'regions = "components" (--regions components)'
        )

    def statistics(self, samples: Sequence[Sample]) -> Statistics:
        """Return the statistics of the transformed channels over the valid pixels of some samples.

        An image or window that several samples share counts once. DataError lists channels with no valid pixel or one
        value.
        """
        different: dict[tuple[tuple[str, ...], Window | None], Sample] = {}
        for sample in samples:
            different.setdefault((sample.images, sample.window), sample)
        if not different:
            raise DataError(f"{self.dataset.root}: no samples to compute channel statistics from")
        rows = self._rows_of(different.values())
        packed, low, high = self.table.split_numbers()
        self._check(low[rows].min(axis=0), high[rows].max(axis=0))
        groups = [rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER)]
        return merge_moments(np.stack([merge_moments(packed[group]).packed() for group in groups])).statistics()

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Sample id -> row of the table."""
        used = (sample.id for sample in self.dataset.samples if sample.id not in self.faults)
        return {name: row for row, name in enumerate(used)}

    def _rows_of(self, samples: Iterable[Sample]) -> Ints:
        try:
            return np.array([self._rows[sample.id] for sample in samples], np.int64)
        except KeyError as error:
            raise self.faults[error.args[0]] from None

    def _check(self, low: Floats, high: Floats) -> None:
        card, problems = self.dataset.card, []
        for channel, least, most in zip(self.dataset.channels(), low, high, strict=True):
            if least > most:
                nodata = "" if card.nodata is None else f" (nodata is {describe_nodata(card.nodata)})"
                problems.append(f"channel {channel.name!r} has no valid pixel{nodata}")
            elif least == most:
                problems.append(f"channel {channel.name!r} is {least:g} {channel.unit} in every valid pixel")
        if problems:
            title = f"{self.dataset.root}: channels without information; leave them out with --channels, or check "
            raise DataError(all_problems(f"{title}--nodata:", problems))


def read_index(dataset: Dataset, progress: Progress | None = None, *, processes: int | None = None) -> DataIndex:
    """Return the index of a data set: load it, read the files that changed, and store it again.

    A file with the same size, mtime and ctime is unchanged; otherwise its content is compared. Samples that cannot be
    used are read again each time.

    Args:
        progress: called with the number of completed samples.
        processes: number of processes that read; None is one per core, fewer for a small data set.

    Raises:
        DataError: no image can be read; or a process was killed.
    """
    places = places_of(dataset)
    found = _read(dataset, places, progress, processes, may_read=False)
    if found is None:
        with locked(dataset.root, patience_s=_PATIENCE_S):  # a second process waits instead of reading everything too
            found = _read(dataset, places, progress, processes, may_read=True)
    assert found is not None
    return found


def contents_of(dataset: Dataset) -> Contents:
    """Return the digests of all files; those in the index are not computed again. DataError lists bad files."""
    kept = read_kept(dataset, places_of(dataset))
    if kept is None:
        shape = len(dataset.samples), 32 * len(dataset.samples[0].paths)
        return Contents.of(dataset, np.zeros(shape, np.uint8), np.zeros(len(dataset.samples), np.bool_))
    table, rows = _untouched(dataset, kept.table, sample_keys(dataset), may_read=False)
    return Contents.of(dataset, table.digests[rows], rows >= 0)


def _read(
    dataset: Dataset, places: Sequence[Path], progress: Progress | None, processes: int | None, *, may_read: bool
) -> DataIndex | None:
    """Make the index; None if it needs to read files and `may_read` is False."""
    samples, keys = dataset.samples, sample_keys(dataset)
    kept = read_kept(dataset, places)
    table, rows = None, np.full(len(samples), -1)
    if kept is not None:
        table, rows = _untouched(dataset, kept.table, keys, may_read=may_read)
    if not may_read and (rows < 0).any():
        return None
    faults: dict[str, SimMATError] = {}
    reference = samples.index(dataset.first)
    if kept is not None and rows[reference] >= 0 and kept.first == keys[reference].tobytes().hex():
        dataset = replace(dataset, known_channels=kept.channels)
    elif not may_read:
        return None
    else:
        dataset, reference, faults = _with_reference(dataset)
        rows[[sample.id in faults for sample in samples]] = -1
        if kept is None or dataset.known_channels != kept.channels:
            table, rows[:] = None, -1
    old = np.flatnonzero(rows >= 0)
    new = [place for place in np.flatnonzero(rows < 0).tolist() if samples[place].id not in faults]
    advance = progress or (lambda count: None)
    advance(len(samples) - len(new))
    tables = [Table.empty(dataset) if table is None else table.take(rows[old])]
    for part in read_samples(dataset, [samples[place] for place in new], keys[new], processes):
        tables.append(part.table)
        faults.update(part.faults)
        advance(part.count)
    found = [place for place in new if samples[place].id not in faults]
    table = Table.join(tables).take(np.argsort([*old.tolist(), *found]))
    assert dataset.known_channels is not None
    now = Kept(table, dataset.known_channels, keys[reference].tobytes().hex())
    if kept is None or table is not kept.table or now.first != kept.first:
        write_kept(dataset, places, now)
    return DataIndex(dataset, table, faults)


def _untouched(dataset: Dataset, table: Table, keys: Bytes, *, may_read: bool) -> tuple[Table, Ints]:
    """Find the samples whose files have not changed since they were read; (S, 16) `keys` as of `sample_keys`.

    Return the table, with the new times of files of equal content, and (S,) the row of each unchanged sample, or -1.
    `may_read` compares files with other times by content.
    """
    if np.array_equal(table.keys, keys):
        rows = np.arange(len(keys))
    else:
        known = {key.tobytes(): row for row, key in enumerate(table.keys)}
        rows = np.array([known.get(key.tobytes(), -1) for key in keys])
    now = file_times(path for sample in dataset.samples for path in sample.paths)
    touched = np.flatnonzero((rows >= 0) & (table.times[rows] != now.reshape(len(rows), -1)).any(axis=1)).tolist()
    if touched and may_read:
        times = table.times.copy()
        found = read_files(path for place in touched for path in dataset.samples[place].paths)
        for place in touched:
            files = [found[path] for path in dataset.samples[place].paths]
            whole = [file for file in files if not isinstance(file, DataError)]
            if b"".join(digest for _, digest in whole) == table.digests[rows[place]].tobytes():
                times[rows[place]] = [number for numbers, _ in whole for number in numbers]
            else:
                rows[place] = -1
        return replace(table, times=times), rows
    rows[touched] = -1
    return table, rows


def _with_reference(dataset: Dataset) -> tuple[Dataset, int, dict[str, SimMATError]]:
    """Read the reference image: the first that can be read; all others must have its channels.

    Return the data set with `known_channels`, the index of the reference sample, and the faults of those before it.
    """
    faults: dict[str, SimMATError] = {}
    rest = dataset
    while True:
        try:
            rest.channels()
            known = replace(dataset, known_channels=(rest.loaded_channels, rest.channels()))
            return known, dataset.samples.index(rest.first), faults
        except ConfigError:  # a fault of the settings, such as --channels, the same for every image
            raise
        except SimMATError as error:
            faults[rest.first.id] = error
            samples = tuple(sample for sample in rest.samples if sample is not rest.first)
            if not samples:
                problems = equal_problems(list(map(str, faults.values())))
                raise DataError(all_problems(f"{dataset.root}: no image can be read:", problems)) from None
            rest = replace(rest, samples=samples)

"""Index of a data set: the facts that training needs, found in one pass over its files and stored.

A later start reads only the files that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from simmat.data.dataset import Dataset, Sample
from simmat.data.fingerprint import DatasetDigest
from simmat.data.index_table import NO_CLASS, IndexTable, Ints, load_index, read_samples, row_type, save_index
from simmat.errors import ConfigError, DataError, SimMATError, all_problems, equal_problems
from simmat.io.files import locked
from simmat.sensors.normalize import Statistics, merge_moments
from simmat.sensors.options import format_nodata
from simmat.types import MAX_DOWNSCALE, SMALL_SIDE, Window

Progress = Callable[[int], object]
"""Called with the number of samples that were completed since the last call."""

_LOCK_TIMEOUT_S = 3600.0
"""How long to wait for another process that reads the same data set."""


@dataclass(frozen=True)
class DataIndex:
    """The result of one pass over a data set.

    Attributes:
        table: facts about the usable samples, in their order.
        faults: sample id -> why it cannot be used.
    """

    dataset: Dataset
    table: IndexTable = field(repr=False)
    faults: Mapping[str, SimMATError]

    @cached_property
    def contents(self) -> DatasetDigest:
        """Digests of all files; DataError lists those that cannot be read."""
        rows = np.array([self._rows.get(sample.id, -1) for sample in self.dataset.samples])
        return DatasetDigest.of(self.dataset, self.table.rows["sha256"], rows)

    def table_of(self, samples: Iterable[Sample]) -> IndexTable:
        """Return the rows of some samples, in their order; raise the fault of a sample that cannot be used."""
        return self.table.take(self._rows_of(samples))

    def reference_digests(self) -> Iterator[bytes | None]:
        """Yield the sha256 of the reference file of each sample; None if the sample cannot be used."""
        digests = iter(self.table.rows["sha256"][:, 0])
        for sample in self.dataset.samples:
            yield None if sample.id in self.faults else next(digests).tobytes()

    def with_regions(self, samples: Sequence[Sample], what: str) -> tuple[Sample, ...]:
        """Return the samples that have a region with a valid pixel; DataError names their use `what` and all faults."""
        faults = [self.faults[sample.id] for sample in samples if sample.id in self.faults]
        if faults:
            raise self._fault_of(faults, what)
        visible = (self.table.instance_counts() > self.table.rows["hidden"])[self._rows_of(samples)].tolist()
        return tuple(sample for sample, seen in zip(samples, visible, strict=True) if seen)

    def _fault_of(self, faults: Sequence[SimMATError], what: str) -> SimMATError:
        """Return one error that lists all faults of some samples."""
        for fault in faults:
            if not isinstance(fault, DataError):  # a fault of the sensor's plugin, the same for every sample
                return fault
        problems = equal_problems(list(dict.fromkeys(map(str, faults))))
        if len(problems) == 1:
            return DataError(problems[0])
        return DataError(all_problems(f"{self.dataset.root}: {what} samples that cannot be used:", problems))

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
        found = np.unique(self.table_of(samples).instances[:, 1]).tolist()
        return tuple(None if value == NO_CLASS else value for value in found)

    def sequence_objects(self, samples: Sequence[Sample]) -> dict[str, int]:
        """Return sequence -> number of objects in its frames, each id counted once; 0 without ids."""
        found: dict[str, set[int]] = {sample.sequence: set() for sample in samples if sample.sequence}
        for row, _, _, number in self.table_of(samples).instances.tolist():
            if samples[row].sequence and number != NO_CLASS:
                found[samples[row].sequence].add(number)
        return {name: len(ids) for name, ids in found.items()}

    def image_sides(self, samples: Sequence[Sample]) -> Ints:
        """Return the longer side in pixels of each image, or of the crops that are taken of it: (N,)."""
        rows = self.table.rows[self._rows_of(samples)]
        sides: Ints = np.maximum(rows["height"], rows["width"])
        crop = self.dataset.card.crop
        if crop is None:
            return sides
        return np.minimum(sides, crop)

    def shrunk_warning(self, samples: Sequence[Sample], size: int) -> str:
        """Warn in how many samples an object becomes too small in an input of `size` pixels; "" if in none.

        Only images that are shrunk more than `MAX_DOWNSCALE` times count.
        """
        table = self.table_of(samples)
        factors = self.image_sides(samples) / size
        areas = np.full(len(samples), np.iinfo(np.int64).max)
        np.minimum.at(areas, table.instances[:, 0], table.instances[:, 2])
        lost = (factors > MAX_DOWNSCALE) & (areas < (SMALL_SIDE * factors) ** 2)
        if not lost.any():
            return ""
        return (
            f"Warning: in {np.count_nonzero(lost)} of {len(samples)} training images an object is smaller than "
            f"{SMALL_SIDE} x {SMALL_SIDE} pixels where the network sees it, since images are shrunk up to "
            f"{factors.max():.3g} times, to {size} pixels; cut them by --crop, or use a larger --image-size"
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
        table = self.table_of(different.values()).rows
        card = self.dataset.card
        problems = []
        extremes = table["low"].min(axis=0), table["high"].max(axis=0)
        for channel, least, most in zip(self.dataset.channels(), *extremes, strict=True):
            if least > most:
                nodata = "" if card.nodata is None else f" (nodata is {format_nodata(card.nodata)})"
                problems.append(f"channel {channel.name!r} has no valid pixel{nodata}")
            elif least == most:
                problems.append(f"channel {channel.name!r} is {least:g} {channel.unit} in every valid pixel")
        if problems:
            title = f"{self.dataset.root}: channels without information; leave them out with --channels, or check "
            raise DataError(all_problems(f"{title}--nodata:", problems))
        return merge_moments(table["moments"]).statistics()

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


def read_index(dataset: Dataset, progress: Progress | None = None) -> DataIndex:
    """Return the index of a data set: load it, read the files that changed, and store it again.

    Files with the same size, mtime and ctime are unchanged. Samples that cannot be used are read again each time.

    Args:
        progress: called with the number of completed samples.

    Raises:
        DataError: no image can be read; or a process was killed.
    """
    advance = progress or (lambda count: None)
    with locked(dataset.root, timeout_s=_LOCK_TIMEOUT_S):  # a second process waits instead of reading everything too
        stored = load_index(dataset)
        rows = np.full(len(dataset.samples), -1)
        if stored is not None and stored[2][dataset.samples.index(dataset.first)] >= 0:
            table, channels, rows = stored
            dataset = replace(dataset, known_channels=channels)
        else:
            dataset = _with_known_channels(dataset)
            channels = dataset.loaded_channels, dataset.channels()
            if stored is not None and stored[1] == channels:
                table, _, rows = stored
        old = np.flatnonzero(rows >= 0)
        new = np.flatnonzero(rows < 0).tolist()
        advance(len(old))
        kind = row_type(len(dataset.samples[0].paths), len(channels[1]))
        tables = [table.take(rows[old]) if len(old) else IndexTable(np.empty(0, kind), np.empty((0, 4), np.int64))]
        faults: dict[str, SimMATError] = {}
        places = old.tolist()
        missing = [dataset.samples[number] for number in new]
        for place, found in zip(new, read_samples(dataset, missing, advance), strict=True):
            if isinstance(found, IndexTable):
                tables.append(found)
                places.append(place)
            else:
                faults[dataset.samples[place].id] = found
        table = IndexTable.join(tables)
        if len(tables) > 1:
            table = table.take(np.argsort(places))
            save_index(dataset, table, channels, np.sort(places))
        unequal = _unequal_frames(dataset, table, faults)
        if unequal:
            used = (sample.id for sample in dataset.samples if sample.id not in faults)
            table = table.take(np.flatnonzero([name not in unequal for name in used]))
        return DataIndex(dataset, table, {**faults, **unequal})


def _unequal_frames(dataset: Dataset, table: IndexTable, faults: Mapping[str, SimMATError]) -> dict[str, SimMATError]:
    """Return sample id -> error of each frame whose size is not that of the first one of its sequence."""
    first: dict[str, tuple[int, int, Sample]] = {}
    found: dict[str, SimMATError] = {}
    used = (sample for sample in dataset.samples if sample.id not in faults)
    for sample, (height, width) in zip(used, table.rows[["height", "width"]].tolist(), strict=True):
        own = (height, width, sample)
        if sample.sequence and sample.window is None and first.setdefault(sample.sequence, own)[:2] != own[:2]:
            rows, columns, other = first[sample.sequence]
            found[sample.id] = DataError(
                f"{sample.reference}: is {width}x{height} (width x height), but {other.reference.name} of the same "
                f"sequence is {columns}x{rows}; all frames of a sequence have one size: make two sequences of them"
            )
    return found


def digest_dataset(dataset: Dataset) -> DatasetDigest:
    """Return the digests of all files; those in the index are not computed again. DataError lists bad files."""
    stored = load_index(dataset)
    if stored is None:
        none = np.zeros((1, len(dataset.samples[0].paths), 32), np.uint8)
        return DatasetDigest.of(dataset, none, np.full(len(dataset.samples), -1))
    return DatasetDigest.of(dataset, stored[0].rows["sha256"], stored[2])


def _with_known_channels(dataset: Dataset) -> Dataset:
    """Return the data set with the channels of the first image that can be read, which all others must have."""
    problems: list[str] = []
    for sample in sorted(dataset.samples, key=lambda sample: sample.split != "train"):
        first = replace(dataset, samples=(sample,))
        try:
            return replace(dataset, known_channels=(first.loaded_channels, first.channels()))
        except ConfigError:  # a fault of the settings, such as --channels, the same for every image
            raise
        except SimMATError as error:
            problems.append(str(error))
    raise DataError(all_problems(f"{dataset.root}: no image can be read:", equal_problems(problems)))

"""The index of a data set: what its files hold and whether they changed, found in one pass and stored.

A later start reads only the files that changed. The facts about a sample depend on that sample alone, and come in the
order of the samples, so the index is the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np

from simmat.data.card import DataCard
from simmat.data.crops import choose_crop, windows_to_draw
from simmat.data.dataset import Dataset, Sample
from simmat.data.digest import Bytes, DatasetDigest
from simmat.data.index_file import (
    NO_CLASS,
    IndexTable,
    Ints,
    load_index,
    row_type,
    save_index,
)
from simmat.data.instances import Annotation, count_joined, visible_regions
from simmat.errors import (
    ConfigError,
    DataError,
    SimMATError,
    all_problems,
    equal_problems,
)
from simmat.io.files import locked
from simmat.io.states import file_digest, file_times, files_of
from simmat.sensors.contract import ImageValues, InputContract
from simmat.sensors.normalize import Statistics, image_moments, merge_moments
from simmat.sensors.options import format_nodata
from simmat.threads import START_METHOD, usable_cpus
from simmat.types import MAX_DOWNSCALE, SMALL_SIDE, Window

_PREFETCHED = 8
"""Samples of each process that may be waiting for those before them."""
MIN_SAMPLES_PER_PROCESS = 32
_MAX_PROCESSES = 16
_LOCK_TIMEOUT_S = 3600.0
"""How long to wait for another process that reads the same data set."""
Progress = Callable[[int], object]
"""Called with the number of samples that were completed since the last call."""


@dataclass(frozen=True)
class DataIndex:
    """The facts about a data set, of one pass over its files.

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
        rows = np.array(
            [self._rows.get(sample.id, -1) for sample in self.dataset.samples]
        )
        return _digest(self.dataset, self.table.rows["sha256"], rows)

    @property
    def usable(self) -> list[Sample]:
        """The samples that can be used, in the order of the table."""
        return [
            sample for sample in self.dataset.samples if sample.id not in self.faults
        ]

    def table_of(self, samples: Iterable[Sample]) -> IndexTable:
        """Return the rows of some samples, in their order; raise the fault of a sample that cannot be used."""
        return self.table.take(self._rows_of(samples))

    def with_regions(self, samples: Sequence[Sample], what: str) -> tuple[Sample, ...]:
        """Return the samples that have a region with a valid pixel; DataError names their use `what` and all faults."""
        faults = [
            self.faults[sample.id] for sample in samples if sample.id in self.faults
        ]
        if faults:
            raise self._fault_of(faults, what)
        visible = (self.table.instance_counts() > self.table.rows["hidden"])[
            self._rows_of(samples)
        ].tolist()
        return tuple(
            sample for sample, seen in zip(samples, visible, strict=True) if seen
        )

    def _fault_of(self, faults: Sequence[SimMATError], what: str) -> SimMATError:
        """Return one error that lists all faults of some samples."""
        for fault in faults:
            # a fault of the sensor's plugin, the same for every sample
            if not isinstance(fault, DataError):
                return fault
        problems = equal_problems(list(dict.fromkeys(map(str, faults))))
        if len(problems) == 1:
            return DataError(problems[0])
        return DataError(
            all_problems(
                f"{self.dataset.root}: {what} samples that cannot be used:", problems
            )
        )

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

    def sizes_hw(self, samples: Sequence[Sample]) -> Ints:
        """Return (height, width) in pixels of each sample: (N, 2)."""
        rows = self.table.rows[self._rows_of(samples)]
        sizes: Ints = np.stack([rows["height"], rows["width"]], axis=1)
        return sizes

    def image_sides(self, samples: Sequence[Sample]) -> Ints:
        """Return the longer side in pixels of each image, or of the crops that are taken of it: (N,)."""
        sides: Ints = self.sizes_hw(samples).max(1)
        crop = self.dataset.card.crop
        if not crop:
            return sides
        return np.minimum(sides, crop)

    def with_card(self, card: DataCard) -> DataIndex:
        """Return the index with another card, by which the samples and their labels are the same."""
        return replace(self, dataset=replace(self.dataset, card=card))

    def choose_crop(
        self, samples: Sequence[Sample], input_side: int
    ) -> tuple[int, str]:
        """Return what `choose_crop` chooses by the objects of some samples."""
        rows = self._rows_of(samples)
        table = self.table.take(rows)
        object_sides = np.sqrt(table.instances[:, 2])
        longer = np.maximum(table.rows["height"], table.rows["width"])
        image_sides = longer[table.instances[:, 0]].astype(np.float64)
        return choose_crop(object_sides, image_sides, input_side)

    def windows_to_draw(self, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """Return training samples, with a card's `crop` large images several times, see `windows_to_draw`."""
        crop = self.dataset.card.crop
        if not crop:
            return tuple(samples)
        sizes = self.table.rows[["height", "width"]][self._rows_of(samples)].tolist()
        return windows_to_draw(samples, sizes, crop)

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
            f"{SMALL_SIDE} x {SMALL_SIDE} pixels for the network, because images are scaled down up to "
            f"{factors.max():.3g} times, to {size} pixels; cut them with --crop, or use a larger --image-size"
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
            raise DataError(
                f"{self.dataset.root}: no samples to compute channel statistics from"
            )
        table = self.table_of(different.values()).rows
        card = self.dataset.card
        problems = []
        extremes = table["low"].min(axis=0), table["high"].max(axis=0)
        for channel, least, most in zip(
            self.dataset.channels(), *extremes, strict=True
        ):
            if least > most:
                nodata = (
                    ""
                    if card.nodata is None
                    else f" (nodata is {format_nodata(card.nodata)})"
                )
                problems.append(f"channel {channel.name!r} has no valid pixel{nodata}")
            elif least == most:
                problems.append(
                    f"channel {channel.name!r} is {least:g} {channel.unit} in every valid pixel"
                )
        if problems:
            title = f"{self.dataset.root}: channels without information; leave them out with --channels, or check "
            raise DataError(all_problems(f"{title}--nodata:", problems))
        return merge_moments(table["moments"]).statistics()

    def input_contract(self, samples: Sequence[Sample]) -> InputContract | None:
        """Return what the values of some samples are like; None if they are too few.

        Of the channels that the sensor loads, those that reach the network are described, or all where the sensor
        computes others from them.
        """
        rows = self.table_of(samples).rows
        loaded = self.dataset.loaded_channels
        used = {channel.name for channel in self.dataset.channels()}
        picks = [place for place, one in enumerate(loaded) if one.name in used]
        if not picks:
            picks = list(range(len(loaded)))
        correlations = rows["correlation"]
        if correlations.shape[1]:
            correlations = correlations[:, picks][:, :, picks]
        channels = [loaded[place] for place in picks]
        return InputContract.of(channels, rows["quantiles"][:, picks], correlations)

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Sample id -> row of the table."""
        return {sample.id: row for row, sample in enumerate(self.usable)}

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
    # a second process waits instead of reading everything too
    with locked(dataset.root, timeout_s=_LOCK_TIMEOUT_S):
        dataset, table, rows = _load_known(dataset)
        old = np.flatnonzero(rows >= 0)
        new = np.flatnonzero(rows < 0).tolist()
        advance(len(old))
        tables = [table.take(rows[old])]
        faults: dict[str, SimMATError] = {}
        places = old.tolist()
        missing = [dataset.samples[number] for number in new]
        for place, found in zip(
            new, read_samples(dataset, missing, advance), strict=True
        ):
            if isinstance(found, IndexTable):
                tables.append(found)
                places.append(place)
            else:
                faults[dataset.samples[place].id] = found
        table = IndexTable.join(tables)
        if len(tables) > 1:
            table = table.take(np.argsort(places))
            save_index(dataset, table, np.sort(places))
    index = DataIndex(dataset, table, faults)
    unequal = _unequal_frames(index)
    if not unequal:
        return index
    kept = [sample.id not in unequal for sample in index.usable]
    return DataIndex(dataset, table.take(np.flatnonzero(kept)), {**faults, **unequal})


def _load_known(dataset: Dataset) -> tuple[Dataset, IndexTable, Ints]:
    """Return the data set with the channels of its images, its stored table, and (S,) the row of each sample or -1."""
    stored = load_index(dataset)
    if stored is not None:
        table, channels, rows = stored
        if rows[dataset.samples.index(dataset.first)] >= 0:
            return replace(dataset, known_channels=channels), table, rows
    dataset = _with_known_channels(dataset)
    if stored is not None and stored[1] == dataset.known_channels:
        return dataset, table, rows
    kind = row_type(
        len(dataset.samples[0].paths),
        len(dataset.loaded_channels),
        len(dataset.channels()),
    )
    empty = IndexTable(np.empty(0, kind), np.empty((0, 4), np.int64))
    return dataset, empty, np.full(len(dataset.samples), -1)


def _unequal_frames(index: DataIndex) -> dict[str, SimMATError]:
    """Return sample id -> error of each frame whose size is not that of the first one of its sequence."""
    first: dict[str, tuple[int, int, Sample]] = {}
    found: dict[str, SimMATError] = {}
    for sample, (height, width) in zip(
        index.usable, index.table.rows[["height", "width"]].tolist(), strict=True
    ):
        own = (height, width, sample)
        if (
            sample.sequence
            and sample.window is None
            and first.setdefault(sample.sequence, own)[:2] != own[:2]
        ):
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
        return _digest(dataset, none, np.full(len(dataset.samples), -1))
    return _digest(dataset, stored[0].rows["sha256"], stored[2])


def _digest(dataset: Dataset, known: Bytes, rows: Ints) -> DatasetDigest:
    """Return the digests of a data set from those that are known; DataError lists all files that cannot be read.

    Args:
        known: (N, P, 32), at least one.
        rows: (S,) the row of each sample in `known`; -1 for none, whose files are then read.
    """
    digests = known[rows]
    digest_of = lru_cache(maxsize=64)(file_digest)  # frames share a file
    problems: list[str] = []
    for row in np.flatnonzero(rows < 0).tolist():
        for place, path in enumerate(dataset.samples[row].paths):
            try:
                digests[row, place] = list(digest_of(files_of(path)))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError(
            all_problems(
                f"{dataset.root}: files that cannot be read:", sorted(set(problems))
            )
        )
    return DatasetDigest(dataset, digests)


def _with_known_channels(dataset: Dataset) -> Dataset:
    """Return the data set with the channels of the first image that can be read, which all others must have."""
    problems: list[str] = []
    for sample in sorted(dataset.samples, key=lambda sample: sample.split != "train"):
        first = replace(dataset, samples=(sample,))
        try:
            return replace(
                dataset, known_channels=(first.loaded_channels, first.channels())
            )
        # a fault of the settings, such as --channels, the same for every image
        except ConfigError:
            raise
        except SimMATError as error:
            problems.append(str(error))
    raise DataError(
        all_problems(f"{dataset.root}: no image can be read:", equal_problems(problems))
    )


def read_samples(
    dataset: Dataset, samples: Sequence[Sample], advance: Callable[[int], object]
) -> list[IndexTable | SimMATError]:
    """Read samples of a data set with `known_channels`; return the row of each, in order, or why it cannot be used.

    `advance` is called with 1 for each that is read.
    """
    digest_of = lru_cache(maxsize=64)(file_digest)  # windows and frames share a file

    def read(sample: Sample) -> IndexTable | SimMATError:
        try:
            return _row_of(dataset, sample, lambda path: digest_of(files_of(path)))
        except SimMATError as error:
            return error

    processes = min(
        usable_cpus(), len(samples) // MIN_SAMPLES_PER_PROCESS, _MAX_PROCESSES
    )
    rows: Iterable[IndexTable | SimMATError] = map(read, samples)
    if processes > 1 and START_METHOD == "fork":
        import torch
        from torch.utils.data import DataLoader

        # What the processes read is inherited by fork, so a sensor need not be picklable.
        rows = DataLoader(
            cast(Any, samples),
            batch_size=None,
            collate_fn=cast(Any, read),
            num_workers=processes,
            prefetch_factor=_PREFETCHED,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # torch's own would be drawn from
        )
    found = []
    try:
        for row in rows:
            found.append(row)
            advance(1)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise DataError(
            f"{dataset.root}: a process that read images was killed, perhaps because memory ran out; close other "
            "programs, or look for a damaged file with `simmat data check`"
        ) from None
    return found


def _row_of(
    dataset: Dataset, sample: Sample, digest_of: Callable[[str], bytes]
) -> IndexTable:
    """Read one sample and return its row, all but its key, as a table."""
    times = file_times(sample.paths)
    digests = [list(digest_of(path)) for path in sample.paths]
    image = dataset.image(sample)
    seen = dataset.adapter.transform(image)
    if dataset.is_labelled(sample):
        label = dataset.label(sample, image, seen)
    else:
        label = Annotation(image.size_hw, (), np.logical_not(seen.valid.any(axis=0)))
    values = ImageValues.of_image(image)
    row = np.zeros(
        1, row_type(len(sample.paths), len(image.channels), len(seen.channels))
    )
    row["quantiles"] = values.quantiles
    row["correlation"] = values.correlation
    row["times"] = times
    row["sha256"] = digests
    row["moments"] = image_moments(seen).stacked()
    row["low"] = np.min(seen.data, axis=(1, 2), initial=np.inf, where=seen.valid)
    row["high"] = np.max(seen.data, axis=(1, 2), initial=-np.inf, where=seen.valid)
    row["height"], row["width"] = label.size_hw
    row["dropped"] = label.dropped
    row["ignored"] = np.count_nonzero(label.ignore)
    row["hidden"] = len(label.regions) - len(visible_regions(label))
    if dataset.card.regions == "classes":
        row["joined"] = count_joined(label)
    instances = np.full((len(label.regions), 4), NO_CLASS)
    instances[:, 0] = 0
    for number, region in enumerate(label.regions):
        instances[number, 2] = region.area
        if region.class_id is not None:
            instances[number, 1] = region.class_id
        if region.object_id is not None:
            instances[number, 3] = region.object_id
    return IndexTable(row, instances)

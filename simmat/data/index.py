"""What training needs to know of a data set, found in one pass over its files and kept as an index.

The pass runs in several processes. What it finds of a sample depends on that sample alone and is added up in the order
of the samples, so the result is the same for any number of them. A later start reads only what changed since.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np

from simmat.data.copy_paste import repeatable
from simmat.data.dataset import Dataset, Sample
from simmat.data.fill_values import count_stored
from simmat.data.fingerprint import Contents, FileState, annotations_digest, contents_from, file_states, read_state
from simmat.data.index_file import NO_CLASS, Facts, Floats, Kept, Table, places_of, read_kept, write_kept
from simmat.data.instances import visible_regions
from simmat.data.statistics import Moments, image_moments
from simmat.errors import ConfigError, DataError, SimMATError, all_problems
from simmat.io.files.locks import locked
from simmat.sensors.nodata import describe_nodata
from simmat.sensors.normalize import Statistics

Progress = Callable[[int], None]
"""Called with how many more samples are done."""

_CHUNK = 8
"""Samples that a process reads at once."""
_WORTH = 32
"""Samples for which one more process is worth its start."""
_MOST_PROCESSES = 16
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_PATIENCE_S = 3600.0
"""How long to wait for another process that reads the same data set."""


@dataclass(frozen=True)
class DataIndex:
    """What one pass over a data set found.

    Attributes:
        dataset: it, with the channels of its first image at hand.
        table: facts of the samples that can be used.
        rows: sample id -> row of the table.
        faults: sample id -> why it cannot be used.
        files: file -> state, of those that can be read.
    """

    dataset: Dataset
    table: Table = field(repr=False)
    rows: Mapping[str, int] = field(repr=False)
    faults: Mapping[str, SimMATError]
    files: Mapping[Path, FileState] = field(repr=False)

    @cached_property
    def contents(self) -> Contents:
        """Digests of all files.

        Raises:
            DataError: files cannot be read, all of them at once.
        """
        return contents_from(self.dataset, self.files)

    def facts(self, sample: Sample) -> Facts:
        """Return what is known of a sample.

        Raises:
            SimMATError: it cannot be used.
        """
        if sample.id in self.faults:
            raise self.faults[sample.id]
        return self.table[self.rows[sample.id]]

    def with_regions(self, samples: Sequence[Sample], what: str) -> tuple[Sample, ...]:
        """Return the samples that have a region with a valid pixel.

        Args:
            samples: to choose from.
            what: what they are for, in messages: "training".

        Raises:
            DataError: some cannot be used, all of them at once.
        """
        faults = [self.faults[sample.id] for sample in samples if sample.id in self.faults]
        for fault in faults:
            if not isinstance(fault, DataError):  # of the sensor's plugin, and so of every sample
                raise fault
        problems = list(dict.fromkeys(map(str, faults)))
        if len(problems) == 1:
            raise DataError(problems[0])
        if problems:
            raise DataError(all_problems(f"{self.dataset.root}: {what} samples that cannot be used:", problems))
        return tuple(sample for sample in samples if self._visible(sample))

    def training_samples(self) -> tuple[Sample, ...]:
        """Return the samples of the training split that have a region to ask about.

        Raises:
            DataError: some cannot be used, all of them at once; or none has a region.
        """
        found = self.with_regions(self.dataset.split("train"), "training")
        if not found:
            raise DataError(
                f"{self.dataset.root}: no training sample has a region of at least {self.dataset.card.smallest} "
                "with a valid pixel in its image; check the masks, --regions, --min-region and --nodata"
            )
        return found

    def with_repeatable(self, samples: Sequence[Sample]) -> int:
        """Return how many samples have an object that `repeat_regions` can copy."""
        return sum(bool(self.facts(sample).counts[5]) for sample in samples)

    def statistics(self, samples: Sequence[Sample]) -> Statistics:
        """Return the statistics of the channels that reach the network, over the valid pixels of some samples.

        An image that several samples share counts once.

        Raises:
            DataError: a channel has no valid pixel or one value only; all such channels at once.
        """
        different: dict[tuple[Path, ...], Sample] = {}
        for sample in samples:
            different.setdefault(tuple(sample.files.values()), sample)
        moments: Moments | None = None
        split = 2 * len(self.dataset.channels())
        low, high = np.full(split // 2, np.inf), np.full(split // 2, -np.inf)
        for sample in different.values():
            numbers = self.facts(sample).numbers
            own = Moments.unpacked(numbers[:-split])
            moments = own if moments is None else moments.merge(own)
            least, most = numbers[-split:].reshape(2, -1)
            low, high = np.minimum(low, least), np.maximum(high, most)
        if moments is None:
            raise DataError(f"{self.dataset.root}: no samples to take channel statistics of")
        self._check(low, high)
        return moments.statistics()

    def _visible(self, sample: Sample) -> bool:
        facts = self.facts(sample)
        return len(facts.instances) > int(facts.counts[4])

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
    """Read what changed in a data set since it was last read, all of it the first time, and keep what was found.

    A file is as it was where its size, and the times of its last changes of content and of name, owner or the like, are
    the same; where they are not, its content is compared. Samples that cannot be used are read again each time.

    Args:
        dataset: what to read, all splits.
        progress: called with 1 after every sample.
        processes: that read at the same time; None takes one a core, fewer where there is little to read.

    Raises:
        DataError: no image can be read; or a process was killed.
    """
    places = places_of(dataset)
    found = _read(dataset, places, progress, processes, may_read=False)
    if found is None:
        with locked(dataset.root, patience_s=_PATIENCE_S):  # two starts at once do not read all twice
            found = _read(dataset, places, progress, processes, may_read=True)
    assert found is not None
    return found


def contents_of(dataset: Dataset) -> Contents:
    """Return the digests of all files of a data set; those that its index knows are not read.

    Raises:
        DataError: files cannot be read, all of them at once.
    """
    kept = read_kept(dataset, places_of(dataset))
    return contents_from(dataset, kept.files if kept is not None else {})


def sample_key(dataset: Dataset, sample: Sample) -> str:
    """Return what decides, beside the content of its files, what is found in a sample."""
    root = str(dataset.root)
    paths = [str(path).removeprefix(root) for path in (*sample.files.values(), *([sample.mask] if sample.mask else ()))]
    labels = annotations_digest(dataset, sample) if sample.mask is None and dataset.coco is not None else ""
    return json.dumps([*paths, sample.zero_means, labels])


def _read(
    dataset: Dataset, places: Sequence[Path], progress: Progress | None, processes: int | None, *, may_read: bool
) -> DataIndex | None:
    """Make the index; None where something would have to be read that may not."""
    kept = read_kept(dataset, places)
    keys = {sample.id: sample_key(dataset, sample) for sample in dataset.samples}
    files = _untouched(dataset, kept, may_read=may_read)
    rows = {key: row for row, key in enumerate(kept.samples)} if kept is not None else {}
    old = [sample for sample in dataset.samples if keys[sample.id] in rows and files.keys() >= set(_files(sample))]
    faults: dict[str, SimMATError] = {}
    first = keys[dataset.first.id]
    if kept is not None and first == kept.first and any(sample is dataset.first for sample in old):
        dataset = replace(dataset, known_channels=kept.channels)
    elif not may_read:
        return None
    else:
        dataset, reference, faults = _with_reference(dataset)
        first = keys[reference.id]
        if kept is None or dataset.known_channels != kept.channels:
            old = []
    known = {sample.id for sample in old} | faults.keys()
    new = [sample for sample in dataset.samples if sample.id not in known]
    if new and not may_read:
        return None
    channels = len(dataset.channels())
    tables = [kept.table.take([rows[keys[sample.id]] for sample in old])] if kept is not None and old else []
    order = [sample.id for sample in old]
    if progress is not None:
        progress(len(known))
    for chunk, part in _read_samples(dataset, new, files, processes):
        tables.append(part.table)
        order += [sample.id for sample in chunk if sample.id not in part.faults]
        faults |= part.faults
        files |= part.files
        if progress is not None:
            progress(len(chunk))
    table = Table.join(tables) if tables else Table.of([], channels)
    assert dataset.known_channels is not None
    now = Kept(table, tuple(keys[name] for name in order), files, dataset.known_channels, first)
    if kept is None or new or (kept.files != files or kept.first != first):
        write_kept(dataset, places, now)
    return DataIndex(dataset, table, {name: row for row, name in enumerate(order)}, faults, files)


def _files(sample: Sample) -> Iterator[Path]:
    yield from sample.files.values()
    if sample.mask is not None:
        yield sample.mask


def _untouched(dataset: Dataset, kept: Kept | None, *, may_read: bool) -> dict[Path, FileState]:
    """Return the files that are as they were when they were read; the others are read as bytes, where that may be."""
    if kept is None:
        return {}
    paths = dict.fromkeys(path for sample in dataset.samples for path in _files(sample))
    found = {path: state for path in paths if (state := kept.files.get(path)) and state.holds(path)}
    if not may_read:
        return found
    rest = [path for path in paths if path in kept.files and path not in found]
    states, _ = file_states(rest, {})
    return found | {path: state for path, state in states.items() if state.digest == kept.files[path].digest}


def _with_reference(dataset: Dataset) -> tuple[Dataset, Sample, dict[str, SimMATError]]:
    """Read the first image that can be read, whose channels all others must have.

    Returns:
        The data set with its channels; the sample; and what is wrong with those before it.
    """
    faults: dict[str, SimMATError] = {}
    rest = dataset
    while True:
        try:
            rest.channels()
            return replace(dataset, known_channels=(rest.loaded_channels, rest.channels())), rest.first, faults
        except ConfigError:  # of the settings, such as --channels, and so of every image
            raise
        except SimMATError as error:
            faults[rest.first.id] = error
            samples = tuple(sample for sample in rest.samples if sample is not rest.first)
            if not samples:
                problems = list(map(str, faults.values()))
                raise DataError(all_problems(f"{dataset.root}: no image can be read:", problems)) from None
            rest = replace(rest, samples=samples)


@dataclass(frozen=True)
class _Part:
    """What was found in some samples: facts of those that can be used, faults of the others, states of files."""

    table: Table
    faults: Mapping[str, SimMATError]
    files: Mapping[Path, FileState]


def _read_part(dataset: Dataset, samples: Sequence[Sample], known: Mapping[Path, FileState]) -> _Part:
    facts: list[Facts] = []
    faults: dict[str, SimMATError] = {}
    files: dict[Path, FileState] = {}
    for sample in samples:
        try:
            states = {path: known.get(path) or files.get(path) or read_state(path) for path in _files(sample)}
            facts.append(read_facts(dataset, sample))
            files |= states
        except SimMATError as error:
            faults[sample.id] = error
    return _Part(Table.of(facts, len(dataset.channels())), faults, files)


def read_facts(dataset: Dataset, sample: Sample) -> Facts:
    """Read one sample, once, and say what training needs to know of it.

    Raises:
        SimMATError: it cannot be used.
    """
    image, found = dataset.read(sample)
    seen = dataset.adapter.transform(image)
    label = dataset.label(sample, image, seen)
    whole = bool(seen.valid.all())
    axes = (1, 2)
    low = seen.data.min(axis=axes) if whole else np.min(seen.data, axis=axes, initial=np.inf, where=seen.valid)
    high = seen.data.max(axis=axes) if whole else np.max(seen.data, axis=axes, initial=-np.inf, where=seen.valid)
    classes = [NO_CLASS if region.class_id is None else region.class_id for region in label.regions]
    areas = [region.area for region in label.regions]
    hidden = len(label.regions) - len(visible_regions(label))
    counts = [*label.size_hw, label.dropped, np.count_nonzero(label.ignore), hidden, bool(repeatable(label))]
    names = {channel.name for channel in seen.channels}
    return Facts(
        np.concatenate([image_moments(seen).packed(), low, high]).astype(np.float64),
        np.asarray(counts, dtype=np.int64),
        np.asarray([classes, areas], dtype=np.int64).reshape(2, -1).T,
        count_stored(dataset.adapter, names, sample.files, image, found.stored),
    )


def _read_samples(
    dataset: Dataset, samples: Sequence[Sample], known: Mapping[Path, FileState], processes: int | None
) -> Iterator[tuple[Sequence[Sample], _Part]]:
    """Yield samples and what was found in them, in their order."""
    chunks = [samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK)]
    count = _processes(len(samples)) if processes is None else processes
    if count <= 1:
        yield from ((chunk, _read_part(dataset, chunk, known)) for chunk in chunks)
        return
    with _pool(count, (dataset, chunks, dict(known))) as pool:
        waiting: deque[Future[_Part]] = deque()
        try:
            for place in range(len(chunks) + 4 * count):  # so many parts wait at most
                if place < len(chunks):
                    waiting.append(pool.submit(_read_chunk, place))
                if place >= 4 * count and waiting:
                    yield chunks[place - 4 * count], waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                f"{dataset.root}: a process that read images was killed, perhaps for want of memory; close other "
                "programs, or look for a damaged file with `simmat data check`"
            ) from None


def _processes(samples: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, samples // _WORTH, _MOST_PROCESSES), 1) if "fork" in get_all_start_methods() else 1


_Work = tuple[Dataset, Sequence[Sequence[Sample]], Mapping[Path, FileState]]
_work: _Work | None = None
"""In a process of the pool: what it reads. It came with the fork, so that a sensor needs no pickle."""


@contextmanager
def _pool(count: int, work: _Work) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=_begin, initargs=(os.getpid(), work))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, work: _Work) -> None:
    """Make a process ready: it leaves Ctrl-C to its parent, ends with it, and computes in one thread."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    with suppress(OSError, AttributeError):  # glibc keeps freed memory: to get it anew for each image takes a quarter
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**25)
        library.mallopt(_M_TRIM_THRESHOLD, 2**29)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _read_chunk(place: int) -> _Part:
    assert _work is not None
    dataset, chunks, known = _work
    return _read_part(dataset, chunks[place], known)

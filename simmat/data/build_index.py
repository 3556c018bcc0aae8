"""Read the samples of a data set once, in several processes.

The row of a sample depends on that sample alone, and rows come in the order of the samples, so the result is the same
for any number of processes.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context

import numpy as np

from simmat.data.copy_paste import repeatable
from simmat.data.dataset import Dataset, Sample
from simmat.data.fingerprint import Bytes, FileState, read_file, read_files
from simmat.data.index_storage import NO_CLASS, Table, row_type
from simmat.data.instances import Label, count_joined, visible_regions
from simmat.data.statistics import image_moments
from simmat.errors import DataError, SimMATError
from simmat.geo import read_georeference
from simmat.threads import usable_cpus
from simmat.types import SensorImage

_CHUNK = 8
"""Samples that a process reads per task."""
_MIN_SAMPLES_PER_PROCESS = 32
_MAX_PROCESSES = 16


@dataclass(frozen=True)
class Part:
    """The result of reading `count` samples: a table of the usable ones, and sample id -> fault of the others."""

    table: Table | None
    faults: Mapping[str, SimMATError]
    count: int


@dataclass(frozen=True)
class _Job:
    """Samples to read, their (N, 16) keys, and the states of files that several samples are windows of."""

    dataset: Dataset
    samples: Sequence[Sample]
    keys: Bytes
    files: Mapping[str, FileState | DataError]

    def read(self, start: int) -> Part:
        """Read the samples of one task."""
        samples = self.samples[start : start + _CHUNK]
        tables: list[Table] = []
        faults: dict[str, SimMATError] = {}
        for key, sample in zip(self.keys[start:], samples, strict=False):
            try:
                tables.append(_read_sample(self.dataset, sample, key, self.files))
            except SimMATError as error:
                faults[sample.id] = error
        return Part(Table.join(tables) if tables else None, faults, len(samples))


def read_samples(
    dataset: Dataset, samples: Sequence[Sample], keys: Bytes, processes: int | None = None
) -> Iterator[Part]:
    """Read samples of a data set with `known_channels`, whose (N, 16) keys are known; yield the parts in order."""
    starts = range(0, len(samples), _CHUNK)
    large = (path for sample in samples if sample.window is not None for path in sample.paths)
    job = _Job(dataset, samples, keys, read_files(large))
    if processes is None:
        processes = min(usable_cpus(), len(samples) // _MIN_SAMPLES_PER_PROCESS, _MAX_PROCESSES)
    if processes <= 1 or "fork" not in get_all_start_methods():
        yield from map(job.read, starts)
        return
    pool = ProcessPoolExecutor(processes, get_context("fork"), initializer=_begin, initargs=(os.getpid(), job))
    try:
        yield from pool.map(_read, starts)
    except BrokenProcessPool:
        raise DataError(
            f"{dataset.root}: a process that read images was killed, perhaps because memory ran out; close other "
            "programs, or look for a damaged file with `simmat data check`"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _read_sample(dataset: Dataset, sample: Sample, key: Bytes, known: Mapping[str, FileState | DataError]) -> Table:
    """Read one sample and return its row, as a table."""
    files: list[FileState] = []
    for path in sample.paths:
        file = known.get(path) or read_file(path)
        if isinstance(file, DataError):
            raise file
        files.append(file)
    image = dataset.image(sample)
    seen = dataset.adapter.transform(image)
    if dataset.is_labelled(sample):
        label = dataset.label(sample, image, seen)
    else:
        label = Label(image.size_hw, (), np.logical_not(seen.valid.any(axis=0)))
    row = np.zeros(1, row_type(len(files), len(seen.channels)))
    row["key"] = key
    row["times"] = [file.times for file in files]
    row["sha256"] = [list(file.sha256) for file in files]
    row["moments"] = image_moments(seen).stacked()
    valid = True if seen.valid.all() else seen.valid  # True is faster
    row["low"] = np.min(seen.data, axis=(1, 2), initial=np.inf, where=valid)
    row["high"] = np.max(seen.data, axis=(1, 2), initial=-np.inf, where=valid)
    row["place"] = _place(sample, image)
    row["height"], row["width"] = label.size_hw
    row["dropped"], row["ignored"] = label.dropped, np.count_nonzero(label.ignore)
    row["hidden"] = len(label.regions) - len(visible_regions(label))
    row["repeatable"] = bool(repeatable(label))
    row["joined"] = count_joined(label) if dataset.card.regions == "classes" else 0
    classes = [NO_CLASS if region.class_id is None else region.class_id for region in label.regions]
    instances = [(0, number, region.area) for number, region in zip(classes, label.regions, strict=True)]
    return Table(row, np.asarray(instances, np.int64).reshape(-1, 3))


def _place(sample: Sample, image: SensorImage) -> tuple[float, float, float, float, float]:
    """Return where an image is on the earth, see `row_type`."""
    found = image.georeference
    if found is None and sample.window is None:
        found = read_georeference(sample.reference)
    if found is None:
        return (math.nan,) * 4 + (0.0,)
    a, b, c, d, e, f = found.transform
    height, width = image.size_hw
    corners = [(c + a * x + b * y, f + d * x + e * y) for x in (0, width) for y in (0, height)]
    east, north = zip(*corners, strict=True)
    system = int.from_bytes(hashlib.sha256(found.crs.encode()).digest()[:6], "big")
    return min(east), min(north), max(east), max(north), float(system)


_job: _Job | None = None
"""What a process of the pool reads. It is inherited by fork, so a sensor need not be picklable."""


def _begin(parent: int, job: _Job) -> None:
    """Set up a process of the pool: ignore Ctrl-C, exit with the parent, compute in one thread."""
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    if "torch" in sys.modules:
        from simmat.nn.device import keep_freed_memory

        sys.modules["torch"].set_num_threads(1)
        keep_freed_memory()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _read(start: int) -> Part:
    assert _job is not None
    return _job.read(start)

"""Read the samples of a data set once, in several processes.

The row of a sample depends on that sample alone, and rows come in the order of the samples, so the result is the same
for any number of processes.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context

import numpy as np

from simmat.data.copy_paste import repeatable
from simmat.data.dataset import Dataset, Sample
from simmat.data.fill_values import count_stored
from simmat.data.fingerprint import Bytes, Times, read_file, read_files
from simmat.data.index_file import NO_CLASS, Table
from simmat.data.instances import Label, count_joined, visible_regions
from simmat.data.statistics import image_moments
from simmat.errors import DataError, SimMATError
from simmat.io.images.georeference import read_georeference
from simmat.threads import usable_cpus
from simmat.types import SensorImage

_CHUNK = 8
"""Samples that a process reads per task."""
_WORTH = 32
"""Fewest samples per process, so that its start pays off."""
_MOST_PROCESSES = 16
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Part:
    """The result of reading some samples."""

    table: Table
    faults: Mapping[str, SimMATError]
    count: int


def read_samples(
    dataset: Dataset, samples: Sequence[Sample], keys: Bytes, processes: int | None = None
) -> Iterator[Part]:
    """Read samples of a data set with `known_channels`, whose (N, 16) keys are known; yield the parts in order."""
    starts = range(0, len(samples), _CHUNK)
    count = _processes(len(samples)) if processes is None else processes
    large = (path for sample in samples if sample.window is not None for path in sample.paths)
    work = dataset, samples, keys, read_files(large)
    if count <= 1:
        yield from (_read_part(work, start) for start in starts)
        return
    pool = ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=_begin, initargs=(os.getpid(), work))
    waiting: deque[Future[Part]] = deque()
    try:
        for start in starts:
            waiting.append(pool.submit(_read_here, start))
            if len(waiting) > 4 * count:  # bounds memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            f"{dataset.root}: a process that read images was killed, perhaps because memory ran out; close other "
            "programs, or look for a damaged file with `simmat data check`"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_Work = tuple[Dataset, Sequence[Sample], Bytes, Mapping[str, tuple[Times, bytes] | DataError]]
"""The data set, samples, their keys, and what `read_files` returned of files that several samples are windows of."""


def _read_part(work: _Work, start: int) -> Part:
    dataset, samples, keys, known = work
    tables = [Table.empty(dataset)]
    faults: dict[str, SimMATError] = {}
    chunk = samples[start : start + _CHUNK]
    for key, sample in zip(keys[start:], chunk, strict=False):
        try:
            tables.append(_read_sample(dataset, sample, key, known))
        except SimMATError as error:
            faults[sample.id] = error
    return Part(Table.join(tables), faults, len(chunk))


def _read_sample(
    dataset: Dataset, sample: Sample, key: Bytes, known: Mapping[str, tuple[Times, bytes] | DataError]
) -> Table:
    """Read one sample and return its row, as a table."""
    files = []
    for path in sample.paths:
        file = known.get(path) or read_file(path)
        if isinstance(file, DataError):
            raise file
        files.append(file)
    image, found = dataset.read(sample)
    seen = dataset.adapter.transform(image)
    if dataset.is_labelled(sample):
        label = dataset.label(sample, image, seen)
    else:
        label = Label(image.size_hw, (), np.logical_not(seen.valid.any(axis=0)))
    whole = bool(seen.valid.all())
    axes = (1, 2)
    low = seen.data.min(axis=axes) if whole else np.min(seen.data, axis=axes, initial=np.inf, where=seen.valid)
    high = seen.data.max(axis=axes) if whole else np.max(seen.data, axis=axes, initial=-np.inf, where=seen.valid)
    classes = [NO_CLASS if region.class_id is None else region.class_id for region in label.regions]
    areas = [region.area for region in label.regions]
    hidden = len(label.regions) - len(visible_regions(label))
    joined = count_joined(label) if dataset.card.regions == "classes" else 0
    counts = [*label.size_hw, label.dropped, np.count_nonzero(label.ignore), hidden, bool(repeatable(label)), joined]
    stored = count_stored(
        dataset.adapter, {channel.name for channel in seen.channels}, sample.files, image, found.stored
    )
    return Table(
        keys=key[None],
        times=np.asarray([[number for times, _ in files for number in times]], np.int64),
        digests=np.frombuffer(b"".join(digest for _, digest in files), np.uint8)[None],
        numbers=np.concatenate([image_moments(seen).packed(), low, high]).astype(np.float64)[None],
        places=np.asarray([_place(sample, image)], np.float64),
        counts=np.asarray([counts], np.int64),
        ends=np.asarray([[len(areas), len(stored)]], np.int64),
        instances=np.asarray([classes, areas], np.int64).reshape(2, -1).T,
        stored=stored,
    )


def _place(sample: Sample, image: SensorImage) -> tuple[float, float, float, float, float]:
    """Return where an image is on the earth, see `Table`."""
    found = image.georeference
    if found is None and sample.window is None:
        with suppress(ImportError):  # rasterio comes with the sensors that need it
            found = read_georeference(sample.reference)
    if found is None:
        return (math.nan,) * 4 + (0.0,)
    a, b, c, d, e, f = found.transform
    height, width = image.size_hw
    corners = [(c + a * x + b * y, f + d * x + e * y) for x in (0, width) for y in (0, height)]
    east, north = zip(*corners, strict=True)
    system = int.from_bytes(hashlib.sha256(found.crs.encode()).digest()[:6], "big")
    return min(east), min(north), max(east), max(north), float(system)


def _processes(samples: int) -> int:
    return max(min(usable_cpus(), samples // _WORTH, _MOST_PROCESSES), 1) if "fork" in get_all_start_methods() else 1


_work: _Work | None = None
"""What a process of the pool reads. It is inherited by fork, so a sensor need not be picklable."""


def _begin(parent: int, work: _Work) -> None:
    """Set up a process of the pool: ignore Ctrl-C, exit with the parent, compute in one thread."""
    global _work
    _work = work
    gc.freeze()  # a collection would write to memory shared with the parent, and so copy it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    with suppress(OSError, AttributeError):  # glibc keeps freed memory, which saves a quarter of the time
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**25)
        library.mallopt(_M_TRIM_THRESHOLD, 2**29)


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _read_here(start: int) -> Part:
    assert _work is not None
    return _read_part(_work, start)

"""Read the samples of a data set once, in several processes.

The facts about a sample depend on that sample alone, and come in the order of the samples, so the index is the same for
any number of processes.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from multiprocessing import get_context

import numpy as np

from simmat.data.dataset import Dataset, Sample
from simmat.data.fingerprint import file_digest, file_times, files_of
from simmat.data.index_storage import NO_CLASS, IndexTable, row_type
from simmat.data.instances import Label, count_joined, visible_regions
from simmat.data.statistics import image_moments
from simmat.errors import DataError, SimMATError
from simmat.geo import read_georeference
from simmat.threads import START_METHOD, usable_cpus
from simmat.types import SensorImage

_CHUNK = 8
"""Samples that a process reads per task."""
_MIN_SAMPLES_PER_PROCESS = 32
_MAX_PROCESSES = 16


def read_samples(
    dataset: Dataset, samples: Sequence[Sample], processes: int | None = None
) -> Iterator[IndexTable | SimMATError]:
    """Read samples of a data set with `known_channels`; yield the row of each, in order, or why it cannot be used."""
    digest_of = lru_cache(maxsize=64)(file_digest)  # windows and frames share a file
    read = partial(_read, dataset, samples, lambda path: digest_of(files_of(path)))
    if processes is None:
        processes = min(usable_cpus(), len(samples) // _MIN_SAMPLES_PER_PROCESS, _MAX_PROCESSES)
    if processes <= 1 or START_METHOD != "fork":
        yield from map(read, range(len(samples)))
        return
    # What the workers read is inherited by fork, so a sensor need not be picklable.
    with ProcessPoolExecutor(processes, get_context("fork"), _start_worker, (os.getpid(), read)) as pool:
        try:
            yield from pool.map(_read_in_worker, range(len(samples)), chunksize=_CHUNK)
        except BrokenProcessPool:
            raise DataError(
                f"{dataset.root}: a process that read images was killed, perhaps because memory ran out; close other "
                "programs, or look for a damaged file with `simmat data check`"
            ) from None


def _read(
    dataset: Dataset, samples: Sequence[Sample], digest_of: Callable[[str], bytes], number: int
) -> IndexTable | SimMATError:
    try:
        return _row_of(dataset, samples[number], digest_of)
    except SimMATError as error:
        return error


def _row_of(dataset: Dataset, sample: Sample, digest_of: Callable[[str], bytes]) -> IndexTable:
    """Read one sample and return its row, all but its key, as a table."""
    times, digests = file_times(sample.paths), [list(digest_of(path)) for path in sample.paths]
    image = dataset.image(sample)
    seen = dataset.adapter.transform(image)
    if dataset.is_labelled(sample):
        label = dataset.label(sample, image, seen)
    else:
        label = Label(image.size_hw, (), np.logical_not(seen.valid.any(axis=0)))
    row = np.zeros(1, row_type(len(sample.paths), len(seen.channels)))
    row["times"], row["sha256"] = times, digests
    row["moments"] = image_moments(seen).stacked()
    row["low"] = np.min(seen.data, axis=(1, 2), initial=np.inf, where=seen.valid)
    row["high"] = np.max(seen.data, axis=(1, 2), initial=-np.inf, where=seen.valid)
    row["place"] = _place(sample, image)
    row["height"], row["width"] = label.size_hw
    row["dropped"], row["ignored"] = label.dropped, np.count_nonzero(label.ignore)
    row["hidden"] = len(label.regions) - len(visible_regions(label))
    row["joined"] = count_joined(label) if dataset.card.regions == "classes" else 0
    facts = [(0, region.class_id, region.area, region.object_id) for region in label.regions]
    instances = [[NO_CLASS if number is None else number for number in of_region] for of_region in facts]
    return IndexTable(row, np.asarray(instances, np.int64).reshape(-1, 4))


def _place(sample: Sample, image: SensorImage) -> tuple[float, float, float, float, float]:
    """Return where an image is on the earth, see `row_type`."""
    found = image.georeference
    if found is None and sample.window is None:
        found = read_georeference(sample.reference)
    if found is None:
        return (math.nan,) * 4 + (0.0,)
    height, width = image.size_hw
    corners = found.to_map(np.array([(x, y) for x in (0, width) for y in (0, height)], np.float64))  # (4, 2)
    system = int.from_bytes(hashlib.sha256(found.crs.encode()).digest()[:6], "big")
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist(), float(system))


_read_number: Callable[[int], IndexTable | SimMATError]
"""What a worker calls with the number of a sample."""


def _start_worker(parent: int, read: Callable[[int], IndexTable | SimMATError]) -> None:
    """Set up a worker: ignore Ctrl-C, exit with the parent, compute in one thread."""
    global _read_number
    _read_number = read
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _read_in_worker(number: int) -> IndexTable | SimMATError:
    return _read_number(number)

"""Read the samples of a data set once, in several processes.

The facts about a sample depend on that sample alone, and come in the order of the samples, so the index is the same for
any number of processes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

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

_PREFETCHED = 8
"""Samples of each process that may be waiting for those before them."""
_MIN_SAMPLES_PER_PROCESS = 32
_MAX_PROCESSES = 16


def read_samples(
    dataset: Dataset, samples: Sequence[Sample], advance: Callable[[int], object], processes: int | None = None
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

    if processes is None:
        processes = min(usable_cpus(), len(samples) // _MIN_SAMPLES_PER_PROCESS, _MAX_PROCESSES)
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

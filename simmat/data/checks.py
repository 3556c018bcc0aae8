"""What is in a whole data set and what is wrong with it, as its index says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset
from simmat.data.fills import StoredNumbers
from simmat.data.fingerprint import shared_images
from simmat.data.index import read_index
from simmat.data.index_file import NO_CLASS, Facts
from simmat.data.report import ChannelReport, DataReport, SplitReport
from simmat.data.samples import SPLITS, Sample
from simmat.data.statistics import Moments
from simmat.types import Channel


def check_dataset(dataset: Dataset, progress: Callable[[int], None] | None = None) -> DataReport:
    """Look at every image and label; what did not change since it was read last is not read again.

    Args:
        dataset: what to read.
        progress: called with 1 after every sample.

    Returns:
        What is in each split; `problems` are what training or scoring would stumble over, `notes` what
        a person should look at.
    """
    index = read_index(dataset, progress)
    dataset = index.dataset
    tallies = {name: _Tally(dataset, name, dataset.channels()) for name in SPLITS}
    for sample in dataset.samples:
        tally = tallies[sample.split]
        tally.samples += 1
        if sample.id not in index.faults:
            tally.add(sample, index.facts(sample))
    used = [tally for tally in tallies.values() if tally.samples]
    problems = [str(fault) for fault in index.faults.values()]
    problems += [problem for tally in used for problem in tally.problems()]
    digests = {path: state.digest for path, state in index.files.items()}
    problems += shared_images(dataset.samples, digests)
    return DataReport(
        root=str(dataset.root),
        regions=dataset.card.regions,
        split_note=dataset.split_note,
        splits=tuple(tally.report() for tally in used),
        problems=tuple(problems),
        notes=tuple(_notes(dataset, used)),
        class_names=dataset.class_names,
        unlabelled=tuple(sample.reference.relative_to(dataset.root).as_posix() for sample in dataset.unlabelled),
    )


@dataclass
class _Tally:
    """What was counted in one split."""

    dataset: Dataset
    name: str
    channels: tuple[Channel, ...]
    samples: int = 0
    read: int = 0
    without_region: list[str] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    classes: Counter[int] = field(default_factory=Counter)
    dropped: int = 0
    hidden: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: int = 0
    ignored: int = 0

    def __post_init__(self) -> None:
        count = len(self.channels)
        self.low, self.high = np.full(count, np.inf), np.full(count, -np.inf)
        self.total, self.valid = np.zeros(count), np.zeros(count)
        self.stored = StoredNumbers(self.dataset.adapter)

    def add(self, sample: Sample, facts: Facts) -> None:
        """Count one sample."""
        self.read += 1
        height, width, dropped, ignored, hidden, _ = facts.counts.tolist()
        self.sizes[height, width] += 1
        self.pixels += height * width
        self.ignored += ignored
        self.dropped += dropped
        self.hidden += hidden
        if not len(facts.instances):
            self.without_region.append(sample.id)
        self.areas += facts.instances[:, 1].tolist()
        self.classes.update(number for number in facts.instances[:, 0].tolist() if number != NO_CLASS)
        self.stored.add(facts.stored)
        split = 2 * len(self.channels)
        moments = Moments.unpacked(facts.numbers[:-split])
        low, high = facts.numbers[-split:].reshape(2, -1)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.total += np.diag(moments.mean) * np.diag(moments.count)
        self.valid += np.diag(moments.count)

    def problems(self) -> Iterator[str]:
        """Say what would stop training or scoring on this split."""
        if self.read and not self.areas:
            card = self.dataset.card
            yield (
                f"{self.name}: no sample has a region of at least {card.smallest}; "
                "check the masks, --regions and --min-region"
            )
        for channel, least, most in zip(self.channels, self.low, self.high, strict=True):
            if self.read and least > most:
                yield f"{self.name}: channel {channel.name!r} has no valid pixel; check --nodata"
        if self.name == "train":  # statistics are of training alone
            yield from self.constants()

    def constants(self) -> Iterator[str]:
        """Say which channels have one value."""
        for channel, least, most in zip(self.channels, self.low, self.high, strict=True):
            if least == most:
                yield f"{self.name}: channel {channel.name!r} is {least:g} {channel.unit} everywhere"

    def report(self) -> SplitReport:
        """Sum up."""
        mean = self.total / np.maximum(self.valid, 1)
        return SplitReport(
            name=self.name,
            samples=self.samples,
            without_region=tuple(self.without_region),
            regions=len(self.areas),
            dropped=self.dropped,
            area_px=_spread(self.areas),
            classes=dict(sorted(self.classes.items())),
            sizes_hw=dict(self.sizes.most_common()),
            ignored=self.ignored / max(self.pixels, 1),
            channels=tuple(
                ChannelReport(
                    name=channel.name,
                    unit=channel.unit,
                    low=_finite(self.low[index]),
                    mean=_finite(mean[index]) if self.valid[index] else None,
                    high=_finite(self.high[index]),
                    invalid=1 - float(self.valid[index]) / max(self.pixels, 1),
                )
                for index, channel in enumerate(self.channels)
            ),
        )


def _notes(dataset: Dataset, tallies: Sequence[_Tally]) -> Iterator[str]:
    for tally in tallies:
        if tally.dropped > len(tally.areas):
            yield (
                f"{tally.name}: {tally.dropped} regions are smaller than {dataset.card.smallest} and dropped, "
                f"{len(tally.areas)} stay"
            )
        if tally.hidden:
            yield f"{tally.name}: {tally.hidden} regions lie wholly where nothing can be scored (ignored or invalid)"
        if tally.name != "train":
            yield from tally.constants()
        unnamed = sorted(set(tally.classes) - set(dataset.class_names)) if dataset.class_names else []
        if unnamed:
            yield f"{tally.name}: classes without a name in the card: {unnamed}"
        yield from tally.stored.hints(tally.name, dataset.card.nodata)


def _spread(areas: Sequence[int]) -> tuple[int, int, int] | None:
    """Smallest, median and largest."""
    if not areas:
        return None
    ordered: npt.NDArray[np.int64] = np.sort(np.asarray(areas, dtype=np.int64))
    return int(ordered[0]), int(ordered[len(ordered) // 2]), int(ordered[-1])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

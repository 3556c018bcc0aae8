"""Reading a whole data set once, to say what is in it and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset
from simmat.data.fills import StoredNumbers
from simmat.data.fingerprint import file_digests
from simmat.data.regions import Label, visible_regions
from simmat.data.report import ChannelReport, DataReport, SplitReport
from simmat.data.samples import SPLITS, Sample
from simmat.data.shared import shared_images
from simmat.errors import DataError, SimMATError, all_problems
from simmat.types import Channel, SensorImage


def check_dataset(dataset: Dataset, progress: Callable[[int], None] | None = None) -> DataReport:
    """Read every image and label once.

    Args:
        dataset: what to read.
        progress: called with 1 after every sample.

    Returns:
        What is in each split; `problems` are what training or scoring would stumble over, `notes` what
        a person should look at.
    """
    samples = dataset.samples
    dataset, problems = _with_readable_first(dataset)
    tallies = {name: _Tally(dataset, name, dataset.channels()) for name in SPLITS}
    for sample in dataset.samples:
        try:
            tallies[sample.split].add(sample)
        except SimMATError as error:
            problems.append(str(error))
        if progress is not None:
            progress(1)
    used = [tally for tally in tallies.values() if tally.samples]
    problems += [problem for tally in used for problem in tally.problems()]
    digests, _ = file_digests(sample.reference for sample in samples)  # reading has named what cannot be read
    problems += shared_images(samples, digests)
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


def _with_readable_first(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """Leave out the samples that the others are compared with and that cannot be read, so that the rest is checked."""
    problems: list[str] = []
    while True:
        try:
            dataset.channels()
            return dataset, problems
        except SimMATError as error:
            problems.append(str(error))
            rest = tuple(sample for sample in dataset.samples if sample is not dataset.first)
            if not rest:
                raise DataError(all_problems(f"{dataset.root}: no image can be read:", problems)) from None
            dataset = replace(dataset, samples=rest)


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
        self.stored = StoredNumbers(self.dataset.adapter, frozenset(channel.name for channel in self.channels))

    def add(self, sample: Sample) -> None:
        """Read and count one sample."""
        self.samples += 1
        image, found = self.dataset.read(sample)
        label = self.dataset.label(sample, image)
        self.read += 1
        self.sizes[label.size_hw] += 1
        self.stored.add(sample.files, image, found)
        self._add_label(sample, label)
        self._add_image(self.dataset.adapter.transform(image))

    def _add_label(self, sample: Sample, label: Label) -> None:
        if not label.regions:
            self.without_region.append(sample.id)
        self.areas += [region.area for region in label.regions]
        self.classes.update(region.class_id for region in label.regions if region.class_id is not None)
        self.dropped += label.dropped
        self.pixels += label.ignore.size
        self.ignored += int(np.count_nonzero(label.ignore))
        self.hidden += len(label.regions) - len(visible_regions(label))

    def _add_image(self, image: SensorImage) -> None:
        axes = (1, 2)
        self.low = np.minimum(self.low, np.min(image.data, axis=axes, initial=np.inf, where=image.valid))
        self.high = np.maximum(self.high, np.max(image.data, axis=axes, initial=-np.inf, where=image.valid))
        self.total += np.sum(image.data, axis=axes, dtype=np.float64, where=image.valid)
        self.valid += image.valid.sum(axis=axes)

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

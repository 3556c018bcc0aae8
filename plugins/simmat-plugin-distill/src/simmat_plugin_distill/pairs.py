"""Images of the same scenes by the teacher's and the student's sensor, brought onto the student's pixel grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from simmat_plugin_align.shift import WARN_PX, shift_between

from simmat.config import TrainConfig
from simmat.data.card import DataCard, load_card
from simmat.data.formats.coco import annotation_files, read_coco
from simmat.data.formats.folders import find_samples
from simmat.data.formats.manifest import MANIFEST_FILE, read_manifest
from simmat.data.samples import (
    Sample,
    decide_splits,
    problems_of_file_names,
    write_splits,
)
from simmat.errors import DataError, all_problems, few_of
from simmat.io.paths import require_folder
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import (
    ModalityAdapter,
    channel_spans,
    load_sample,
    options_of,
    with_data_card,
)
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.normalize import describe
from simmat.sensors.options import modality_parts, options_by_sensor
from simmat.terminal import echo
from simmat.types import SensorImage, same_channels

SMALLEST_SHARE = 0.0005
"""Smallest mask of a teacher as a share of the image, where the card names none."""
REFUSE_PX = 10.0
"""Median shift above which `report_alignment` refuses."""

PathsBySource = Mapping[str, Path]


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes:
        root: the folder.
        samples: the files of both sensors, each with a split.
        teacher: the teacher's sensor.
        student: the student's sensor.
        teacher_sources: name of each source of the teacher's sensor -> its name in the samples.
        student_sources: likewise for the student's.
        card: of the student's images with the teacher's masks.
        aligned: the student's first sensor and the teacher's on its pixel grid; None if both have one grid.
    """

    root: Path
    samples: tuple[Sample, ...]
    teacher: ModalityAdapter
    student: ModalityAdapter
    teacher_sources: Mapping[str, str]
    student_sources: Mapping[str, str]
    card: DataCard
    aligned: ComposedModality | None = None

    def teacher_files(self, sample: Sample) -> PathsBySource:
        """Return source -> file of what the teacher sees."""
        return {own: sample.files[name] for own, name in self.teacher_sources.items()}

    def student_files(self, sample: Sample) -> PathsBySource:
        """Return source -> file of what the student sees."""
        return {own: sample.files[name] for own, name in self.student_sources.items()}

    def teacher_image(self, sample: Sample) -> SensorImage:
        """Load what the teacher sees, on the student's pixel grid.

        Raises:
            DataError: a file cannot be read, or is not of the size that its alignment is for.
        """
        files = self.teacher_files(sample)
        if self.aligned is None:
            return load_sample(self.teacher, files)
        of_both = [*self.student_files(sample).values()]
        of_both = [*of_both[: len(self.student.sensors()[0].sources)], *files.values()]
        names = self.aligned.source_names()
        image = load_sample(self.aligned, dict(zip(names, of_both, strict=True)))
        _, (_, own) = channel_spans(self.aligned, image.channels)
        seen = image.select(own)
        channels = []
        for channel in seen.channels:
            name = channel.name.removeprefix(f"{self.teacher.name}.")
            channels.append(replace(channel, name=name))
        origin = str(next(iter(files.values())))
        return replace(seen, channels=tuple(channels), origin=origin)


def joined_sensor(
    config: TrainConfig, teacher: str, registry: Registry
) -> tuple[ModalityAdapter, DataCard]:
    """Return the sensor whose files a sample has, those of the teacher first, and the data card that it is fitted to.

    A sensor that both have counts once.
    """
    names = [*modality_parts(teacher), *modality_parts(config.modality)]
    student = registry.modality(config.modality, config.modality_options)
    options = options_by_sensor(
        config.modality_options, [part.name for part in student.sensors()]
    )
    joined = registry.modality("+".join(dict.fromkeys(names)), options)
    defaults = {"regions": "instances", "min_region_share": SMALLEST_SHARE}
    card = load_card(config.data, config.card_overrides(), defaults=defaults)
    return with_data_card(joined, card.model_dump()), card


def open_pairs(
    config: TrainConfig, teacher: ModalityAdapter, registry: Registry
) -> Pairs:
    """Find the pairs in a folder; splits that it does not name are drawn and written down as by a training.

    Raises:
        DataError: files lack a partner, ids are no names of files, or there are too few pairs for training and
            validation; lists all problems.
        ConfigError: names or options of sensors are wrong, or the data card is.
    """
    root = config.data
    require_folder(
        root,
        "a folder of pairs has images/SOURCE/ID for each sensor, or a manifest.csv",
    )
    joined, card = joined_sensor(config, teacher.name, registry)
    student = registry.modality(
        config.modality, config.modality_options, channels=config.channels
    )
    own = {part.name for part in student.sensors()}
    options = {
        name: values for name, values in options_of(joined).items() if name in own
    }
    of_labels: dict[str, object] = {
        "ignore": None,
        "zero_means": "unlabelled",
        "class_names": {},
        "class_attribute": None,
    }
    others = {"regions": "instances", "nodata": None, "modality_options": options}
    notes = {"notes": "Masks that a teacher gave, not checked by anyone."}
    card = card.model_copy(update={**of_labels, **others, **notes})
    if annotations := annotation_files(root):
        samples, split_source = (
            read_coco(root, joined.sources, annotations)[0],
            "the COCO annotations",
        )
    elif (root / MANIFEST_FILE).exists():
        samples, split_source = (
            read_manifest(root, joined.sources, masks=False),
            MANIFEST_FILE,
        )
    else:
        samples, split_source = (
            find_samples(root, joined.sources, masks=False),
            "the folders of images/",
        )
    if problems := list(problems_of_file_names(one.id for one in samples)):
        raise DataError(all_problems(f"{root}: ids that cannot be used:", problems))
    paired, _, new_splits = decide_splits(root, samples, split_source)
    if lacking := [
        name
        for name in ("train", "val")
        if name not in {sample.split for sample in paired}
    ]:
        raise DataError(
            f"{root}: no pair is in {' and '.join(lacking)}; at least 3 make train, val and test"
        )
    if warning := write_splits(root, new_splits):
        echo(warning, err=True)
    student = with_data_card(student, card.model_dump())
    sources = _sources(teacher, joined), _sources(student, joined)
    aligned = _aligned(student, teacher, card)
    if len(student.sensors()) == 1:  # its images are on its own grid
        card = card.model_copy(update={"alignment": {}})
    return Pairs(root, paired, teacher, student, *sources, card, aligned)


def _aligned(
    student: ModalityAdapter, teacher: ModalityAdapter, card: DataCard
) -> ComposedModality | None:
    """Return the student's first sensor with the teacher's, which the card's alignments bring onto its pixel grid."""
    first = student.sensors()[0]
    if not card.alignment or teacher.sensors()[0].name == first.name:
        return None
    return ComposedModality([first, teacher], alignments=card.alignment)


def _sources(sensor: ModalityAdapter, joined: ModalityAdapter) -> dict[str, str]:
    """Return the name of each source of a sensor -> its name in a composition."""
    names = iter(joined.source_names())
    by_sensor = {
        part.name: [next(names) for _ in part.sources] for part in joined.sensors()
    }
    places = (name for part in sensor.sensors() for name in by_sensor[part.name])
    return dict(zip(sensor.source_names(), places, strict=True))


def check_pairs(pairs: Pairs) -> None:
    """Raise DataError with all pairs whose images do not lie on each other, or of which the student cannot learn."""
    problems, channels = [], None
    for sample in pairs.samples:
        image = load_sample(pairs.student, pairs.student_files(sample))
        channels = channels or image.channels
        size_hw = image.size_hw
        if pairs.aligned is None:
            files = pairs.teacher_files(sample)
            size_hw = (
                pairs.teacher.window_size(files)
                or load_sample(pairs.teacher, files).size_hw
            )
        elif problem := _alignment_problem(pairs, sample):
            problems.append(problem)
            continue
        if size_hw != image.size_hw:
            first, second = (
                f"{width}x{height}" for height, width in (size_hw, image.size_hw)
            )
            problems.append(
                f"{sample.id!r}: {first} of {pairs.teacher.name}, {second} of {pairs.student.name} (width x height); "
                "register them onto one pixel grid, or state by `simmat align` where they lie on each other"
            )
        elif not image.valid.any():
            problems.append(
                f"{sample.id!r}: no pixel of {pairs.student.name} holds a measurement; remove this pair"
            )
        elif not same_channels(image.channels, channels):
            found, others = describe(image.channels), describe(channels)
            problems.append(
                f"{sample.id!r}: its channels are {found}, those of {pairs.samples[0].id!r} are {others}"
            )
    if problems:
        raise DataError(
            all_problems(f"{pairs.root}: some pairs cannot be used:", problems)
        )


def _alignment_problem(pairs: Pairs, sample: Sample) -> str:
    """Return why the teacher's image cannot be brought onto the student's; "" if it can."""
    try:
        seen = pairs.teacher_image(sample)
    except DataError as error:
        return str(error)
    if seen.valid.any():
        return ""
    return (
        f"{sample.id!r}: by the alignment of the data card, no pixel of {pairs.teacher.name} lies on "
        f"{pairs.student.name}; correct it, or remove this pair"
    )


def report_alignment(pairs: Pairs) -> str:
    """Return what is known of the shifts of all pairs, with a warning if they are large.

    Raises:
        DataError: half of the pairs or more are shifted by more than `REFUSE_PX`.
    """
    found: dict[str, float] = {}
    for sample in pairs.samples:
        first = pairs.teacher_image(sample)
        second = load_sample(pairs.student, pairs.student_files(sample))
        found[sample.id] = float(np.hypot(*shift_between(first, second)))
    shifts = list(found.values())
    median, most = float(np.median(shifts)), float(np.quantile(shifts, 0.9))
    text = f"shift of {len(found)} pairs: median {median:.1f} px, 90 % within {most:.1f} px"
    far = sorted(
        (name for name in found if found[name] > REFUSE_PX),
        key=lambda name: -found[name],
    )
    listed = few_of([f"{name} ({found[name]:.0f} px)" for name in far])
    if median > REFUSE_PX:
        raise DataError(
            f"{pairs.root}: {text}; the pairs are not registered: {listed}. Register them, or state by `simmat align` "
            "where they lie on each other"
        )
    if median > WARN_PX:
        text += (
            f"\nWarning: more than {WARN_PX:g} px, so masks do not lie on the objects that the student sees; "
            "register them"
        )
    if far:  # 18 of 221 registered pairs of roads have too little in common to tell
        text += f"\nWarning: check these pairs, which seem to be shifted: {listed}"
    return text

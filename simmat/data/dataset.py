"""Open a data set on disk, and read the images and labels of its samples."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simmat.data.augment import cut_label
from simmat.data.card import DataCard, load_card
from simmat.data.crops import divide_blocks, divide_images
from simmat.data.formats.coco import (
    ANNOTATIONS,
    CocoLabels,
    annotation_files,
    read_coco,
)
from simmat.data.formats.folders import IMAGES, MASKS, find_samples, unlabelled_samples
from simmat.data.formats.frames import FRAMES
from simmat.data.formats.manifest import (
    MANIFEST_FILE,
    Arrays,
    read_manifest,
    write_arrays,
)
from simmat.data.instances import (
    Annotation,
    check_equal_size,
    class_map,
    label_from_mask,
    make_label,
    object_map,
    read_mask,
)
from simmat.data.predicted import mark_predicted, predicted_note
from simmat.data.samples import SPLITS, Sample, decide_splits, divide_into_folds
from simmat.errors import ConfigError, DataError
from simmat.geo import PolygonSource, geo_backend
from simmat.io.paths import require_folder
from simmat.sensors.adapter import ModalityAdapter, load_sample, with_data_card
from simmat.sensors.normalize import describe
from simmat.types import Channel, SensorImage, same_channels

__all__ = ["Dataset", "Sample", "open_dataset", "open_images"]


@dataclass(frozen=True)
class Dataset:
    """Samples of one sensor with their ground truth; files are read on demand.

    Attributes:
        adapter: the sensor, configured by the card.
        samples: all samples, each with a split.
        split_note: a sentence for the user on where the splits come from.
        coco: the labels if a COCO file holds them, else None.
        unlabelled: images without a mask, which neither training nor evaluation uses.
        polygons: the labels of masks that are polygons; None if there are none.
        by_hash: True if splits were chosen by the hash of the ids.
        new_splits: id -> split that training writes down, see `simmat.data.samples.write_splits`.
        known_channels: channels of the first image, as loaded and after the transform; None to read them from it.
        part: the split that it is limited to; "" for the whole data set.
    """

    root: Path
    adapter: ModalityAdapter
    card: DataCard
    samples: tuple[Sample, ...]
    split_note: str
    coco: CocoLabels | None = field(default=None, repr=False)
    unlabelled: tuple[Sample, ...] = field(default=(), repr=False)
    polygons: PolygonSource | None = field(default=None, repr=False)
    by_hash: bool = False
    new_splits: Mapping[str, str] = field(default_factory=dict, repr=False)
    known_channels: tuple[tuple[Channel, ...], tuple[Channel, ...]] | None = field(
        default=None, repr=False
    )
    part: str = field(default="", repr=False)

    def __repr__(self) -> str:
        """Return the folder, the sensor and the size of each split."""
        counts = Counter(sample.split for sample in self.samples)
        splits = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
        return f"<Dataset {self.root} of {self.adapter.name}: {splits}>"

    @classmethod
    def from_arrays(
        cls,
        images: Arrays,
        masks: Arrays,
        *,
        split: Sequence[str] | Mapping[str, int] | None = None,
        folder: Path | str | None = None,
        adapter: ModalityAdapter | None = None,
        **card: object,
    ) -> Dataset:
        """Make a data set from arrays, which are written to a folder.

        Args:
            images: each (H, W) or (P, H, W), in the numbers of the sensor's files, whose unit its options state;
                `image` returns them in the channels' units, as `Predictor.set_image` takes them.
            masks: each (H, W) of whole numbers, 0 for the background.
            split: "train", "val" or "test" for each image, or the number of images of each split, in this order; None
                chooses by hash.
            folder: where to write them; needed to resume a training. None takes a temporary folder, which is removed
                with the data set.
            adapter: the sensor; None reads the planes as stored, and `train(modality=)` sets the sensor.
            card: fields of the data card; `regions` is "instances" by default.

        Raises:
            ValueError: images, masks and split do not match.
            ConfigError: the card is invalid.
            OutputError: the folder is not empty, or cannot be written.
        """
        from simmat.sensors.builtin import Raster

        if folder is not None:
            root = Path(folder)
        else:
            root = Path(tempfile.mkdtemp(prefix="simmat-arrays-"))
        write_arrays(
            root, images, masks, split=split, card={"regions": "instances", **card}
        )
        dataset = open_dataset(root, adapter or Raster())
        if folder is None:
            # parts of the data set have it too
            weakref.finalize(dataset.card, shutil.rmtree, root, ignore_errors=True)
        return dataset

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample as arrays, for `torch.utils.data.DataLoader`; images of several sizes need a `collate_fn`.

        Returns:
            "image": (C, H, W) float32 after the sensor's transform, in the units of `channels()`, 0 where invalid;
            "valid": (C, H, W) bool; "objects": (H, W) int64, the number of the object at each pixel from 1 (its label
            value in a sequence, where a track has one), 0 for none, -1 without ground truth; "classes": (H, W) int64,
            likewise with label values; "id": the sample's.

        Raises:
            DataError: a file cannot be read.
        """
        sample = self.samples[index]
        image = self.image(sample)
        seen = self.adapter.transform(image)
        label = self.label(sample, image, seen)
        objects = object_map(label)
        ids = [region.object_id or 0 for region in label.regions]
        # 0 and -1 mean others
        if sample.sequence and all(number > 0 for number in ids):
            objects = np.array([0, *ids], np.int64)[objects]
        maps = {"objects": objects, "classes": class_map(label)}
        maps = {
            name: np.where(label.ignore, -1, values) for name, values in maps.items()
        }
        return {
            "image": np.where(seen.valid, seen.data, np.float32(0)),
            "valid": seen.valid,
            **maps,
            "id": sample.id,
        }

    def subset(self, name: str) -> Dataset:
        """Return the data set with only the samples of "train", "val" or "test"; DataError if there are none."""
        return replace(
            self, samples=self.split(name), known_channels=self._reference, part=name
        )

    def with_fold(self, number: int, count: int) -> Dataset:
        """Return the data set with part `number` of `count` of train and val as val, see `divide_into_folds`.

        Raises:
            DataError: there are fewer images or sequences than parts.
        """
        samples = divide_into_folds(self.samples, number, count)
        note = f"Fold {number} of {count} of the images of train and val validates, and the others train."
        return replace(
            self, samples=samples, split_note=f"{self.split_note} {note}".strip()
        )

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of "train", "val" or "test"; raise DataError if there are none.

        Val and test leave out the samples whose labels a model made.
        """
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}; splits are {', '.join(SPLITS)}")
        found = self._used(name)
        if not found:
            counts = Counter(
                sample.split for sample in self.samples if not sample.left_out
            )
            have = ", ".join(
                f"{counts[split]} {split}" for split in SPLITS if counts[split]
            )
            if self.card.crop:
                parts = "blocks of a smaller --crop"
            else:
                parts = "images, or --crop N for large ones,"
            parts = "sequences, which no split cuts," if self.sequences else parts
            if any(sample.predicted for sample in self.samples):
                raise DataError(
                    f"{self.root}: the {name} split is empty; the data set has {have}. {self.predicted_note} Label at "
                    f"least 3 {parts} or confirm what the model found, in `simmat annotate`"
                )
            raise DataError(
                f"{self.root}: the {name} split is empty; the data set has {have}. At least 3 labelled {parts} make "
                "train, val and test; or name the split of each image in manifest.csv"
            )
        return found

    def has_split(self, name: str) -> bool:
        """Return whether `split` returns samples."""
        return bool(self._used(name))

    def _used(self, name: str) -> tuple[Sample, ...]:
        return tuple(
            sample
            for sample in self.samples
            if sample.split == name and not sample.left_out
        )

    @cached_property
    def predicted_note(self) -> str:
        """Of how many images a model made the labels, and what follows; "" if of none."""
        return predicted_note(self.root, self.samples, self.unlabelled)

    def image(self, sample: Sample) -> SensorImage:
        """Read one image, or its window, in physical units, with nodata marked invalid.

        Raises:
            DataError: a file cannot be read, or its channels are not those of the data set's first image.
        """
        image = load_sample(self.adapter, sample.files, sample.window)
        expected = self.loaded_channels
        if not same_channels(image.channels, expected):
            first = self.first.reference.name
            raise DataError(
                f"{sample.reference}: its channels are {describe(image.channels)}; those of {first} are "
                f"{describe(expected)}. All images of a data set must have the same channels"
            )
        return image

    def label(
        self,
        sample: Sample,
        image: SensorImage | None = None,
        seen: SensorImage | None = None,
    ) -> Annotation:
        """Read the ground truth of one sample, in its window.

        Args:
            image: its image. With it, pixels that are invalid in all channels after the transform are ignored, and
                sizes are compared.
            seen: `adapter.transform(image)`, if already computed.

        Raises:
            DataError: the mask cannot be read, or has another size than the image.
        """
        if self.polygons is not None and sample.has_polygons:
            label = self.polygons.label(sample, self.card)
        elif (path := sample.mask) is not None:
            mask = read_mask(path, sample.window)
            label = label_from_mask(
                mask, self.card, zero_means=sample.zero_means, origin=str(path)
            )
        elif self.coco is not None:
            label = self.coco.label(sample.image_id, self.card)
            if sample.window is not None:
                cut = cut_label(label, sample.window, keep=0)
                label = make_label(
                    cut.size_hw,
                    cut.regions,
                    cut.ignore,
                    self.card.smallest_px(cut.size_hw),
                )
        else:
            raise DataError(f"{self.root}: sample {sample.id!r} has no mask")
        if image is None:
            return label
        return self.label_ignoring_invalid(label, sample, image, seen)

    def label_ignoring_invalid(
        self,
        label: Annotation,
        sample: Sample,
        image: SensorImage,
        seen: SensorImage | None = None,
    ) -> Annotation:
        """Return a label that also ignores the pixels that are invalid in all channels; see `label`."""
        if label.size_hw != image.size_hw:
            where = sample.mask or f"COCO annotations of {sample.image_id}"
            check_equal_size(where, label.size_hw, sample.reference, image.size_hw)
        valid = (seen or self.adapter.transform(image)).valid
        if valid.all():
            return label
        blind = ~valid.any(axis=0)
        if blind.any():
            return replace(label, ignore=label.ignore | blind)
        return label

    def may_have_unmarked(self, sample: Sample) -> bool:
        """Return whether a sample may hold objects that nobody marked: its label value 0 means "unlabelled"."""
        return (sample.zero_means or self.card.zero_means) == "unlabelled"

    def is_labelled(self, sample: Sample) -> bool:
        """Return whether a sample has ground truth; those of `open_images` may have none."""
        return sample.has_mask or self.coco is not None

    @property
    def has_classes(self) -> bool:
        """Whether its objects have classes; in label images whose values are instances they have none."""
        named = self.polygons is not None and self.polygons.has_classes
        return self.coco is not None or named or self.card.regions != "instances"

    @cached_property
    def sequences(self) -> Mapping[str, tuple[Sample, ...]]:
        """The frames of each sequence in order, those without a mask too."""
        found: dict[str, list[Sample]] = {}
        for sample in (*self.samples, *self.unlabelled):
            if sample.sequence:
                found.setdefault(sample.sequence, []).append(sample)
        return {
            name: tuple(sorted(frames, key=lambda one: one.frame))
            for name, frames in found.items()
        }

    def channels(self) -> tuple[Channel, ...]:
        """Return the C channels of the first training image, transformed."""
        return self._reference[1]

    @property
    def loaded_channels(self) -> tuple[Channel, ...]:
        """The channels every image has when loaded, before the adapter's transform."""
        return self._reference[0]

    @property
    def class_names(self) -> Mapping[int, str]:
        """Class -> name, from the card or else from the COCO categories or the polygons."""
        found = self.coco or self.polygons
        return {**(found.class_names if found else {}), **self.card.class_names}

    @property
    def skipped_note(self) -> str:
        """A sentence with the number of images without a mask; "" if all have one."""
        count = len(self.unlabelled)
        if not count:
            return ""
        return f"Skipped {count} image{'s' * (count > 1)} without a mask; `simmat data check` lists them."

    @property
    def first(self) -> Sample:
        """The first training sample, or the first of all; all images must have its channels."""
        return next(
            (sample for sample in self.samples if sample.split == "train"),
            self.samples[0],
        )

    @cached_property
    def _reference(self) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
        if self.known_channels is not None:
            return self.known_channels
        image = load_sample(self.adapter, self.first.files, self.first.window)
        return image.channels, self.adapter.transform(image).channels


def open_dataset(
    root: Path | str,
    adapter: ModalityAdapter,
    overrides: Mapping[str, object] | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
) -> Dataset:
    """Open a folder as a data set: `manifest.csv`, COCO json, or `images/` (or `frames/`) and `masks/` alone.

    Args:
        adapter: the sensor; its sources are the files of a sample.
        overrides: fields of the data card from the command line; None is not set.
        defaults: fields of the card that apply where neither `card.toml` nor `overrides` sets them.

    Raises:
        DataError: the folder is not a data set; all problems at once.
        ConfigError: the card is invalid, or does not define what a region is.
    """
    folder = Path(root)
    given = overrides or {}
    require_folder(folder, "a data set is a folder with images/ and masks/")
    annotations = {}
    if (
        os.path.lexists(folder / f"{ANNOTATIONS}.json")
        or (folder / ANNOTATIONS).is_dir()
    ):
        annotations = annotation_files(folder)
    if annotations:
        _check_folders_beside_coco(folder)
    card = load_card(
        folder, given, defaults={"regions": "instances", **(defaults or {})}
    )
    # its options may change the sources of a sample
    adapter = with_data_card(adapter, card.model_dump())
    found, coco, split_source = _find_labels(folder, adapter, annotations, card)
    if coco is None:
        samples = [sample for sample in found if sample.has_mask]
        unlabelled = tuple(sample for sample in found if not sample.has_mask)
        if not samples:
            raise DataError(
                f"{folder}: none of the {len(unlabelled)} images has a mask; save one as "
                f"{MASKS}/{unlabelled[0].id}.png, or name it in {MANIFEST_FILE}"
            )
        if not all(sample.has_polygons for sample in samples):
            # label images need a rule that somebody states
            load_card(folder, given, defaults=defaults)
    else:
        samples = found
        unlabelled = ()
        if card.zero_means == "none":
            raise ConfigError(
                f"{folder}: zero_means = 'none' needs label images; COCO annotations have no label value 0"
            )
    samples = mark_predicted(folder, samples, coco.predicted if coco else frozenset())
    if card.crop:
        samples = divide_images(samples, adapter, card.crop, coco)
    listed, note, new_splits = decide_splits(folder, samples, split_source, unlabelled)
    by_hash = any(
        before.split != after.split
        for before, after in zip(samples, listed, strict=True)
    )
    if card.crop:
        listed = tuple(divide_blocks(listed, card.crop))
    polygons = None
    masks = [sample for sample in listed if sample.has_polygons]
    if masks:
        polygons = geo_backend(f"{masks[0].mask}: a mask of polygons").read_polygons(
            masks, card
        )
        note = f"{note} {polygons.note}".strip()
    elif given.get("class_attribute") is not None:
        raise ConfigError(
            f"{folder}: --class-attribute {card.class_attribute} names the class of polygons, but no mask is a "
            "file of polygons; leave it out"
        )
    return Dataset(
        folder,
        adapter,
        card,
        listed,
        note,
        coco,
        unlabelled,
        polygons,
        by_hash,
        new_splits,
    )


def _check_folders_beside_coco(folder: Path) -> None:
    """Raise DataError if COCO annotations would replace a folder's labels, or do not state the order of its images."""
    if (folder / MASKS).is_dir():
        raise DataError(
            f"{folder}: found both masks/ and COCO annotations; remove one of them"
        )
    if (folder / FRAMES).is_dir():
        raise DataError(
            f"{folder}: COCO annotations do not state which images form a sequence; use {MASKS}/ for {FRAMES}/"
        )


def _find_labels(
    folder: Path,
    adapter: ModalityAdapter,
    annotations: Mapping[str, Path],
    card: DataCard,
) -> tuple[list[Sample], CocoLabels | None, str]:
    """Return the samples, the labels if COCO files hold them, and what names the splits, for messages."""
    if annotations:
        samples, coco = read_coco(folder, adapter.sources, annotations)
        return samples, coco, ", ".join(path.name for path in annotations.values())
    if os.path.lexists(folder / MANIFEST_FILE):
        return read_manifest(folder, adapter.sources), None, MANIFEST_FILE
    samples = find_samples(folder, adapter.sources, axis=card.stack_axis)
    images = FRAMES if (folder / FRAMES).is_dir() else IMAGES
    return samples, None, f"the folders of {images}/"


def open_images(
    root: Path | str,
    adapter: ModalityAdapter,
    overrides: Mapping[str, object] | None = None,
) -> Dataset:
    """Open a folder to look at its images: a data set, or images that have no labels yet.

    Without labels, the images are those of `images/` or else of the folder itself, and belong to no split. Without a
    region rule, each value of a mask is a region.

    Raises:
        DataError: the folder has labels and is not a data set, or holds no image.
        ConfigError: the card is invalid.
    """
    folder = Path(root)
    defaults = {"regions": "instances"}
    try:
        return open_dataset(folder, adapter, overrides, defaults=defaults)
    except DataError:
        masks = (folder / MASKS).iterdir() if (folder / MASKS).is_dir() else ()
        if (
            not folder.is_dir()
            or annotation_files(folder)
            or any(path.name[0] != "." for path in masks)
        ):
            raise
        card = load_card(folder, overrides or {}, defaults=defaults)
        adapter = with_data_card(adapter, card.model_dump())
        samples = unlabelled_samples(folder, adapter.sources, card.stack_axis)
        if not samples:
            raise
    return Dataset(folder, adapter, card, samples, "There are no labels and no splits.")

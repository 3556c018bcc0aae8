"""Measure the loss of an export on real data: mIoU with one click per object, in torch and in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simmat_runtime

from simmat.bundle import Bundle
from simmat.data.clicks import center_click
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.samples import Sample
from simmat.errors import ConfigError
from simmat.predictor import Predictor
from simmat.types import BoolArray

Split = tuple[Dataset, list[Sample]]

SPLIT = "val"
_IMAGES = 32
"""Most images for calibration and measurement."""


@dataclass(frozen=True)
class Loss:
    """mIoU over objects with one click each.

    Attributes:
        torch: mIoU of the bundle.
        exported: mIoU of the exported model.
        images: number of images.
        objects: number of objects.
    """

    torch: float
    exported: float
    images: int
    objects: int


def open_split(bundle: Bundle, data: Path) -> Split:
    """Return a data set of the bundle's sensor, and up to 32 images of its val split, evenly spread.

    Raises:
        ConfigError: the split has no such image.
        SimMATError: it is not a data set of the sensor.
    """
    dataset = open_dataset(data, bundle.sensor)
    samples = dataset.split(SPLIT)
    if not samples:
        raise ConfigError(f"{data} has no image in the {SPLIT} split, with which an export is calibrated and measured")
    return dataset, list(samples[:: -(-len(samples) // _IMAGES)])


def measured_loss(bundle: Bundle, folder: Path, dataset: Dataset, samples: list[Sample]) -> Loss:
    """Segment every object of the images by one click, with the bundle and with the exported model."""
    predictor, runtime = Predictor.of_bundle(bundle), simmat_runtime.load(folder, check=False)
    ours: list[float] = []
    theirs: list[float] = []
    for sample in samples:
        image = dataset.image(sample)
        predictor.set_image(image)
        runtime.set_image(np.where(image.valid, image.data, np.float32(np.nan)))
        for truth in _objects(dataset, sample, image.size_hw):
            click = center_click(truth)
            ours.append(_iou(predictor.predict([click]).mask, truth))
            theirs.append(_iou(runtime.predict([click]).mask, truth))
    if not ours:
        raise ConfigError(f"{dataset.root}: no object in the images of the {SPLIT} split, so no loss can be measured")
    return Loss(float(np.mean(ours)), float(np.mean(theirs)), len(samples), len(ours))


def _objects(dataset: Dataset, sample: Sample, size_hw: tuple[int, int]) -> Iterator[BoolArray]:
    for instance in dataset.label(sample).regions:
        yield instance.mask(size_hw)


def _iou(mask: BoolArray, truth: BoolArray) -> float:
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))

"""Measure what an export changes: the difference on noise, and of mIoU with one click per object on real data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import simmat_runtime

from simmat.bundle import Bundle
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.instances import center_click
from simmat.data.samples import Sample
from simmat.errors import ConfigError
from simmat.predictor import Predictor
from simmat.types import BoolArray, Channel, FloatArray, SensorImage
from simmat_plugin_export.joining import KINDS, Kinds

Split = tuple[Dataset, list[Sample]]

SPLIT = "val"
_IMAGES = 32
"""Most images for calibration and measurement."""
_NOISE_WIDTH = 1.3
"""Width of an image of noise, relative to `size`."""


@dataclass(frozen=True)
class AccuracyLoss:
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
    dataset = open_dataset(data, bundle.modality)
    samples = dataset.split(SPLIT)
    if not samples:
        raise ConfigError(
            f"{data} has no image in the {SPLIT} split, which calibrates and measures an export"
        )
    return dataset, list(samples[:: -(-len(samples) // _IMAGES)])


def measured_loss(
    bundle: Bundle, folder: Path, dataset: Dataset, samples: list[Sample]
) -> AccuracyLoss:
    """Segment every object of the images by one click, with the bundle and with the exported model."""
    predictor, runtime = (
        Predictor.of_bundle(bundle),
        simmat_runtime.load(folder, check=False),
    )
    ours: list[float] = []
    theirs: list[float] = []
    for sample in samples:
        image = dataset.image(sample)
        predictor.set_image(image)
        runtime.set_image(np.where(image.valid, image.data, np.float32(np.nan)))
        for instance in dataset.label(sample).regions:
            truth = instance.mask(image.size_hw)
            click = center_click(truth)
            ours.append(_iou(predictor.predict([click]).mask, truth))
            theirs.append(_iou(runtime.predict([click]).mask, truth))
    if not ours:
        raise ConfigError(
            f"{dataset.root}: no object in the images of the {SPLIT} split, so no loss can be measured"
        )
    return AccuracyLoss(
        float(np.mean(ours)), float(np.mean(theirs)), len(samples), len(ours)
    )


def _iou(mask: BoolArray, truth: BoolArray) -> float:
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def difference_to_torch(bundle: Bundle, folder: Path, kinds: Kinds = KINDS) -> float:
    """Return the largest difference of logits and scores between the export and torch, on an image of noise."""
    # noise is unlike the training images, which nobody needs to be warned of
    spec = bundle.spec.model_copy(update={"inputs": None})
    predictor = Predictor.of_bundle(replace(bundle, spec=spec))
    runtime = simmat_runtime.load(folder, check=False)
    # an image that is cut into windows would be asked in another way
    side = min(spec.image_size, int(predictor.max_untiled_side / _NOISE_WIDTH))
    planes = noise(spec.sensor_channels, spec.channels, side)
    predictor.set_image(
        SensorImage.from_planes(planes, spec.sensor_channels, origin="noise")
    )
    runtime.set_image(planes)
    height, width = planes.shape[1:]
    clicks = [(width * 0.4, height * 0.5), (width * 0.1, height * 0.9)]
    box = (width * 0.2, height * 0.3, width * 0.7, height * 0.8)
    low = predictor.predict(clicks[:1]).low_res_logits
    differences = [0.0]
    for points, boxes, masks in kinds:
        prompt = (clicks, [1, 0]) if points else ((), [])
        given = (*prompt, box if boxes else None, low if masks else None)
        ours, theirs = predictor.predict(*given), runtime.predict(*given)
        differences += [
            float(np.abs(ours.logits - theirs.logits).max()),
            abs(ours.score - theirs.score),
        ]
    return max(differences)


def noise(
    sensor: Sequence[Channel], channels: Sequence[Channel], size: int
) -> FloatArray:
    """Return (C, H, W) smooth noise in the units of the sensor, with missing pixels, at a size other than `size`.

    Args:
        sensor: the C channels of the sensor.
        channels: the channels of the network, with mean and std.
        size: about the side of the image in pixels.
    """
    rng = np.random.default_rng(0)
    height, width = round(size * 0.9), round(size * _NOISE_WIDTH)
    coarse = (
        rng.standard_normal((len(sensor), height // 8 + 1, width // 8 + 1))
        .repeat(8, 1)
        .repeat(8, 2)
    )
    planes = coarse[:, :height, :width] + 0.1 * rng.standard_normal(
        (len(sensor), height, width)
    )
    known = {(channel.name, channel.unit): channel for channel in channels}
    for plane, channel in zip(planes, sensor, strict=True):
        fitted = known.get((channel.name, channel.unit), channel)
        # the transform changes it, so perhaps takes its logarithm
        if fitted.mean is None or fitted.std is None:
            np.exp(plane, out=plane)
        else:
            plane[:] = plane * fitted.std + fitted.mean
        if channel.valid_range is not None:
            plane.clip(*channel.valid_range, out=plane)
    planes[:, : height // 8, : width // 8] = np.nan
    return planes.astype(np.float32)

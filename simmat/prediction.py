"""From files and prompts to a mask of the original image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from simmat.bundle import Bundle
from simmat.data.pipeline import Pipeline, PreparedImage, prompt_batch
from simmat.errors import BundleError, ConfigError, DataError
from simmat.missing import load_without, optional_sources
from simmat.modality import load_sample
from simmat.model import SimMAT
from simmat.nn.resize import restore_logits
from simmat.normalize import CLIP, describe
from simmat.picking import pick_channels
from simmat.types import RGB_QUANTITY, BoolArray, Channel, FloatArray, Georeference, Prompt, SensorImage

Choice = Literal["single", "best"]

_FAR, _MOSTLY, _FLAT = 0.99, 0.5, 0.02
"""Of the clip, of the pixels, and of training's standard deviation: what makes an image unlike those of training."""


@dataclass(frozen=True)
class Prediction:
    """A mask of one image.

    Attributes:
        mask: (H, W) bool at the original size.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask.
        image: what was loaded.
        georeference: of the original image, where the file says it.
        doubt: in what the values are unlike those of training, so that the answer may mean nothing; "" where they are
            not.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    image: SensorImage
    georeference: Georeference | None
    doubt: str = ""


def predict(
    bundle: Bundle,
    files: Mapping[str, Path],
    prompt: Prompt,
    *,
    choice: Choice = "single",
    missing: Sequence[str | int] = (),
) -> Prediction:
    """Segment what a prompt means in one image.

    Args:
        bundle: a loaded bundle.
        files: source name -> file.
        prompt: points and box in pixels of the original image.
        choice: "single" takes the model's single answer; "best" the alternative with the highest
            predicted IoU, which suits one ambiguous click.
        missing: channels of the sensor that this image lacks, see `missing_channels`.

    Raises:
        DataError: a file cannot be read.
        BundleError: it holds other channels than the bundle was trained on.
        ConfigError: a point or the box lies outside of the image, or the bundle needs all its channels.
    """
    names = missing_channels(bundle, missing)
    needed = {source: file for source, file in files.items() if source not in _spare(bundle, names)}
    with bundle.spec.card.reading(needed):
        if names:
            image = load_without(bundle.adapter, files, bundle.spec.sensor_channels, names)
        else:
            image = load_sample(bundle.adapter, files)
    _check_channels(bundle, image)
    return segment(bundle.model, bundle.pipeline, image, prompt, choice=choice)


def _spare(bundle: Bundle, missing: frozenset[str]) -> tuple[str, ...]:
    """Return the sources that are not read, for all that they give is missing."""
    return optional_sources(bundle.adapter, bundle.spec.sensor_channels, missing)


def missing_channels(bundle: Bundle, missing: Sequence[str | int]) -> frozenset[str]:
    """Return the names of the sensor's channels that an image lacks.

    Args:
        bundle: a loaded bundle.
        missing: names, 0-based indices or wavelengths of channels, as for `--channels`.

    Raises:
        ConfigError: there is no such channel, none is left, or the bundle's transfer layer needs them all.
    """
    if not missing:
        return frozenset()
    channels, transfer = bundle.spec.sensor_channels, bundle.plan.transfer
    if not transfer.takes_missing:
        raise ConfigError(
            f"{bundle.path} was trained with transfer layer {transfer.name!r}, which needs all its channels; a bundle "
            "trained with --mat channel-attention takes a missing one"
        )
    names = frozenset(channels[index].name for index in pick_channels(channels, missing, origin="--missing"))
    reaching = {channel.name for channel in bundle.spec.channels}
    if len(names) == len(channels) or reaching <= names:
        raise ConfigError(f"--missing leaves no channel: {bundle.path} has {describe(bundle.spec.channels)}")
    return names


def _check_channels(bundle: Bundle, image: SensorImage) -> None:
    """Refuse other channels than the bundle's; where only some lack and that can be said, say how."""
    try:
        bundle.check_image(image)
    except BundleError as error:
        found, expected = ({c.name for c in channels} for channels in (image.channels, bundle.spec.sensor_channels))
        if not (found < expected and bundle.plan.transfer.takes_missing):
            raise
        lacking = ",".join(channel.name for channel in bundle.spec.sensor_channels if channel.name not in found)
        raise BundleError(f"{error}. If these are all there are: --missing {lacking}") from None


@torch.inference_mode()
def segment(
    model: SimMAT, pipeline: Pipeline, image: SensorImage, prompt: Prompt, *, choice: Choice = "single"
) -> Prediction:
    """Segment what a prompt means in an image already loaded, its missing values already marked.

    Args:
        model: the network; it is put into eval mode and left so.
        pipeline: image -> network input.
        image: (C, H, W) in physical units.
        prompt: points and box in pixels of the image.
        choice: which answer is taken, see `predict`.

    Raises:
        ConfigError: a point or the box lies outside of the image.
        DataError: the image has no valid pixel.
    """
    _check_inside(prompt, image)
    if not image.valid.any():
        raise DataError(f"{image.origin}: no pixel holds a measurement, so there is nothing to segment")
    model.eval()
    device = next(model.parameters()).device
    prepared = pipeline(image)
    embedding = model.encode(prepared.planes[None].to(device), prepared.content[None].to(device))
    answer = model.decode(embedding, prompt_batch([prompt], prepared.frame, device))
    picked = _pick(answer.iou[0].tolist(), choice)
    logits = restore_logits(answer.logits[:, picked : picked + 1].float(), prepared.frame)[0, 0].cpu().numpy()
    doubt = _unlike_training(prepared, pipeline.channels)
    return Prediction(logits > 0, logits, float(answer.iou[0, picked]), image, image.georeference, doubt)


def _unlike_training(prepared: PreparedImage, channels: Sequence[Channel]) -> str:
    """Say which channel's values are far from those of training, as in another unit or bit depth; "" where none is.

    Colour is scaled by the foundation model's statistics, which say nothing of the training images.
    """
    for channel, plane in zip(channels, prepared.planes, strict=True):
        seen = plane[prepared.content & (plane != 0)]  # what is invalid is 0
        if channel.quantity == RGB_QUANTITY or not seen.numel():
            continue
        trained = f"{channel.mean:.4g} ± {channel.std:.4g} {channel.unit}"
        if float((seen.abs() >= _FAR * CLIP).float().mean()) > _MOSTLY:
            return f"most values of channel {channel.name!r} are far from those of training ({trained})"
        if seen.numel() > 1 and float(seen.std()) < _FLAT:
            return f"the values of channel {channel.name!r} hardly vary beside those of training ({trained})"
    return ""


def _pick(predicted: Sequence[float], choice: Choice) -> int:
    if choice == "single" or len(predicted) == 1:
        return 0
    return 1 + int(np.argmax(predicted[1:]))


def _check_inside(prompt: Prompt, image: SensorImage) -> None:
    height, width = image.size_hw
    problems = []
    for x, y in prompt.point_coords.tolist():
        if not (0 <= x < width and 0 <= y < height):
            problems.append(f"point {x:g},{y:g}")
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box.tolist()
        if not (0 <= x0 and x1 <= width and 0 <= y0 and y1 <= height):
            problems.append(f"box {x0:g},{y0:g},{x1:g},{y1:g}")
    if problems:
        raise ConfigError(
            f"{image.origin}: {' and '.join(problems)} outside of the image, which is {width} wide and {height} high; "
            "give X (column) from 0 to width - 1 and Y (row) from 0 to height - 1"
        )

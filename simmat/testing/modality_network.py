"""Checks of a sensor in a network: normalized, from a worker, and through two training steps."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from simmat.plugins.builtin import TINY
from simmat.sensors.normalize import Statistics, fit_channels, normalize
from simmat.testing.checks import TIMEOUT_S, CheckFailed
from simmat.testing.samples import ModalityCase
from simmat.types import Channel, FloatArray, Prompt, SensorImage

SIZE = 64
"""Side of the input of the network that is trained, in pixels."""


def normalized_samples_are_scaled(case: ModalityCase) -> None:
    """Normalized samples have a mean within ±1 and a standard deviation of 0.2 to 5 in every channel."""
    images = _transformed(case)
    channels = _fitted(images)
    planes = [normalize(image, channels) for image in images]  # each (C, H, W)
    for index, channel in enumerate(channels):
        values = np.concatenate([p[index][image.valid[index]] for p, image in zip(planes, images, strict=True)])
        if not (abs(values.mean()) <= 1 and 0.2 <= values.std() <= 5):
            raise CheckFailed(
                f"channel {channel.name!r} has mean {values.mean():.3g} and std {values.std():.3g} after normalization "
                f"by mean {channel.mean:.4g} and std {channel.std:.4g} {channel.unit}",
                "state mean and std of what `transform` returns, in its unit, or leave them to the training split; a "
                "few huge values need a log in `transform`",
            )


def loads_in_a_worker(case: ModalityCase) -> None:
    """A worker of a DataLoader, which may be sent the sensor by pickle, loads the same bits."""
    from torch.utils.data import DataLoader

    files = case.samples[0].files
    here = case.load(files)
    loader: Any = DataLoader(
        [files],  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=partial(_load, pickle.dumps(case.adapter)),  # as on macOS and Windows, where nothing is forked
        num_workers=1,
        timeout=TIMEOUT_S,
    )
    try:
        data, valid = next(iter(loader))
    except Exception as error:
        raise CheckFailed(
            f"a worker could not load the sample: {type(error).__name__}: {error}",
            "keep no open file, lock or process id in the adapter; open what load needs inside load",
        ) from error
    if not (np.array_equal(data, here.data, equal_nan=True) and np.array_equal(valid, here.valid)):
        raise CheckFailed("a worker loaded other pixels than this process", "let load depend on the files alone")


def _load(pickled: bytes, files: Mapping[str, Path]) -> tuple[FloatArray, Any]:
    image = pickle.loads(pickled).load(files)
    return image.data, image.valid


def two_training_steps(case: ModalityCase) -> None:
    """Two training steps give a finite loss, and a gradient in the MAT that is not zero for every channel."""
    import torch

    from simmat.data.pipeline import Pipeline, prompt_batch
    from simmat.nn.tuners import set_train_mode
    from simmat.testing.networks import build_network, square_loss

    channels, image = _fitted(_transformed(case)), case.load(case.samples[0].files)
    network = build_network(TINY, image_size=SIZE, channels=channels)
    set_train_mode(network)
    planes, content, frame = Pipeline(case.adapter, channels, SIZE)(image)
    middle = Prompt.points([(image.size_hw[1] / 2, image.size_hw[0] / 2)])
    prompts = prompt_batch([middle], frame, torch.device("cpu"))
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    for number in (1, 2):
        optimizer.zero_grad()
        loss = square_loss(network, planes[None], content[None], prompts)
        if not bool(torch.isfinite(loss)):
            raise CheckFailed(
                f"the loss of step {number} is {loss.item()}",
                "mark what is not measured as invalid, and let `transform` give no NaN or infinity",
            )
        torch.autograd.backward(loss)
        optimizer.step()
    convolutions = (m for m in network.mat.modules() if isinstance(m, torch.nn.Conv2d))
    gradient = next(m for m in convolutions if m.in_channels == len(channels)).weight.grad  # (out, C, k, k)
    if gradient is None or not bool(gradient.isfinite().all()):
        raise CheckFailed("the gradient of the MAT is missing or not finite", "keep NaN and infinity out of the planes")
    sums = gradient.abs().sum(dim=(0, 2, 3)).tolist()  # (C,)
    if silent := [channel.name for channel, total in zip(channels, sums, strict=True) if not total > 0]:
        raise CheckFailed(
            f"no gradient reaches the MAT through {', '.join(silent)}: the network gets only zeros from it",
            "look at its valid pixels: scattered ones are lost when an image is resized, fill them in load",
        )


def _transformed(case: ModalityCase) -> list[SensorImage]:
    return [case.adapter.transform(case.load(sample.files)) for sample in case.samples]


def _fitted(images: list[SensorImage]) -> tuple[Channel, ...]:
    """Return the channels with the mean and std of training: a channel's own, the model's for RGB, else the images'."""
    return fit_channels(images[0].channels, _statistics(images), pixel_mean=TINY.pixel_mean, pixel_std=TINY.pixel_std)


def _statistics(images: list[SensorImage]) -> Statistics:
    """Return the statistics of the images, and fail for a channel that cannot be normalized."""
    from simmat.data.statistics import Moments, image_moments

    statistics = reduce(Moments.merge, map(image_moments, images)).statistics()
    found = zip(images[0].channels, statistics.pixels, statistics.mean, statistics.std, strict=True)
    for channel, pixels, mean, std in found:
        if not pixels:
            raise CheckFailed(
                f"channel {channel.name!r} has no valid pixel after `transform`", "look at its valid_range and unit"
            )
        if not (np.isfinite(mean) and np.isfinite(std)):
            raise CheckFailed(
                f"channel {channel.name!r} has valid values after `transform` that are not finite",
                "mark as invalid what `transform` cannot map, such as the log of 0",
            )
        if not std > 0:
            raise CheckFailed(
                f"channel {channel.name!r} is {mean:g} {channel.unit} in every valid pixel of every sample",
                "a constant channel tells a network nothing: look at its unit, valid_range and transform",
            )
    return statistics

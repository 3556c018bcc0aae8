"""How a modality goes into a network: normalized, from a worker, through two training steps. torch is loaded on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simmat.sensors.normalize import Statistics, fit_channels, normalize
from simmat.testing.checks import CheckFailed
from simmat.testing.samples import ModalityCase, Sample
from simmat.types import Channel, FloatArray, SensorImage

if TYPE_CHECKING:
    from torch import nn

    from simmat.data.batches import Batch
    from simmat.training.step import TrainingStep

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Mean and std of R, G, B over ImageNet, 0..255: what RGB channels are normalized by."""
WORKER_SECONDS = 120
"""A worker that takes longer is taken for dead."""


def normalized_samples_are_centred(case: ModalityCase) -> None:
    """Normalized samples have a mean within ±1 in every channel."""
    for channel, values in _normalized(case):
        if not abs(values.mean()) <= 1:
            raise CheckFailed(
                f"channel {channel.name!r} has mean {values.mean():.3g} after normalization by {_by(channel)}",
                "state the mean of what `transform` returns, in its unit, or leave mean and std to the training split",
            )


def normalized_samples_are_scaled(case: ModalityCase) -> None:
    """Normalized samples have a standard deviation of 0.2 to 5 in every channel."""
    for channel, values in _normalized(case):
        if not 0.2 <= values.std() <= 5:
            raise CheckFailed(
                f"channel {channel.name!r} has std {values.std():.3g} after normalization by {_by(channel)}",
                "state the std of what `transform` returns, in its unit; a few huge values need a log in `transform`",
            )


def loads_in_a_worker(case: ModalityCase) -> None:
    """A worker of a DataLoader, as it is started by default, loads the same bits."""
    _load_in_worker(case, None)


def loads_in_a_spawned_worker(case: ModalityCase) -> None:
    """A worker that starts from nothing, as on macOS and Windows, loads the same bits."""
    _load_in_worker(case, "spawn")


def two_training_steps(case: ModalityCase) -> None:
    """Two training steps give a finite loss, and every channel a gradient in the MAT that is not zero."""
    import torch

    channels = _fitted([_seen(case, sample) for sample in case.samples])
    step, batch = _training(case, channels)
    model = step.model
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for number in (1, 2):
        optimizer.zero_grad()
        loss = step(batch)["loss"]
        if not bool(torch.isfinite(loss)):
            raise CheckFailed(
                f"the loss of step {number} is {loss.item()}",
                "mark what is not measured as invalid, and keep `transform` from making NaN or infinity",
            )
        loss.backward()
        optimizer.step()
    _check_gradients(model.mat, [channel.name for channel in channels])


def _normalized(case: ModalityCase) -> list[tuple[Channel, FloatArray]]:
    """Return every fitted channel with the valid normalized values (P,) of all samples together."""
    images = [_seen(case, sample) for sample in case.samples]
    channels = _fitted(images)
    planes = [normalize(image, channels) for image in images]  # each (C, H, W)
    found = []
    for index, channel in enumerate(channels):
        values = [p[index][image.valid[index]] for p, image in zip(planes, images, strict=True)]
        found.append((channel, np.concatenate(values)))
    return found


def _fitted(images: list[SensorImage]) -> tuple[Channel, ...]:
    """Return the channels with what training on these images would normalize by.

    That is the mean and std a channel states, ImageNet's for RGB, else those of the images.
    """
    mean, std = IMAGENET
    return fit_channels(images[0].channels, _statistics(images), pixel_mean=mean, pixel_std=std)


def _seen(case: ModalityCase, sample: Sample) -> SensorImage:
    return case.adapter.transform(case.load(sample.files))


def _statistics(images: list[SensorImage]) -> Statistics:
    from simmat.data.statistics import Moments

    moments: Moments | None = None
    for image in images:
        count = len(image.channels)
        new = Moments.of_pixels(image.data.reshape(count, -1), image.valid.reshape(count, -1))
        moments = new if moments is None else moments.merge(new)
    assert moments is not None  # a case has samples, or says that it has none
    statistics = moments.statistics()
    for index, (channel, std, mean) in enumerate(zip(images[0].channels, statistics.std, statistics.mean, strict=True)):
        if not statistics.pixels[index]:
            raise CheckFailed(
                f"channel {channel.name!r} has no valid pixel behind `transform`", "look at its valid_range and unit"
            )
        if not (np.isfinite(mean) and np.isfinite(std)):
            raise CheckFailed(
                f"channel {channel.name!r} holds values behind `transform` that are not finite, and marked valid",
                "mark as invalid what `transform` cannot map, such as the log of 0",
            )
        if not std > 0:
            raise CheckFailed(
                f"channel {channel.name!r} is {mean:g} {channel.unit} in every valid pixel of every sample",
                "a channel that never varies tells a network nothing: look at its unit, valid_range and transform",
            )
    return statistics


def _by(channel: Channel) -> str:
    return f"mean {channel.mean:.4g} and std {channel.std:.4g} {channel.unit}"


def _load_in_worker(case: ModalityCase, start: str | None) -> None:
    import torch
    from torch.utils.data import DataLoader

    from simmat.testing.worker import OneSample

    files = case.samples[0].files
    here = case.load(files)
    loader = DataLoader(
        OneSample(case.adapter, dict(files)),
        batch_size=None,
        num_workers=1,
        multiprocessing_context=start,
        timeout=WORKER_SECONDS,
    )
    try:
        (data, valid) = next(iter(loader))
    except Exception as error:
        raise CheckFailed(
            f"a worker could not load the sample: {type(error).__name__}: {error}",
            "keep no open file, lock or process id in the adapter; open what load needs inside load",
        ) from error
    if not (torch.equal(data, torch.from_numpy(here.data)) and torch.equal(valid, torch.from_numpy(here.valid))):
        raise CheckFailed("a worker loaded other pixels than this process", "let load depend on the files alone")


def _training(case: ModalityCase, channels: tuple[Channel, ...]) -> tuple[TrainingStep, Batch]:
    """Return a tiny network with MAT and losses, and a batch of one sample with one prompt."""
    from simmat.testing.networks import batch_of, tiny_step

    sample = case.samples[0]
    return tiny_step(channels), batch_of(case.adapter, channels, case.load(sample.files), sample.region)


def _check_gradients(mat: nn.Module, names: list[str]) -> None:
    """Look at the first convolution over the sensor's channels: (out, C, k, k) weights."""
    from simmat.testing.networks import first_convolution

    gradient = first_convolution(mat, len(names)).weight.grad
    if gradient is None or not bool(gradient.isfinite().all()):
        raise CheckFailed("the gradient of the MAT is missing or not finite", "keep NaN and infinity out of the planes")
    reached = gradient.abs().sum(dim=(0, 2, 3))  # (C,)
    if silent := [name for name, share in zip(names, reached.tolist(), strict=True) if not share > 0]:
        raise CheckFailed(
            f"no gradient reaches the MAT through {', '.join(silent)}: every value the network gets of it is 0",
            "look at its valid pixels: scattered ones are lost when an image is resized, fill them in load",
        )

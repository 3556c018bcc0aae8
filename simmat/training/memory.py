"""Estimate the memory of a training step, so that a run that cannot fit is warned of before it starts."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from simmat.foundation import ImageEmbedding, PromptBatch
from simmat.model import SimMAT
from simmat.nn.losses import MOST_ELEMENTS

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_LOSS_TENSORS = 5  # of a mask's size, kept for the backward pass


class _Encoder(nn.Module):
    def __init__(self, model: SimMAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor) -> ImageEmbedding:
        return self.model.encode(planes, planes[:, 0] > 0)


def estimate_bytes(model: SimMAT, *, channels: int, size: int, images: int, questions: int, half: bool) -> int:
    """Estimate the memory of a training step on one device in bytes, to within a factor of about 1.5.

    Weights, gradients and AdamW's two moments are counted. What the graph keeps is counted for one image, encoded on
    the meta device, and for one prompt about it; the losses keep a number of mask-sized tensors.

    Args:
        model: the network; it is put into eval mode, in which no random number is drawn.
        channels: C.
        size: S.
        images: images a device sees at once.
        questions: prompts times rounds that are asked about each image.
        half: activations in 16 bits.
    """
    own = [*model.parameters(), *model.buffers()]
    encoder = _Encoder(model.eval())
    fakes = {
        name: torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
        for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]
    }
    weights = {tensor.untyped_storage()._cdata for tensor in [*own, *fakes.values()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        embedding: ImageEmbedding = functional_call(encoder, fakes, torch.empty(1, channels, size, size, device="meta"))
        encoded, device = sum(kept.values()), own[0].device
        zeros = [torch.zeros_like(x, device=device).requires_grad_(x.requires_grad) for x in embedding.levels]
        click = torch.ones(1, 2, dtype=torch.int64, device=device)
        prompt = PromptBatch(torch.zeros_like(click[0, :1]), torch.ones(1, 2, 2, device=device), click)
        answer = model.decode(ImageEmbedding(tuple(zeros), embedding.strides), prompt)
    masks = answer.logits.shape[1] * size * size
    activations = images * (encoded + questions * (sum(kept.values()) - encoded))
    losses = min(images * questions, max(MOST_ELEMENTS // masks, 1)) * masks * 4 * _LOSS_TENSORS
    moving = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    total = sum(tensor.numel() * tensor.element_size() for tensor in own)
    return total + 3 * moving + activations // (2 if half else 1) + losses


def memory_warning(needed: int, device: torch.device) -> str:
    """Return what to say where all processes on a device need more bytes than it has; "" where they fit."""
    had = available_bytes(device)
    if had is None or needed <= had:
        return ""
    return (
        f"Warning: this run needs about {needed / 2**30:.1f} GiB, and {device} has {had / 2**30:.1f} GiB; it may be "
        "killed. Use a smaller --batch-size, --image-size or --prompts-per-image, --grad-accumulation, or, where the "
        "model has it, --gradient-checkpointing."
    )


def available_bytes(device: torch.device) -> int | None:
    """Return what is free on a GPU, or what the machine or its container has at all; None where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    limits = []
    if device.type == "cpu":
        with suppress(ValueError, OSError):  # not every system has these names
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        with suppress(ValueError, OSError):  # no control group, or "max"
            limits.append(int(_CONTAINER_LIMIT.read_text()))
    return min(limits, default=None)

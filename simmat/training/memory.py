"""Estimate the memory of a training step, to warn before a run that does not fit."""

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
_LOSS_TENSORS = 5
"""Mask-sized tensors that the losses keep for the backward pass."""


class _Encoder(nn.Module):
    def __init__(self, model: SimMAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor) -> ImageEmbedding:
        return self.model.encode(planes, planes[:, 0] > 0)


def estimate_bytes(model: SimMAT, *, channels: int, size: int, images: int, questions: int, half: bool) -> int:
    """Estimate the memory of a training step on one device in bytes, to within a factor of about 1.5.

    Counts weights, gradients, AdamW's two moments, the mask-sized tensors of the losses, and the activations that
    autograd saves: those of one image, encoded on the meta device, and of one prompt, scaled to the batch.

    Args:
        model: the network; set to eval mode, in which it draws no random numbers.
        images: images per device at once.
        questions: prompts times rounds per image.
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
    """Return a warning if a device has less than the `needed` bytes of all its processes; "" if they fit."""
    had = available_bytes(device)
    if had is None or needed <= had:
        return ""
    return (
        f"Warning: this run needs about {needed / 2**30:.1f} GiB, and {device} has {had / 2**30:.1f} GiB; it may be "
        "killed. Use a smaller --batch-size, --image-size or --prompts-per-image, --grad-accumulation, or, where the "
        "model has it, --gradient-checkpointing."
    )


def available_bytes(device: torch.device) -> int | None:
    """Return the free bytes of a GPU, or all memory of the machine or its container; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    limits = []
    if device.type == "cpu":
        with suppress(ValueError, OSError):  # names that not every system has
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        with suppress(ValueError, OSError):  # no control group, or no limit ("max")
            limits.append(int(_CONTAINER_LIMIT.read_text()))
    return min(limits, default=None)

"""How much memory a run will need, before it starts, and whether the machine has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from simmat.foundation import ImageEmbedding, PromptBatch
from simmat.model import SimMAT
from simmat.nn.losses import MOST_ELEMENTS

FULL_SIZE_TENSORS = 5
"""Tensors of a mask's size that the losses keep for the backward pass, about."""

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def estimate_bytes(
    model: SimMAT, *, channels: int, size: int, images: int, prompts: int, half: bool, rounds: int = 2
) -> int:
    """Estimate the memory of a training step on one device, in bytes.

    Weights, gradients and AdamW's two moments are counted exactly. What the backbone keeps for the
    backward pass is measured on the meta device, where nothing is computed; what the decoder keeps is
    measured by asking it twice; what the losses keep is taken as a number of mask-sized tensors.

    Args:
        model: the network.
        channels: C.
        size: S.
        images: images a device sees at once.
        prompts: prompts an image.
        half: activations in 16 bits.
        rounds: how often each prompt is asked in a step; all answers are kept until the step's end.
    """
    weights = sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
    moving = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    saved, embedding = _saved_by_backbone(model, channels, size)
    decoder = _saved_by_decoder(model, embedding)
    activations = images * saved + rounds * (images * decoder.image + images * prompts * decoder.prompt)
    losses = _kept_by_losses(images * prompts, decoder.masks * size * size, rounds)
    return weights + 3 * moving + activations // (2 if half else 1) + losses


def memory_warning(needed: int, device: torch.device, processes: int) -> str:
    """Return what to say where the processes on this machine need more memory than it has; "" where they do not.

    Args:
        needed: estimate for one process, in bytes.
        device: where it runs.
        processes: how many share the machine, if not a GPU.
    """
    had = available_bytes(device)
    if device.type != "cuda":
        needed *= processes
    if had is None or needed <= had:
        return ""
    return (
        f"Warning: this run needs about {needed / 2**30:.1f} GiB, and {device} has {had / 2**30:.1f} GiB; it may be "
        "killed. Use a smaller --batch-size, --image-size or --prompts-per-image, --grad-accumulation, or, where the "
        "model has it, --gradient-checkpointing."
    )


def available_bytes(device: torch.device) -> int | None:
    """Return the memory of a device: on a GPU what is free or ours, else what the machine or its container has at all.

    None where nobody knows.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not every system has these names
        return None
    return min([total, *_container_limits()])


def _container_limits() -> Iterator[int]:
    for path in _CGROUP_LIMITS:
        try:
            yield int(path.read_text())
        except (OSError, ValueError):  # no such control group, or "max"
            continue


def _kept_by_losses(count: int, elements: int, rounds: int) -> int:
    """Return the bytes that losses keep of `count` prompts with `elements` upsampled logits each.

    Many prompts are recomputed in groups on the way back, one group at a time.
    """
    together = max(MOST_ELEMENTS // elements, 1)
    kept = rounds * count if count <= together else together
    return kept * elements * 4 * FULL_SIZE_TENSORS


@dataclass(frozen=True)
class _Decoded:
    """Bytes that one round of decoding keeps, and how many masks a prompt gets."""

    image: int
    prompt: int
    masks: int


def _saved_by_decoder(model: SimMAT, embedding: ImageEmbedding) -> _Decoded:
    """Decode one prompt and two about an embedding of zeros, and count what their graphs keep."""
    device = next(model.parameters()).device
    levels = tuple(torch.zeros_like(level, device=device) for level in embedding.levels)
    for level, found in zip(levels, embedding.levels, strict=True):
        level.requires_grad_(found.requires_grad)
    zeros = ImageEmbedding(levels, embedding.strides)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*levels, *model.parameters(), *model.buffers())}
    sums, masks = [], 1
    with _undisturbed(model):
        for count in (1, 2):
            seen: dict[int, int] = {}

            def keep(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in own:
                    seen[storage.data_ptr()] = storage.nbytes()
                return tensor

            with saved_tensors_hooks(keep, lambda tensor: tensor):
                answer = model.decode(zeros, _clicks(count, device))
            masks = answer.logits.shape[1]
            sums.append(sum(seen.values()))
            del answer
    prompt = max(sums[1] - sums[0], 0)
    return _Decoded(max(sums[0] - prompt, 0), prompt, masks)


def _clicks(count: int, device: torch.device) -> PromptBatch:
    return PromptBatch(
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
        point_coords=torch.ones(count, 2, 2, device=device),
        point_labels=torch.ones(count, 2, dtype=torch.int64, device=device),
    )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a while: no running statistics move, and no random number is drawn."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Encoder(nn.Module):
    def __init__(self, model: SimMAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor, content: Tensor) -> ImageEmbedding:
        return self.model.encode(planes, content)


def _saved_by_backbone(model: SimMAT, channels: int, size: int) -> tuple[int, ImageEmbedding]:
    """Return the bytes that the graph of one image keeps, and its embedding on the meta device.

    Each storage counts once, weights not at all.
    """
    encoder = _Encoder(model)
    fake = {
        name: torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
        for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]
    }
    own = {id(tensor) for tensor in fake.values()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own and not isinstance(tensor, nn.Parameter):
            seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        planes = torch.empty(1, channels, size, size, device="meta")
        embedding: ImageEmbedding = functional_call(encoder, fake, (planes, planes[:, 0] > 0))
    return sum(seen.values()), embedding

"""How much memory a run will need, before it starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from simmat.model import SimMAT

MASKS = 4
"""Masks a decoder gives a prompt (one and three alternatives)."""

FULL_SIZE_TENSORS = 8
"""Tensors of a mask's size that the losses keep for the backward pass, about."""


def estimate_bytes(model: SimMAT, *, channels: int, size: int, images: int, prompts: int, half: bool) -> int:
    """Estimate the memory of a training step on one device, in bytes.

    Weights, gradients and AdamW's two moments are counted exactly. What the backbone keeps for the
    backward pass is measured on the meta device, where nothing is computed; what the decoder and the
    losses keep is taken as a number of mask-sized tensors.

    Args:
        model: the network.
        channels: C.
        size: S.
        images: images a device sees at once.
        prompts: prompts an image.
        half: activations in 16 bits.
    """
    weights = sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
    moving = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    activations = _saved_by_backbone(model, channels, size) * images // (2 if half else 1)
    masks = images * prompts * MASKS * size * size * 4 * FULL_SIZE_TENSORS
    return weights + 3 * moving + activations + masks


class _Encoder(nn.Module):
    def __init__(self, model: SimMAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, planes: Tensor, content: Tensor) -> list[Tensor]:
        return list(self.model.encode(planes, content).levels)


def _saved_by_backbone(model: SimMAT, channels: int, size: int) -> int:
    """Bytes that the graph of one image keeps; each storage counts once, weights not at all."""
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
        levels = functional_call(encoder, fake, (planes, planes[:, 0] > 0))
    del levels
    return sum(seen.values())

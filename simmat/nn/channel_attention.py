"""A transfer layer that takes any subset of its channels: one shared embedding, and attention over channels.

The model's first layer, made one-channel, is applied to each channel separately. Then attention at each position weighs
the channels that are present. One embedding for all bands with a code for each is the idea of ChannelViT (Bao et al.
2023, arXiv 2309.16108) and DOFA (Xiong et al. 2024, arXiv 2403.15356). Here the output is the features of an RGB model,
so the number of tokens stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.nn.first_layer import BlankPadding, first_layer_of, gray_kernel, refitted
from simmat.nn.mat import uniform_
from simmat.types import Channel

EMBEDDINGS = ("auto", "wavelength", "identity")
"""What a channel's code is made from."""
_CODE = 64
"""Length of a channel's code."""
_KEY = 16
"""Width of a key of one head."""
_OCTAVES = (-2.0, 5.0)
"""Binary logarithms of the shortest and longest period of a wavelength's code, 1/4 and 32 octaves: fine enough for red
and red edge, wide enough for light and radar.
"""


class ChannelCodes(nn.Module):
    """A code for each channel: sines and cosines of the logarithm of its wavelength, or a learned vector.

    Args:
        wavelengths_um: C centre wavelengths; None gives a learned code.
    """

    fixed: Tensor
    order: Tensor

    def __init__(
        self, wavelengths_um: Sequence[float | None], generator: torch.Generator
    ) -> None:
        super().__init__()
        known = [w for w in wavelengths_um if w is not None]
        unknown = len(wavelengths_um) - len(known)
        known_first = sorted(
            range(len(wavelengths_um)), key=lambda i: wavelengths_um[i] is None
        )
        self.register_buffer("fixed", wavelength_codes(known), persistent=False)
        self.register_buffer(
            "order", torch.tensor(known_first).argsort(), persistent=False
        )
        self.learned: nn.Parameter | None = None
        if unknown:
            self.learned = nn.Parameter(
                torch.empty(unknown, _CODE).normal_(generator=generator)
            )

    def forward(self) -> Tensor:
        """Return the codes (C, 64), in the order of the channels."""
        if self.learned is None:
            codes = self.fixed
        else:
            codes = torch.cat([self.fixed.to(self.learned), self.learned])
        return codes[self.order]


class ChannelAttention(nn.Module):
    """Combine the channels that are present into features (B, D, h, w).

    Each channel's features are scaled and shifted according to its code, then summed with attention weights per
    position and head. The weights start equal, so step 0 is the first layer on the mean of the present channels, scaled
    like the first plane of the zero-shot map.

    Args:
        codes: codes of C channels.
        gain: factor of the output.
        heads: parts of D with their own attention weights; must divide D.
        drop: probability to drop a channel of an image in training.
    """

    def __init__(
        self,
        layer: nn.Conv2d,
        codes: ChannelCodes,
        *,
        gain: float,
        heads: int,
        drop: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = layer.out_channels
        self.heads = heads
        self.drop = drop
        self.gain = gain
        self.embed = refitted(layer, gray_kernel(layer), None)
        self.bias = (
            None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        )
        self.codes = codes
        self.modulate = nn.Parameter(torch.zeros(2 * width, _CODE))
        self.padding = BlankPadding(layer)
        if len(codes.order) > 1:
            self.query = nn.Parameter(torch.zeros(heads * _KEY, width))
            self.key = nn.Parameter(torch.empty(heads * _KEY, width))
            self.code_key = nn.Parameter(torch.empty(heads * _KEY, _CODE))
            uniform_(self.key, width, generator)
            uniform_(self.code_key, _CODE, generator)

    def forward(self, planes: Tensor, content: Tensor) -> Tensor:
        """Map planes (B, C, S, S) and content (B, S, S) to features (B, D, h, w).

        A channel that is 0 everywhere, as invalid planes are, is ignored.
        """
        batch, channels = planes.shape[:2]
        used = self.used_channels(planes)  # (B, C)
        tokens = self.embed(planes.flatten(0, 1)[:, None])  # (B·C, D, h, w)
        height, width = tokens.shape[-2:]
        # (B, C, heads, D / heads, h·w)
        tokens = tokens.reshape(batch, channels, self.heads, -1, height * width)
        codes = self.codes()
        scale, shift = (
            (codes @ self.modulate.T)
            .reshape(1, channels, 2, self.heads, -1, 1)
            .unbind(2)
        )
        # (B, C, heads, 1, h·w)
        weights = self._weights(tokens, codes, used)[:, :, :, None]
        mixed = (weights * (tokens * (1 + scale) + shift)).sum(1).reshape(
            batch, -1, height, width
        ) * self.gain
        if self.bias is not None:
            mixed = mixed + self.bias[:, None, None]
        features: Tensor = self.padding(mixed, content)
        return features

    def used_channels(self, planes: Tensor) -> Tensor:
        """Return the channels to use: (B, C) bool, at least one per image; all where an image has none."""
        present = (planes != 0).flatten(2).any(2)
        present = present | ~present.any(1, keepdim=True)
        if not self.training or self.drop == 0:
            return present
        # torch's own generator, as in nn.Dropout: the training loop seeds it by step.
        after_drop = present & (
            torch.rand(present.shape, device=present.device) >= self.drop
        )
        return torch.where(after_drop.any(1, keepdim=True), after_drop, present)

    def _weights(self, tokens: Tensor, codes: Tensor, used: Tensor) -> Tensor:
        """Return the channels' weights: (B, C, heads, h·w), 0 where unused, with sum 1 over channels."""
        batch, channels, heads, _, positions = tokens.shape
        if channels == 1:
            return tokens.new_ones(batch, 1, heads, positions)
        flat = tokens.reshape(batch, channels, -1, positions)  # (B, C, D, h·w)
        share = used / used.sum(1, keepdim=True)
        mean = torch.einsum("bc,bcdp->bdp", share.to(flat.dtype), flat)
        query = (self.query @ mean).reshape(batch, 1, heads, _KEY, positions)
        key = (self.key @ flat + (codes @ self.code_key.T)[:, :, None]).reshape(
            batch, channels, heads, _KEY, positions
        )
        logits = (query * key).sum(3) / math.sqrt(_KEY)
        return logits.masked_fill(~used[:, :, None, None], -math.inf).softmax(1)


def wavelength_codes(wavelengths_um: Sequence[float]) -> Tensor:
    """Return (C, 64): sines and cosines of the binary logarithm of wavelengths, over periods of 0.25 to 32 octaves."""
    octaves = torch.tensor(wavelengths_um, dtype=torch.float64, device="cpu").log2()[
        :, None
    ]
    periods = torch.logspace(
        _OCTAVES[0], _OCTAVES[1], _CODE // 2, base=2, dtype=torch.float64, device="cpu"
    )
    angles = 2 * math.pi * octaves / periods
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def build_channel_attention(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
    embedding: str,
    heads: int,
    drop: float,
) -> nn.Module:
    """Build attention over channels; its output is "features".

    Args:
        channels: C channels.
        zero_shot: (3, C); the sum of the first row is the gain, without signs: those of a principal component differ.
        backbone: the backbone whose first layer is copied.
        embedding: "wavelength", "identity" (a learned code for each channel), or "auto": the wavelength where only one
            channel has it, else a learned code, because equal codes cannot be told apart.
        heads: see `ChannelAttention`.
        drop: see `ChannelAttention`, in [0, 1).

    Raises:
        ConfigError: an option is out of range, or the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "channel-attention")
    problems = []
    if heads < 1 or layer.out_channels % heads:
        problems.append(
            f"heads must divide the model's {layer.out_channels} features, got {heads}"
        )
    if not 0 <= drop < 1:
        problems.append(f"drop must be in [0, 1), got {drop}")
    if embedding not in EMBEDDINGS:
        problems.append(
            f"embedding must be one of {', '.join(EMBEDDINGS)}, got {embedding!r}"
        )
    missing = [channel.name for channel in channels if channel.wavelength_um is None]
    if embedding == "wavelength" and missing:
        problems.append(
            f"embedding=wavelength needs a wavelength of every channel, {missing} have none; use auto"
        )
    stated = [
        channel.wavelength_um
        for channel in channels
        if channel.wavelength_um is not None
    ]
    shared = {wavelength for wavelength in stated if stated.count(wavelength) > 1}
    if embedding == "wavelength" and shared:
        same = [channel.name for channel in channels if channel.wavelength_um in shared]
        problems.append(
            f"embedding=wavelength cannot tell apart {same}, which have the same wavelength; use auto"
        )
    if problems:
        raise ConfigError("transfer layer 'channel-attention': " + "; ".join(problems))
    wavelengths = []
    for channel in channels:
        wavelengths.append(
            None
            if embedding == "identity" or channel.wavelength_um in shared
            else channel.wavelength_um
        )
    gain = float(zero_shot[0].abs().sum())
    codes = ChannelCodes(wavelengths, generator)
    return ChannelAttention(
        layer, codes, gain=gain, heads=heads, drop=drop, generator=generator
    )

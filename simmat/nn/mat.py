"""Transfer layers (MATs): map the C planes of a sensor to the three planes of an RGB model.

The convolutions they are made of come first; their weights are drawn from a generator, never from torch's global random
state. Each builder has the signature of `TransferLayerSpec.build` and returns a module (B, C, S, S) -> (B, 3, S, S).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.sensors.normalize import describe
from simmat.types import Channel, is_finite_number


def conv2d(
    inputs: int, outputs: int, kernel: int, generator: torch.Generator
) -> nn.Conv2d:
    """Make a convolution that keeps height and width, with torch's default distribution of weights.

    Args:
        kernel: odd side of the kernel in pixels.
    """
    conv = zero_conv2d(inputs, outputs, kernel)
    for parameter in conv.parameters():
        uniform_(parameter, inputs * kernel * kernel, generator)
    return conv


def zero_conv2d(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Make a convolution that keeps height and width, with all weights 0."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, device="meta")
    # Not `to_empty`: on tensors of the meta device it imports sympy, a quarter of the time to import torch.
    for name, parameter in list(conv.named_parameters()):
        setattr(conv, name, nn.Parameter(torch.zeros(parameter.shape)))
    return conv


def conv_stack(*convolutions: nn.Module) -> nn.Sequential:
    """Chain convolutions with ReLUs between.

    The weights are channels last, which halves the time of a convolution of many channels to three on a CPU.
    """
    layers: list[nn.Module] = [convolutions[0]]
    for convolution in convolutions[1:]:
        layers += [nn.ReLU(), convolution]
    stack: nn.Sequential = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return stack


def uniform_(tensor: Tensor, fan_in: int, generator: torch.Generator) -> Tensor:
    """Fill with U(-1/√fan_in, 1/√fan_in), torch's default for Linear and Conv layers, and return the tensor."""
    bound = 1 / math.sqrt(max(fan_in, 1))
    with torch.no_grad():
        return tensor.uniform_(-bound, bound, generator=generator)


class ZeroShotMap(nn.Module):
    """A fixed linear map of the channels at each pixel: (B, C, S, S) -> (B, 3, S, S).

    Args:
        weights: (3, C), see `simmat.sensors.normalize.zero_shot_map`.
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights.clone())

    def forward(self, planes: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, 3, S, S)."""
        return F.conv2d(planes, self.weights[:, :, None, None])


class ResidualMAT(nn.Module):
    """A fixed map plus a stack of convolutions whose last layer starts at zero.

    With the zero-shot map, step 0 is exactly the zero-shot model, for every C. Only the stack is trained.

    Args:
        zero_shot: (3, C).
        stack: (B, C, S, S) -> (B, 3, S, S), 0 at the start.
    """

    def __init__(self, zero_shot: Tensor, stack: nn.Module) -> None:
        super().__init__()
        self.zero_shot = ZeroShotMap(zero_shot)
        self.stack = stack

    def forward(self, planes: Tensor) -> Tensor:
        """Map (B, C, S, S) to (B, 3, S, S)."""
        fixed: Tensor = self.zero_shot(planes)
        learned: Tensor = self.stack(planes)
        return fixed + learned


def build_mat(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
    width: int,
) -> nn.Module:
    """Build the paper's layer (arXiv 2409.08083): conv3x3 C -> width, ReLU, conv3x3 width -> 3."""
    _check_width(width)
    return conv_stack(
        conv2d(len(channels), width, 3, generator), conv2d(width, 3, 3, generator)
    )


def build_mat_residual(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
    width: int,
    contrast: float,
) -> nn.Module:
    """Build the zero-shot map, times `contrast`, plus the paper's layer as a residual that starts at zero.

    Raises:
        ConfigError: an option is out of range.
    """
    _check_width(width)
    if not (is_finite_number(contrast) and contrast > 0):
        raise ConfigError(
            f"option 'contrast' of a transfer layer must be a number above 0, got {contrast}"
        )
    stack = conv_stack(
        conv2d(len(channels), width, 3, generator), zero_conv2d(width, 3, 3)
    )
    # In place: loading a bundle checks memory on the meta device, where a product with a number imports torch._dynamo.
    return ResidualMAT(zero_shot.clone().mul_(contrast), stack)


def build_linear(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build a 1x1 convolution C -> 3 with bias, initialized with the zero-shot map."""
    conv = zero_conv2d(len(channels), 3, 1)
    with torch.no_grad():
        conv.weight.copy_(zero_shot[:, :, None, None])
    return conv


def build_zeroshot(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build the fixed zero-shot map, without parameters."""
    return ZeroShotMap(zero_shot)


def build_identity(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build a layer that returns its three planes unchanged.

    Raises:
        ConfigError: the number of channels is not three.
    """
    if len(channels) != 3:
        raise ConfigError(
            f"transfer layer 'identity' takes exactly 3 channels, got {len(channels)} ({describe(channels)}); "
            "use 'zeroshot' for a fixed map of any number of channels, or 'mat-residual' to train one"
        )
    return nn.Identity()


def _check_width(width: int) -> None:
    if width < 1:
        raise ConfigError(
            f"option 'width' of a transfer layer must be at least 1, got {width}"
        )

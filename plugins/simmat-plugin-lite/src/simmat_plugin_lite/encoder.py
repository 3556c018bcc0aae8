"""EfficientNet-Lite0 without its classifier (Tan and Le 2019, arXiv 1905.11946): ReLU6, no squeeze-and-excitation.

Names, padding and random initialization are those of timm's `tf_efficientnet_lite0`: its weights fit, and a seed gives
the same network.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.nn.pointwise import PointwiseConv2d

STEM = 32
"""Channels of the first convolution."""

STAGES = (
    (3, 1, 16, 1),
    (3, 2, 24, 2),
    (5, 2, 40, 2),
    (3, 2, 80, 3),
    (5, 1, 112, 3),
    (5, 2, 192, 4),
    (3, 1, 320, 1),
)
"""Kernel, stride of the first block, channels and number of blocks of each stage."""

_EXPANSION = 6
_NORM_EPS = 1e-3
_HEAD, _CLASSES = 1280, 1000


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: an odd pixel is added on the right and at the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H / stride), ceil(W / stride))."""
        rows, columns = (self._missing(axis, x.shape[2 + axis]) for axis in (0, 1))
        x = F.pad(
            x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        )
        return super().forward(x)

    def _missing(self, axis: int, size: int) -> int:
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


class NormReLU6(nn.BatchNorm2d):
    """BatchNorm, then ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return F.relu6(super().forward(x), inplace=True)


def _conv(
    inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    if stride > 1:
        return SameConv2d(inside, outside, kernel, stride, groups=groups, bias=False)
    if kernel == 1:
        return PointwiseConv2d(inside, outside, bias=False)
    return nn.Conv2d(
        inside, outside, kernel, padding=kernel // 2, groups=groups, bias=False
    )


def depthwise(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a depthwise convolution; in single precision if it is trained on a CPU.

    There the gradients of one in bfloat16 take 3 to 8 times as long, if its kernel or stride is large
    (pytorch/pytorch#183815).
    """
    is_trained = torch.is_grad_enabled() and x.device.type == "cpu"
    if not is_trained or x.dtype != torch.bfloat16:
        return cast(Tensor, layer(x))
    with torch.autocast("cpu", enabled=False):
        return cast(Tensor, layer(x.float()).to(x.dtype))


class SeparableBlock(nn.Module):
    """Depthwise convolution, then a 1x1 convolution to other channels."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = _conv(inside, inside, kernel, groups=inside)
        self.bn1 = NormReLU6(inside, eps=_NORM_EPS)
        self.conv_pw = _conv(inside, outside, 1)
        self.bn2 = nn.BatchNorm2d(outside, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inside, H, W) to (N, outside, H, W)."""
        change: Tensor = self.bn2(self.conv_pw(self.bn1(depthwise(self.conv_dw, x))))
        return change


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution; residual if the shape is unchanged."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = _EXPANSION * inside
        self.conv_pw = _conv(inside, wide, 1)
        self.bn1 = NormReLU6(wide, eps=_NORM_EPS)
        self.conv_dw = _conv(wide, wide, kernel, stride, groups=wide)
        self.bn2 = NormReLU6(wide, eps=_NORM_EPS)
        self.conv_pwl = _conv(wide, outside, 1)
        self.bn3 = nn.BatchNorm2d(outside, eps=_NORM_EPS)
        self.keeps_shape = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inside, H, W) to (N, outside, H / stride, W / stride)."""
        wide = self.bn1(self.conv_pw(x))
        wide = self.bn2(depthwise(self.conv_dw, wide))
        change: Tensor = self.bn3(self.conv_pwl(wide))
        return change + x if self.keeps_shape else change


def make_encoder() -> tuple[nn.Conv2d, nn.Module, nn.Sequential]:
    """Make the first convolution, its norm and the stages, with weights from torch's global generator."""
    stem, norm, stages, inside = (
        _conv(3, STEM, 3, stride=2),
        NormReLU6(STEM, eps=_NORM_EPS),
        nn.Sequential(),
        STEM,
    )
    # Drawing the layers that only timm's network has makes a seed give the same weights.
    nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    for kernel, stride, width, count in STAGES:
        first = (
            InvertedResidual(inside, width, kernel, stride)
            if stages
            else SeparableBlock(inside, width, kernel)
        )
        stages.append(
            nn.Sequential(
                first,
                *(InvertedResidual(width, width, kernel, 1) for _ in range(count - 1)),
            )
        )
        inside = width
    head, classifier = _conv(inside, _HEAD, 1), nn.Linear(_HEAD, _CLASSES)
    for module in (*stem.modules(), *stages.modules(), head):
        if isinstance(module, nn.Conv2d):
            fan_out = (
                math.prod(module.kernel_size) * module.out_channels // module.groups
            )
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    nn.init.uniform_(classifier.weight)
    return stem, norm, stages

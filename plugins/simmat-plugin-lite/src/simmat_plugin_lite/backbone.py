"""The image encoder of `lite`: EfficientNet-Lite0 and a neck that fuses its strides."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding
from simmat.nn.pointwise import PointwiseConv2d
from simmat_plugin_lite.blocks import AttentionBlock, ConvBlock, LayerNorm2d
from simmat_plugin_lite.encoder import STAGES, make_encoder

STRIDES = (2, 4, 8, 16)
WIDTHS = (16, 48, 96, 160)
_STAGE_STRIDE = {0: 2, 1: 4, 2: 8, 4: 16, 6: 32}
_ENCODER_WIDTHS = {stride: STAGES[stage][2] for stage, stride in _STAGE_STRIDE.items()}


class Neck(nn.Module):
    """Top-down fusion of the encoder's five strides into four levels.

    Strides 32 and 16 are fused first, followed by two attention blocks over the whole image; then come strides 8, 4, 2.
    """

    def __init__(self) -> None:
        super().__init__()
        wide = {32: WIDTHS[3], 16: WIDTHS[3], 8: WIDTHS[2], 4: WIDTHS[1], 2: WIDTHS[0]}
        self.lateral = nn.ModuleDict(
            {str(s): PointwiseConv2d(_ENCODER_WIDTHS[s], wide[s]) for s in wide}
        )
        self.down = nn.ModuleDict(
            {str(s): PointwiseConv2d(wide[2 * s], wide[s]) for s in (16, 8, 4, 2)}
        )
        self.context = nn.Sequential(AttentionBlock(wide[16]), AttentionBlock(wide[16]))
        self.refine = nn.ModuleDict(
            {
                "8": nn.Sequential(ConvBlock(wide[8]), ConvBlock(wide[8], dilation=2)),
                "4": ConvBlock(wide[4]),
                "2": ConvBlock(wide[2]),
            }
        )
        self.norm = nn.ModuleDict({str(s): LayerNorm2d(wide[s]) for s in STRIDES})

    def forward(self, maps: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """Fuse (B, D_s, S/s, S/s) maps by stride into levels of `STRIDES` and `WIDTHS`."""
        x = self.lateral["32"](maps[32])
        levels: list[Tensor] = []
        for stride in (16, 8, 4, 2):
            key = str(stride)
            coarse = F.interpolate(self.down[key](x), scale_factor=2.0, mode="bilinear")
            x = self.lateral[key](maps[stride]) + coarse
            x = self.context(x) if stride == 16 else self.refine[key](x)
            levels.insert(0, self.norm[key](x))
        return tuple(levels)


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 without its classifier, and the neck.

    Args:
        freeze_statistics: keep BatchNorm's statistics in training too, as pretrained weights and small batches need;
            random weights need to learn them.
    """

    def __init__(self, freeze_statistics: bool) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.blocks = make_encoder()
        self.neck = Neck()
        self.freeze_statistics = freeze_statistics

    def train(self, mode: bool = True) -> LiteBackbone:
        """Set training mode; with frozen statistics BatchNorm stays in evaluation mode."""
        super().train(mode)
        if mode and self.freeze_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    @property
    def first_layer(self) -> nn.Conv2d:
        """The stem's convolution."""
        return self.conv_stem

    def embed(self, image: Tensor) -> Tensor:
        """Run the first convolution: normalized image (B, 3, S, S) -> (B, 32, S/2, S/2)."""
        features: Tensor = self.conv_stem(
            image.contiguous(memory_format=torch.channels_last)
        )
        return features

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest: features of `embed` -> four levels (B, D, S/s, S/s), s in `STRIDES`."""
        x = self.bn1(features.contiguous(memory_format=torch.channels_last))
        maps: dict[int, Tensor] = {}
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in _STAGE_STRIDE:
                maps[_STAGE_STRIDE[index]] = x
        return ImageEmbedding(levels=self.neck(maps), strides=STRIDES)

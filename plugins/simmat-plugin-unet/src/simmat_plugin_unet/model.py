"""The U-Net of segmentation-models-pytorch with C + 1 input channels, cut behind the first convolution.

That convolution is linear: on image and prompt plane together it is one on the image plus one on the plane. So the
image's part is `Backbone.embed`, which transfer layers may replace, and everything behind the sum answers one prompt.
"""

from __future__ import annotations

from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.nn.baselines import widened_kernel
from simmat.nn.first_layer import refitted
from simmat.specs import FoundationSpec
from simmat_plugin_unet.imagenet import load_encoder
from simmat_plugin_unet.prompt_plane import prompt_plane

ENCODER = "tu-tf_efficientnet_lite0"
"""timm's EfficientNet-Lite0 with the padding of its ImageNet weights, as segmentation-models-pytorch calls it."""
STEM_STRIDE = 2


class UNetBackbone(nn.Module):
    """The encoder: its first convolution, run once an image, and its body, run by the decoder once a prompt.

    Args:
        encoder: timm's feature extractor; its stem is taken out of it.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        stem = encoder.conv_stem
        if not isinstance(stem, nn.Conv2d):
            raise TypeError(f"the encoder's stem is a {type(stem).__name__}, no convolution")
        self.stem = stem
        encoder.conv_stem = nn.Identity()
        self.body = encoder

    @property
    def first_layer(self) -> nn.Conv2d:
        """The stem's convolution."""
        return self.stem

    def embed(self, image: Tensor) -> Tensor:
        """First convolution: (B, 3, S, S) normalised image -> (B, 32, S/2, S/2)."""
        features: Tensor = self.stem(image.contiguous(memory_format=torch.channels_last))
        return features

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Hand the features on: what follows depends on the prompt."""
        return ImageEmbedding((features,), (STEM_STRIDE,))


class UNetDecoder(nn.Module):
    """The prompt's part of the first convolution, the U-Net's decoder and its head.

    Args:
        backbone: whose body is run; it stays a part of the backbone alone.
        blocks: segmentation-models-pytorch's decoder.
        head: its segmentation head.
    """

    def __init__(self, backbone: UNetBackbone, blocks: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self._body = (backbone.body,)  # in a tuple, so that its weights have one name
        self.click = refitted(backbone.stem, widened_kernel(backbone.stem, 1), None)
        self.blocks = blocks
        self.head = head

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Answer K prompts with one mask each, (K, 1, S, S) logits."""
        features = embedding.levels[0]
        plane = prompt_plane(prompts, features.shape[-1] * STEM_STRIDE).to(features.dtype)
        stem = features[prompts.image_index] + self.click(plane)  # (K, 32, S/2, S/2)
        # The decoder takes its output size, and no value, from the first of its inputs.
        logits: Tensor = self.head(self.blocks([plane, *self._body[0](stem)]))
        return MaskPrediction(logits, expected_iou(logits))


class UNetModel(nn.Module):
    """A U-Net as backbone and prompt decoder.

    Attributes:
        name: of its spec.
    """

    name = "unet"

    def __init__(self, unet: smp.Unet) -> None:
        super().__init__()
        self.backbone = UNetBackbone(unet.encoder.model)
        self.decoder = UNetDecoder(self.backbone, unet.decoder, unet.segmentation_head)


@torch.no_grad()
def expected_iou(logits: Tensor) -> Tensor:
    """Return the IoU a mask has if its probabilities are true: (K, M, h, w) logits -> (K, M).

    E|P∩T| / E|P∪T| with the mask P where logits are above 0 and independent pixels of the truth T. It has no weights
    and no gradient: a U-Net has no head for it, and its masks are not trained to look sure.
    """
    chance = logits.float().sigmoid()
    inside = logits > 0
    shared = (chance * inside).sum((-2, -1))
    union = torch.where(inside, 1.0, chance).sum((-2, -1))
    return shared / union.clamp(min=1e-6)


def build_unet(spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int) -> UNetModel:
    """Build `unet`; see `simmat.specs.build_foundation`.

    The weight file is the encoder's; the decoder is random from the seed in either case.

    Raises:
        WeightsError: the file is damaged or of another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        unet = smp.Unet(ENCODER, encoder_weights=None, in_channels=3, classes=1)
    if weights is not None:
        load_encoder(unet.encoder.model, weights)
    # Channels last is quicker on a CPU in bf16.
    model: UNetModel = UNetModel(unet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()

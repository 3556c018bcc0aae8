"""A tiny foundation model that keeps the contract, and one for each rule that breaks it and nothing else.

What is broken stands in the option `fault` of the spec.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import WeightsError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.plugin_specs import FoundationSpec, TuningTargets, WeightFile

D, STRIDE, MASKS = 8, 4, 2


class Backbone(nn.Module):
    """A convolution of stride 4, a mix of features and a residual block."""

    def __init__(self, fault: str, offset: float) -> None:
        super().__init__()
        self.fault, self.offset = fault, offset
        self.stem = nn.Conv2d(3, D, STRIDE, stride=STRIDE)
        self.mix = nn.Conv2d(D, D, 1)
        self.block = nn.Sequential(nn.Conv2d(D, D, 3, padding=1), nn.GELU())
        self.drop = nn.Dropout(0.5)

    @property
    def first_layer(self) -> nn.Conv2d:
        return self.stem

    def embed(self, image: Tensor) -> Tensor:
        if self.fault == "detached":
            image = image.detach()
        features: Tensor = self.stem(image)
        return features

    def encode(self, features: Tensor) -> ImageEmbedding:
        if self.fault == "thaws":
            self.stem.requires_grad_(True)
        if self.fault == "class":
            mixed = (
                self.mix(features)
                if type(self.mix) is nn.Conv2d
                else 2 * self.mix(features)
            )
        elif self.fault == "weights read":
            mixed = F.conv2d(features, self.mix.weight, self.mix.bias)
        else:
            mixed = self.mix(features)
        level = features + mixed + (self.offset if self.fault == "hidden" else 0.0)
        level = level + self.block(level)
        if self.fault == "dropout":
            level = F.dropout(level, 0.5, training=True)
        if self.fault == "mixes images":
            level = level - level.mean(0, keepdim=True)
        if self.fault == "class iou":
            other = 0.0 if type(self.mix) is nn.Conv2d else 1.0
            return ImageEmbedding(
                (level, F.avg_pool2d(level, 2) + other), (STRIDE, 2 * STRIDE)
            )
        if self.fault == "coarse first":
            return ImageEmbedding((F.avg_pool2d(level, 2), level), (2 * STRIDE, STRIDE))
        return ImageEmbedding(
            (level,), (2 * STRIDE if self.fault == "stride" else STRIDE,)
        )


class Decoder(nn.Module):
    """Asks every place how like it is to what the prompt points at."""

    def __init__(self, fault: str, offset: float) -> None:
        super().__init__()
        self.fault, self.offset = fault, offset
        self.query = nn.Linear(D, MASKS * D)
        self.mask = nn.Conv2d(1, D, 1)
        self.iou = nn.Linear(D, MASKS)
        if fault == "unused":
            self.spare = nn.Linear(D, D)

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        level, stride = embedding.levels[0], embedding.strides[0]
        index = torch.arange(len(prompts.image_index)) % len(level)
        # (K, D, h, w)
        level = level[index if self.fault == "order" else prompts.image_index]
        side = level.shape[-1]
        points, signs = (
            prompts.point_coords,
            (2.0 * prompts.point_labels - 1) * (prompts.point_labels >= 0),
        )
        if self.fault == "no labels":
            signs = signs.abs()
        if self.fault == "padding":
            signs = 2.0 * (prompts.point_labels == 1) - 1
        if self.fault == "first click":
            points, signs = points[:, :1], signs[:, :1]
        if self.fault == "no places":
            points = points * 0 + side
        if prompts.boxes is not None and self.fault != "no boxes":
            corners = prompts.boxes.reshape(-1, 2, 2) * (
                0.0 if self.fault == "no box" else 1.0
            )
            points = torch.cat([points, corners], dim=1)
            signs = torch.cat([signs, torch.ones(len(signs), 2)], dim=1)
        if points.shape[1] == 0:
            raise ValueError("no points")
        grid = (points[:, :, None] + 0.5) / (side * stride) * 2 - 1  # (K, N, 1, 2)
        seen = F.grid_sample(level, grid, align_corners=False)[..., 0]  # (K, D, N)
        asked = (seen * signs[:, None]).sum(-1)  # (K, D)
        if prompts.mask_input is not None:
            level = level + self.mask(F.interpolate(prompts.mask_input, (side, side)))
        queries = self.query(asked).reshape(-1, MASKS, D)
        logits = torch.einsum("kmd,kdhw->kmhw", queries, level)
        iou = self.iou(level.mean((2, 3)) + asked)
        if self.fault == "mixes iou":
            iou = iou - iou.mean(0)
        if self.fault == "hidden iou":
            iou = iou + self.offset
        if self.fault == "class iou":
            iou = self.iou(
                embedding.levels[-1][prompts.image_index].mean((2, 3)) + asked
            )
        if self.fault == "nan":
            logits = logits / 0.0
        return MaskPrediction(logits, iou[:, :1] if self.fault == "iou" else iou)


class Tiny(nn.Module):
    """Both together."""

    name = "tiny"

    def __init__(self, fault: str, offset: float) -> None:
        super().__init__()
        self.backbone, self.decoder = Backbone(fault, offset), Decoder(fault, offset)


def build(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> nn.Module:
    """Build the model with the fault its spec names."""
    fault = spec.options.get("fault", "")
    if fault == "global seed":
        torch.manual_seed(seed)
        return Tiny(fault, 0.0).eval()
    with torch.random.fork_rng(devices=[]):
        if fault != "unseeded":
            torch.manual_seed(seed)
        else:
            torch.seed()
        model = Tiny(
            fault, float(torch.randn(())) if fault.startswith("hidden") else 0.0
        )
    if weights is not None and weights.read_bytes() != b"weights":
        raise WeightsError(f"{weights} is damaged")
    if fault == "not a model":
        return model.backbone
    return model.eval()


TARGETS = TuningTargets(
    lora={r"backbone[.]mix": ((0,), 1)},
    spatial_layers=(r"backbone[.]mix",),
    adapters={r"backbone[.]block": ""},
    embed=(r"backbone[.]stem[.].*",),
    frozen=(r"decoder[.]iou[.].*",),
)
GOOD = FoundationSpec(
    name="tiny",
    description="keeps the contract",
    build="broken_foundations:build",
    image_size=64,
    size_multiple=STRIDE,
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(127.5, 127.5, 127.5),
    targets=TARGETS,
)


def fault(name: str) -> FoundationSpec:
    """Return the spec of the model with one fault."""
    return replace(GOOD, options={"fault": name})


def aimed(**targets: object) -> FoundationSpec:
    """Return the spec with some targets changed."""
    return replace(GOOD, targets=replace(TARGETS, **targets))  # type: ignore[arg-type]


def shipped(path: Path, sha256: str) -> FoundationSpec:
    """Return the spec with a weight file in its package."""
    return replace(GOOD, weights=WeightFile(path.name, sha256, path=path))


BROKEN: dict[str, list[tuple[FoundationSpec, str]]] = {
    "pixel-statistics-are-counts": [
        (
            replace(
                GOOD, pixel_mean=(0.485, 0.456, 0.406), pixel_std=(0.229, 0.224, 0.225)
            ),
            "multiply those of 0 to 1",
        ),
        (replace(GOOD, pixel_std=(0.0, 0.0, 0.0)), "each std above 0"),
        (replace(GOOD, pixel_mean=(300.0, 0.0, 0.0)), "counts of 0 to 255"),
    ],
    "tuning-targets-match": [
        (
            aimed(lora={r"backbone[.]blocks[.]qkv": ((0,), 1)}),
            "targets.lora: .* matches none",
        ),
        (
            aimed(lora={r"backbone[.]stem": ((0,), 1)}, spatial_layers=()),
            "targets.lora names what tuner 'lora' cannot work on",
        ),
        (
            aimed(attention=(r"backbone[.]mix",)),
            "targets.attention names .* takes no tokens",
        ),
        (aimed(frozen=(r"decoder[.]prompt[.].*",)), "targets.frozen: .* matches none"),
    ],
    "levels-have-their-strides": [
        (
            fault("stride"),
            r"for one input of 64 px the levels are \[\(1, 8, 16, 16\)\] and the strides \(8,\)",
        ),
        (fault("coarse first"), r"the strides \(8, 4\)"),
        (fault("not a model"), "returned a Backbone"),
        (replace(GOOD, image_size=66), "multiple of 4, got .*66"),
    ],
    "masks-cover-the-input": [
        (fault("iou"), r"logits are \(3, 2, 16, 16\) and iou \(3, 1\)"),
        (fault("nan"), "not finite"),
        (fault("no boxes"), "ValueError: no points"),
    ],
    "same-seed-same-answers": [
        (fault("global seed"), "changed torch's random state"),
        (fault("unseeded"), "two of one seed differ in backbone.stem.weight"),
        (fault("dropout"), "gave two answers to the same prompts"),
    ],
    "batch-of-two-equals-two-singles": [
        (fault("mixes images"), "in a batch and alone, differs"),
        (fault("order"), "in a batch and alone, differs"),
        (fault("mixes iou"), "in a batch and alone, differs"),
    ],
    "prompts-decide-the-answer": [
        (fault("no places"), "a click moves and the logits do not change"),
        (fault("no labels"), "a click's label turns and the logits do not change"),
        (fault("first click"), "the second click moves and the logits do not change"),
        (fault("no box"), "a box moves and the logits do not change"),
        (fault("padding"), "a point of label -1 moves and the answer changes by "),
    ],
    "state-survives-safetensors": [
        (fault("hidden"), "a model with the loaded state answers differently"),
        (fault("hidden iou"), "a model with the loaded state answers differently"),
    ],
    "weights-are-the-ones-described": [
        (
            shipped(Path(__file__), "0" * 64),
            "has sha256 [0-9a-f]{64}, the spec says 0000",
        ),
        (
            shipped(Path(__file__).with_name("no such file"), "0" * 64),
            "WeightsError: .*no such file",
        ),
    ],
    "lora-changes-nothing-at-step-0": [
        (fault("class"), "changed by .* under LoRA that adds zero"),
        (fault("class iou"), "changed by .* under LoRA that adds zero"),
    ],
    "what-trains-has-a-gradient": [
        (
            fault("detached"),
            "under tuner 'frozen' these train without a finite gradient: mat",
        ),
        (fault("thaws"), "what is frozen gets a gradient: foundation.backbone.stem"),
        (fault("unused"), "without a finite gradient: foundation.decoder.spare.bias"),
        (fault("weights read"), "under tuner 'lora' .* foundation.backbone.mix.lora_a"),
    ],
}
"""Check -> specs that break it, with what the failure must say."""

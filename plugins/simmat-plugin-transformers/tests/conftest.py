"""Tiny models of every family, random, written as the library writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from simmat_plugin_transformers.library import quiet
from simmat_plugin_transformers.specs import spec

from simmat.assemble import build_foundation
from simmat.plugin_specs import FoundationSpec

MASK_DECODER = {"mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = {"sam": 64, "sam2": 64, "sam3": 56}
"""Family -> native input size of its tiny model."""


def sam() -> transformers.PreTrainedModel:
    """SAM, with a windowed and a global block; 4x4 places, more than a window."""
    parts = {
        "vision_config": {
            **VIT,
            "output_channels": 16,
            "image_size": 64,
            "patch_size": 16,
            "window_size": 3,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "mlp_dim": 48,
        },
        "prompt_encoder_config": {
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 16,
            "mask_input_channels": 8,
        },
        "mask_decoder_config": {"hidden_size": 16, **MASK_DECODER},
    }
    return transformers.SamModel(transformers.SamConfig(**parts))


def sam2() -> transformers.PreTrainedModel:
    hiera = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": hiera,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={
            "hidden_size": 32,
            "image_size": 64,
            "mask_input_channels": 8,
        },
        mask_decoder_config={"hidden_size": 32, **MASK_DECODER},
    )
    return transformers.Sam2Model(config)


def sam3() -> transformers.PreTrainedModel:
    vit = {
        "model_type": "sam3_vit_model",
        **VIT,
        "intermediate_size": 48,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": vit,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "scale_factors": [4.0, 2.0, 1.0],
    }
    config = transformers.Sam3TrackerConfig(
        vision_config=vision,
        prompt_encoder_config={
            "hidden_size": 32,
            "image_size": 56,
            "patch_size": 14,
            "mask_input_channels": 8,
        },
        mask_decoder_config={"hidden_size": 32, **MASK_DECODER},
    )
    return transformers.Sam3TrackerModel(config)


MAKERS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "sam": sam,
    "sam2": sam2,
    "sam3": sam3,
}


@dataclass(frozen=True)
class Tiny:
    """A tiny random model of a family, as the library has it and as a folder.

    Attributes:
        name: of the family.
        original: the library's own model.
        folder: where `save_pretrained` wrote it.
        size: native input size.
    """

    name: str
    original: Any
    folder: Path
    size: int

    def spec(self) -> FoundationSpec:
        """Return what SimMAT says of the folder."""
        found = spec(str(self.folder))
        assert found is not None
        return found

    def build(
        self, size: int | None = None, *, scratch: bool = False, seed: int = 0
    ) -> Any:
        """Build it through SimMAT's own door."""
        found = self.spec()
        weights = (
            found.weights.path if found.weights is not None and not scratch else None
        )
        return build_foundation(
            found, image_size=size or self.size, weights=weights, seed=seed
        )


@pytest.fixture(scope="session")
def tiny_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """The tiny model of a family by its name, made once."""
    root = tmp_path_factory.mktemp("models")

    @cache
    def make(name: str) -> Tiny:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(1)
            model = MAKERS[name]().eval()
            for key, parameter in model.named_parameters():
                scale = parameter.ndim < 2 and key.endswith(("weight", "lambda1"))
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
                torch.nn.init.normal_(parameter, float(scale), 1.3 * fan_in**-0.5)
            model.save_pretrained(root / name)
        return Tiny(name, model, root / name, SIZES[name])

    return make


@pytest.fixture(params=SIZES)
def tiny(request: pytest.FixtureRequest, tiny_of: Callable[[str], Tiny]) -> Tiny:
    """One after the other, the tiny model of every family."""
    return tiny_of(request.param)

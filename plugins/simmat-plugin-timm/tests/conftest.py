"""A tiny random configuration of each family, made by timm itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import timm
import torch
from simmat_plugin_timm.architectures import Architecture, architecture_of
from simmat_plugin_timm.build import build_timm
from simmat_plugin_timm.specs import spec as spec_of
from timm.models import mvitv2
from torch import Tensor, nn

from simmat.foundation import FoundationSpec
from simmat.nn.promptable import PromptableModel

_PLAIN = {"embed_dim": 32, "depth": 2, "num_heads": 2}
_STAGES = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)}
_HIERA = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1)}

# timm takes no other width for these.
mvitv2.model_cfgs["smallest"] = mvitv2.MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=16, num_heads=1)

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", _PLAIN),
    "DeiT": ("deit_tiny_distilled_patch16_224", _PLAIN),
    "DeiT III": ("deit3_small_patch16_224", _PLAIN),
    "MAE": ("vit_base_patch16_224.mae", _PLAIN),
    "CLIP": ("vit_base_patch16_clip_224", _PLAIN),
    "SigLIP": ("vit_base_patch16_siglip_224", _PLAIN),
    "DINOv2": ("vit_small_patch14_dinov2", _PLAIN),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", _PLAIN),
    "DINOv3": ("vit_small_patch16_dinov3", _PLAIN),
    "EVA": ("eva_giant_patch14_224", _PLAIN),
    "EVA-02": ("eva02_tiny_patch14_224", _PLAIN),
    "EVA-02, unfused": ("eva02_base_patch14_224", _PLAIN),
    "ViT with rope": ("vit_base_patch16_rope_reg1_gap_256", _PLAIN),
    "BEiT v2": ("beitv2_base_patch16_224", _PLAIN),
    "SAM's encoder": ("samvit_base_patch16_224", {**_PLAIN, "global_attn_indexes": (1,), "window_size": 3}),
    "Swin": ("swin_tiny_patch4_window7_224", _STAGES),
    "Swin V2": ("swinv2_tiny_window8_256", _STAGES),
    "Hiera": ("hiera_tiny_224", _HIERA),
    "Hiera with absolute windows": ("hiera_small_abswin_256", _HIERA),
    "ViT with relative positions": ("vit_relpos_small_patch16_224", _PLAIN),
    "ViT with a relative position MLP": ("vit_relpos_base_patch16_cls_224", _PLAIN),
    "CaiT": ("cait_xxs24_224", {**_PLAIN, "depth_token_only": 1}),
    "XCiT": ("xcit_nano_12_p16_224", {**_PLAIN, "cls_attn_layers": 1}),
    "XCiT, patches of 8": ("xcit_nano_12_p8_224", {**_PLAIN, "cls_attn_layers": 1}),
    "Swin V2 (CR)": ("swinv2_cr_tiny_224", {**_STAGES, "window_size": 2}),
    "SAM 2's encoder": (
        "sam2_hiera_tiny",
        {"embed_dim": 16, "stages": (1, 1, 2, 1), "global_att_blocks": (3,), "global_pos_size": (3, 3)},
    ),
    "MViTv2": ("mvitv2_tiny", {"cfg_variant": "smallest"}),
    "PVTv2": ("pvt_v2_b0", {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 2, 2)}),
    "PVTv2, linear": (
        "pvt_v2_b2_li",
        {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 2, 2)},
    ),
    "DaViT": ("davit_tiny", {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 2, 2)}),
    "MaxViT": (
        "maxvit_tiny_tf_224",
        {"depths": (1, 1, 1, 1), "embed_dim": (16, 32, 48, 64), "stem_width": 8, "transformer_dim_head": 8},
    ),
}


VARIANTS = {
    *("DeiT III", "SigLIP", "DINOv2", "EVA", "EVA-02, unfused", "ViT with rope", "Hiera with absolute windows"),
    *(
        "ViT with a relative position MLP",
        "CaiT",
        "XCiT",
        "XCiT, patches of 8",
        "Swin V2 (CR)",
        "PVTv2, linear",
        "MaxViT",
    ),
    *("MViTv2", "DaViT"),
}
"""Near relatives of another family, or rarely used, for `make test-slow`."""


@dataclass(frozen=True)
class Family:
    """One family's tiny configuration.

    Attributes:
        model: name in timm.
        model_args: what makes it tiny.
        size: S.
        spec: its spec, with them.
    """

    model: str
    model_args: dict[str, Any]
    size: int
    spec: FoundationSpec

    def ours(self, seed: int = 0, size: int | None = None, weights: Any = None) -> PromptableModel:
        """Build the model as SimMAT does."""
        return build_timm(self.spec, image_size=size or self.size, weights=weights, seed=seed)

    @property
    def architecture(self) -> Architecture:
        """What it is."""
        found = architecture_of(self.model)
        assert found is not None
        return found

    def theirs(self, seed: int = 0, size: int | None = None, **arguments: Any) -> nn.Module:
        """Build the network as timm's users do, with the same random weights."""
        sized = {"img_size": size or self.size} if self.architecture.sized else {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(self.model, **{"num_classes": 0, **sized, **self.model_args, **arguments})
        return network.eval()

    def image(self, batch: int = 2, size: int | None = None) -> Tensor:
        """Return random images."""
        side = size or self.size
        return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def family_of(model: str, model_args: dict[str, Any]) -> Family:
    """Describe a tiny configuration of a model."""
    full = spec_of(model)
    assert full is not None
    options = {**full.options, "model_args": model_args, "dim": 32, "heads": 2, "hidden": 32}
    return Family(model, model_args, 70 if full.size_multiple == 14 else 64, replace(full, options=options))


@pytest.fixture
def make_family() -> Callable[[str], Family]:
    """Make one family by its title."""
    return lambda title: family_of(*FAMILIES[title])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a `family` with each of them."""
    if "family" in metafunc.fixturenames:
        marks = {title: [pytest.mark.slow] if title in VARIANTS else [] for title in FAMILIES}
        cases = [pytest.param(title, marks=marks[title], id=title) for title in FAMILIES]
        metafunc.parametrize("family", cases, indirect=True)


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Family:
    """One family after the other."""
    return family_of(*FAMILIES[request.param])

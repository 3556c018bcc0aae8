"""A tiny random configuration of each family, made by timm itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import timm
import torch
from simmat_plugin_timm.build import build_timm
from simmat_plugin_timm.specs import spec as spec_of
from torch import Tensor, nn

from simmat.foundation import FoundationSpec
from simmat.nn.promptable import PromptableModel

_PLAIN = {"embed_dim": 32, "depth": 2, "num_heads": 2}
_STAGES = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)}
_HIERA = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1)}

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
}


VARIANTS = {"DeiT III", "SigLIP", "DINOv2", "EVA", "EVA-02, unfused", "ViT with rope", "Hiera with absolute windows"}
"""Near relatives of another family, for `make test-slow`."""


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

    def theirs(self, seed: int = 0, size: int | None = None, **arguments: Any) -> nn.Module:
        """Build the network as timm's users do, with the same random weights."""
        sized = {} if self.model.startswith("samvit") else {"img_size": size or self.size}
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

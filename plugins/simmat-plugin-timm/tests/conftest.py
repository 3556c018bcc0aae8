"""A tiny random configuration of each family, made by timm itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import timm
import torch
from simmat_plugin_sam.pyramid import PromptableModel
from simmat_plugin_timm.architectures import Architecture, architecture_of
from simmat_plugin_timm.network import bare_network, build_timm
from simmat_plugin_timm.specs import spec as spec_of
from simmat_plugin_timm.targets import targets_of
from timm.models import metaformer, mvitv2, nextvit
from torch import Tensor, nn

from simmat.plugin_specs import FoundationSpec

_PLAIN = {"embed_dim": 32, "depth": 2, "num_heads": 2}
_STAGES = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)}
_HIERA = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1)}

_WIDTHS = (16, 16, 32, 32)
_MAXXVIT = {
    "depths": (1, 1, 1, 1),
    "embed_dim": (16, 16, 32, 32),
    "stem_width": 8,
    "transformer_dim_head": 8,
}


def _let_shrink(module: Any, name: str) -> None:
    """Let a constructor of timm that fixes depths and widths take others, as `tiny`."""
    create = getattr(module, name)

    def shrunk(*args: Any, tiny: Any = None, **kwargs: Any) -> Any:
        return create(*args, **{**kwargs, **(tiny or {})})

    setattr(module, name, shrunk)


for _module in (metaformer, nextvit):
    _let_shrink(_module, f"_create_{_module.__name__.rpartition('.')[2]}")

# timm takes no other width for these.
mvitv2.model_cfgs["smallest"] = mvitv2.MultiScaleVitCfg(
    depths=(1, 1, 2, 1), embed_dim=16, num_heads=1
)

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_tiny_patch16_224", _PLAIN),
    "DeiT": ("deit_tiny_distilled_patch16_224", _PLAIN),
    "DeiT III": ("deit3_small_patch16_224", _PLAIN),
    "MAE": ("vit_base_patch16_224.mae", _PLAIN),
    "CLIP": ("vit_base_patch16_clip_224", _PLAIN),
    "SigLIP": ("vit_base_patch16_siglip_224", _PLAIN),
    "SigLIP without a pooling": ("vit_base_patch16_siglip_gap_224", _PLAIN),
    "DINOv2": ("vit_small_patch14_dinov2", _PLAIN),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", _PLAIN),
    "DINOv3": ("vit_small_patch16_dinov3", _PLAIN),
    "EVA": ("eva_giant_patch14_224", _PLAIN),
    "EVA-02": ("eva02_tiny_patch14_224", _PLAIN),
    "EVA-02, unfused": ("eva02_base_patch14_224", _PLAIN),
    "ViT with rope": ("vit_base_patch16_rope_reg1_gap_256", _PLAIN),
    "BEiT v2": ("beitv2_base_patch16_224", _PLAIN),
    "SAM's encoder": (
        "samvit_base_patch16_224",
        {**_PLAIN, "global_attn_indexes": (1,), "window_size": 3},
    ),
    "Swin": ("swin_tiny_patch4_window7_224", _STAGES),
    "Swin V2": ("swinv2_tiny_window8_256", _STAGES),
    "Hiera": ("hiera_tiny_224", _HIERA),
    "Hiera with absolute windows": ("hiera_small_abswin_256", _HIERA),
    "ViT with relative positions": ("vit_relpos_small_patch16_224", _PLAIN),
    "ViT with a relative position MLP": ("vit_relpos_base_patch16_cls_224", _PLAIN),
    "XCiT": ("xcit_nano_12_p16_224", {**_PLAIN, "cls_attn_layers": 1}),
    "XCiT, patches of 8": ("xcit_nano_12_p8_224", {**_PLAIN, "cls_attn_layers": 1}),
    "SAM 2's encoder": (
        "sam2_hiera_tiny",
        {
            "embed_dim": 16,
            "stages": (1, 1, 2, 1),
            "global_att_blocks": (3,),
            "global_pos_size": (3, 3),
        },
    ),
    "MViTv2": ("mvitv2_tiny", {"cfg_variant": "smallest"}),
    "PVTv2": (
        "pvt_v2_b0",
        {
            "depths": (1, 1, 2, 1),
            "embed_dims": (8, 16, 24, 32),
            "num_heads": (1, 1, 2, 2),
        },
    ),
    "PVTv2, linear": (
        "pvt_v2_b2_li",
        {
            "depths": (1, 1, 1, 1),
            "embed_dims": (8, 16, 24, 32),
            "num_heads": (1, 1, 2, 2),
        },
    ),
    "DaViT": (
        "davit_tiny",
        {
            "depths": (1, 1, 2, 1),
            "embed_dims": (8, 16, 24, 32),
            "num_heads": (1, 1, 2, 2),
        },
    ),
    "MaxViT": (
        "maxvit_tiny_tf_224",
        {
            "depths": (1, 1, 1, 1),
            "embed_dim": (16, 32, 48, 64),
            "stem_width": 8,
            "transformer_dim_head": 8,
        },
    ),
    "ViT with parallel branches": ("vit_small_patch16_18x2_224", _PLAIN),
    "ViTamin": ("vitamin_small_224", {"depth": 1, "num_heads": 2}),
    "Twins": (
        "twins_svt_small",
        {"embed_dims": _WIDTHS, "depths": (1, 1, 2, 2), "num_heads": (1, 1, 2, 2)},
    ),
    "Twins, PCPVT": (
        "twins_pcpvt_small",
        {"embed_dims": _WIDTHS, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)},
    ),
    "CoaT": (
        "coat_tiny",
        {
            "embed_dims": (32, 32, 32, 32),
            "serial_depths": (1, 1, 1, 1),
            "parallel_depth": 1,
            "num_heads": 8,
        },
    ),
    "CoaT-Lite": (
        "coat_lite_tiny",
        {"embed_dims": (16, 32, 32, 32), "serial_depths": (1, 1, 1, 1), "num_heads": 8},
    ),
    "CoAtNet": ("coatnet_0_rw_224", _MAXXVIT),
    "CoAtNet, position MLP": ("coatnet_rmlp_nano_rw_224", _MAXXVIT),
    "CoAtNeXt": ("coatnext_nano_rw_224", _MAXXVIT),
    "MaxxViT": ("maxxvit_rmlp_nano_rw_256", _MAXXVIT),
    "MaxViT, parallel": ("maxvit_tiny_pm_256", _MAXXVIT),
    "DaViT of Florence": (
        "davit_base_fl",
        {
            "depths": (1, 1, 2, 1),
            "embed_dims": (8, 16, 24, 32),
            "num_heads": (1, 1, 2, 2),
        },
    ),
    "CAFormer": (
        "caformer_s18",
        {"tiny": {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}},
    ),
    "Next-ViT": ("nextvit_small", {"tiny": {"depths": (1, 1, 5, 1)}}),
    "EdgeNeXt": (
        "edgenext_xx_small",
        {"depths": (1, 2, 2, 2), "dims": _WIDTHS, "heads": (2, 2, 2, 2)},
    ),
    "FastViT": (
        "fastvit_mci3",
        {"layers": (1, 1, 1, 1, 1), "embed_dims": (16, 16, 32, 32, 32)},
    ),
}


QUICK = {
    "ViT",
    "DINOv2 with registers",
    "DINOv3",
    "SAM's encoder",
    "Swin",
    "Hiera",
    "PVTv2",
}
"""Those of every test run; the others, near relatives or rarely used, are for `make test-slow`."""
SIZES = {"fastvit_mci3": 128}
"""S of models that are tested at another than 64 or 70."""


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

    def ours(
        self, seed: int = 0, size: int | None = None, weights: Any = None
    ) -> PromptableModel:
        """Build the model as SimMAT does."""
        return build_timm(
            self.spec, image_size=size or self.size, weights=weights, seed=seed
        )

    @property
    def architecture(self) -> Architecture:
        """What it is."""
        found = architecture_of(self.model)
        assert found is not None
        return found

    def theirs(
        self, seed: int = 0, size: int | None = None, **arguments: Any
    ) -> nn.Module:
        """Build the network as timm's users do, with the same random weights."""
        sized = {"img_size": size or self.size} if self.architecture.sized else {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(
                self.model,
                **{"num_classes": 0, **sized, **self.model_args, **arguments},
            )
        return network.eval()

    def image(self, batch: int = 2, size: int | None = None) -> Tensor:
        """Return random images."""
        side = size or self.size
        return torch.randn(
            batch, 3, side, side, generator=torch.Generator().manual_seed(1)
        )


def family_of(model: str, model_args: dict[str, Any]) -> Family:
    """Describe a tiny configuration of a model."""
    full = spec_of(model)
    assert full is not None
    architecture = architecture_of(model)
    assert architecture is not None
    # A layer's name has its place among the blocks in it where not all blocks are alike: there are fewer here.
    targets = targets_of(bare_network(model, **model_args), architecture)
    options = {
        **full.options,
        "model_args": model_args,
        "dim": 32,
        "heads": 2,
        "hidden": 32,
    }
    size = SIZES.get(
        model,
        64
        if 64 % full.size_multiple == 0
        else 5 * 14
        if full.size_multiple == 14
        else 4 * 28,
    )
    return Family(
        model, model_args, size, replace(full, options=options, targets=targets)
    )


@pytest.fixture
def make_family() -> Callable[[str], Family]:
    """Make one family by its title."""
    return lambda title: family_of(*FAMILIES[title])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a `family` with each of them."""
    if "family" in metafunc.fixturenames:
        marks = {
            title: [] if title in QUICK else [pytest.mark.slow] for title in FAMILIES
        }
        cases = [
            pytest.param(title, marks=marks[title], id=title) for title in FAMILIES
        ]
        metafunc.parametrize("family", cases, indirect=True)


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Family:
    """One family after the other."""
    return family_of(*FAMILIES[request.param])

"""Segment Anything (Kirillov et al. 2023, arXiv 2304.02643) as a foundation model, through `segment-anything`.

These are specs only; the modules are in `simmat_plugin_sam.model`, which imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simmat.errors import WeightsError
from simmat.io.reading import read_json
from simmat.plugin_specs import FoundationSpec, TuningTargets, WeightFile

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Mean of R, G, B over ImageNet, 0..255; SAM's own."""
PIXEL_STD = (58.395, 57.12, 57.375)
"""Standard deviation of R, G, B over ImageNet, 0..255; SAM's own."""

_ENCODER = r"backbone[.]image_encoder[.]"
_DECODER_ATTENTION = (
    r"decoder[.]mask_decoder[.]transformer[.]"
    r"(layers[.][0-9]+[.](self_attn|cross_attn_token_to_image|cross_attn_image_to_token)|final_attn_token_to_image)"
)

SAM_TARGETS = TuningTargets(
    lora={
        _ENCODER + r"blocks[.][0-9]+[.]attn[.]qkv": ((0, 2), 3),
        _DECODER_ATTENTION + r"[.][qv]_proj": ((0,), 1),
    },
    spatial_layers=(_ENCODER + r"blocks[.][0-9]+[.]attn[.]qkv",),
    adapters={
        _ENCODER + r"blocks[.][0-9]+[.]mlp": "norm2",
        r"decoder[.]mask_decoder[.]transformer[.]layers[.][0-9]+[.]mlp": "",
    },
    attention=(_ENCODER + r"blocks[.][0-9]+[.]attn", _DECODER_ATTENTION),
    embed=(_ENCODER + r"pos_embed", _ENCODER + r"patch_embed[.]proj[.](weight|bias)"),
    frozen=(r"decoder[.]prompt_encoder[.].*",),
)
"""LoRA on q and v of every attention; the prompt encoder is never trained."""

_PROMPTS: Mapping[str, Any] = {
    "prompt_dim": 256,
    "decoder_heads": 8,
    "decoder_mlp": 2048,
}


def _sam(
    name: str,
    size: str,
    file: tuple[str, str, int],
    encoder: Mapping[str, Any],
    parameters: int,
) -> FoundationSpec:
    """Return the spec of a released model; `file` is the name of its weights, their sha256 and size in bytes."""
    filename, sha256, size_bytes = file
    return FoundationSpec(
        name=name,
        description=f"Segment Anything, {size}",
        build="simmat_plugin_sam.model:build_sam",
        image_size=1024,
        size_multiple=16,
        pixel_mean=PIXEL_MEAN,
        pixel_std=PIXEL_STD,
        targets=SAM_TARGETS,
        weights=WeightFile(
            filename=filename,
            sha256=sha256,
            size_bytes=size_bytes,
            url=f"https://dl.fbaipublicfiles.com/segment_anything/{filename}",
            licence="Apache-2.0",
        ),
        licence="Apache-2.0",
        options={**_PROMPTS, "window": 14, "mlp_ratio": 4.0, **encoder},
        parameters=parameters,
    )


SAM_VIT_B = _sam(
    "sam_vit_b",
    "ViT-B (94 M parameters)",
    (
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375042383,
    ),
    {"dim": 768, "depth": 12, "heads": 12, "global_blocks": (2, 5, 8, 11)},
    93_735_472,
)
SAM_VIT_L = _sam(
    "sam_vit_l",
    "ViT-L (312 M parameters)",
    (
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1249524607,
    ),
    {"dim": 1024, "depth": 24, "heads": 16, "global_blocks": (5, 11, 17, 23)},
    312_342_832,
)
SAM_VIT_H = _sam(
    "sam_vit_h",
    "ViT-H (641 M parameters)",
    (
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2564550879,
    ),
    {"dim": 1280, "depth": 32, "heads": 16, "global_blocks": (7, 15, 23, 31)},
    641_090_608,
)
SAM_VIT_TINY = FoundationSpec(
    name="sam_vit_tiny",
    description="Segment Anything's architecture, tiny and random from the seed: for tests, not for results",
    build="simmat_plugin_sam.model:build_sam",
    image_size=256,
    size_multiple=16,
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
    targets=SAM_TARGETS,
    promptable=False,
    licence="Apache-2.0",
    options={
        "prompt_dim": 32,
        "decoder_heads": 2,
        "decoder_mlp": 64,
        "window": 7,
        "mlp_ratio": 2.0,
        "dim": 64,
        "depth": 2,
        "heads": 2,
        "global_blocks": (1,),
    },
    parameters=188_428,
)

_TINYVIT_BLOCKS = r"backbone[.]image_encoder[.]layers[.][123][.]blocks[.][0-9]+"

MOBILESAM_TARGETS = TuningTargets(
    lora={
        _TINYVIT_BLOCKS + r"[.]attn[.]qkv": ((0, 2), 3),
        _DECODER_ATTENTION + r"[.][qv]_proj": ((0,), 1),
    },
    spatial_layers=(_TINYVIT_BLOCKS + r"[.]attn[.]qkv",),
    adapters={
        _TINYVIT_BLOCKS + r"[.]mlp": "",  # its norm is inside
        r"decoder[.]mask_decoder[.]transformer[.]layers[.][0-9]+[.]mlp": "",
    },
    attention=(_TINYVIT_BLOCKS + r"[.]attn", _DECODER_ATTENTION),
    embed=(_ENCODER + r"patch_embed[.]seq[.]0[.](weight|bias)",),
    frozen=(r"decoder[.]prompt_encoder[.].*",),
)
"""As `SAM_TARGETS`; TinyViT has no absolute position, and its first stage no attention."""

MOBILESAM_WEIGHTS = Path(__file__).parent / "weights" / "mobilesam.safetensors"
MOBILESAM_FACTS = MOBILESAM_WEIGHTS.with_suffix(".json")
_FACTS = read_json(
    MOBILESAM_FACTS,
    "facts of the weights",
    error=WeightsError,
    hint="install the package again",
)

MOBILESAM = FoundationSpec(
    name="mobilesam",
    description="MobileSAM's network (10 M parameters), distilled from SAM; weights included",
    build="simmat_plugin_sam.mobilesam:build_mobilesam",
    # this and the lines up to `training` are chosen on validation, benchmarks/mobilesam.toml
    image_size=768,
    size_multiple=32,
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
    targets=MOBILESAM_TARGETS,
    weights=WeightFile(
        filename=MOBILESAM_WEIGHTS.name,
        sha256=_FACTS["sha256"],
        size_bytes=_FACTS["size_bytes"],
        path=MOBILESAM_WEIGHTS,
        licence="MIT",
    ),
    licence="MIT",
    options={
        **_PROMPTS,
        "widths": (64, 128, 160, 320),
        "depths": (2, 2, 6, 2),
        "heads": (2, 4, 5, 10),
        "windows": (7, 7, 14, 7),
    },
    learning_rates={"full": 1e-4, "lora": 2e-3, "frozen": 1e-3},
    tune="full",
    training={"batch_size": 1, "prompts_per_image": 16, "precision": "auto"},
    parameters=9_803_524,
    zero_shot_rgb=0.484,
)
MOBILESAM_RELEASE = replace(
    MOBILESAM,
    name="mobilesam_release",
    description="MobileSAM with the weights of its authors (10 M parameters)",
    weights=WeightFile(
        filename="mobile_sam.pt",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        size_bytes=40728226,
        url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        licence="Apache-2.0",
    ),
    licence="Apache-2.0",
    zero_shot_rgb=None,
)

VIT_MODELS: tuple[FoundationSpec, ...] = (SAM_VIT_B, SAM_VIT_L, SAM_VIT_H, SAM_VIT_TINY)
FOUNDATION_MODELS: tuple[FoundationSpec, ...] = (
    MOBILESAM,
    *VIT_MODELS,
    MOBILESAM_RELEASE,
)

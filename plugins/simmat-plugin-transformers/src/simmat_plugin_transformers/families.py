"""The supported model families as data: the `model_type` of a config, its classes, and its tuning targets."""

from __future__ import annotations

from dataclasses import dataclass

from simmat.plugin_specs import TuningTargets

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Mean and standard deviation of R, G, B over ImageNet, 0..255, as in most image processors of the library."""
HALF = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""As `IMAGENET`, for image processors that map 0..255 to -1..1."""


@dataclass(frozen=True, slots=True)
class Family:
    """A model family of the library.

    Attributes:
        title: short name for display.
        model: class in the library.
        has_pyramid: True if the encoder gives several levels.
        first_layer: the convolution inside the vision encoder.
        targets: its tuning targets.
        pixels: mean and standard deviation of R, G, B, 0..255, if there is no image processor file.
    """

    title: str
    model: str
    has_pyramid: bool
    first_layer: str
    targets: TuningTargets
    pixels: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET


_VISION = r"backbone[.]vision[.]"
_TWO_WAY = r"decoder[.]mask_decoder[.]transformer[.]"
_DECODER_ATTENTION = (
    _TWO_WAY + r"(layers[.][0-9]+[.](self_attn|cross_attn_token_to_image|cross_attn_image_to_token)"
    r"|final_attn_token_to_image)"
)
_PROMPTS = r"decoder[.](prompt_encoder|shared_image_embedding)[.].*"
_OBJECT_HEAD = r"decoder[.]mask_decoder[.]pred_obj_score_head[.].*"
"""Head for the presence of an object, whose output is not used."""


def _sam_like(
    projection: str, parts: int, layer: str, attention: str, embed: tuple[str, ...], *never: str
) -> TuningTargets:
    """Describe an encoder with a SAM-like decoder.

    Args:
        projection: pattern of the projections of an attention: "qkv", or "[qv]_proj" for separate ones.
        parts: number of projections in one layer.
        layer: pattern of a layer of the encoder.
        attention: its attention.
        embed: patterns of first layer and position embeddings.
        never: parameters that no tuner trains, besides the prompt encoder.
    """
    attended = _VISION + layer + "[.]" + attention
    return TuningTargets(
        lora={
            attended + "[.]" + projection: ((0, 2), 3) if parts == 3 else ((0,), 1),
            _DECODER_ATTENTION + r"[.][qv]_proj": ((0,), 1),
        },
        grid=(attended + "[.]" + projection,),
        adapters={_VISION + layer + r"[.]mlp": "layer_norm2", _TWO_WAY + r"layers[.][0-9]+[.]mlp": ""},
        embed=tuple(_VISION + name for name in embed),
        never=(_PROMPTS, *never),
    )


_SAM = _sam_like("qkv", 3, r"layers[.][0-9]+", "attn", (r"pos_embed", r"patch_embed[.]projection[.](weight|bias)"))
_SAM2 = _sam_like(
    "qkv",
    3,
    r"backbone[.]blocks[.][0-9]+",
    "attn",
    (r"backbone[.]pos_embed(_window)?", r"backbone[.]patch_embed[.]projection[.](weight|bias)"),
    _OBJECT_HEAD,
)
_SAM3 = _sam_like(
    "[qv]_proj",
    1,
    r"backbone[.]layers[.][0-9]+",
    "attention",
    (r"backbone[.]embeddings[.](position_embeddings|patch_embeddings[.]projection[.]weight)",),
    _OBJECT_HEAD,
)

_SAM2_FAMILY = Family("SAM 2", "Sam2Model", True, "backbone.patch_embed.projection", _SAM2)
_SAM3_FAMILY = Family("SAM 3", "Sam3TrackerModel", True, "backbone.embeddings.patch_embeddings.projection", _SAM3, HALF)

FAMILIES: dict[str, Family] = {
    "sam": Family("SAM", "SamModel", False, "patch_embed.projection", _SAM),
    "sam2": _SAM2_FAMILY,
    "sam2_video": _SAM2_FAMILY,
    "sam3_tracker": _SAM3_FAMILY,
    "sam3_video": _SAM3_FAMILY,
}
"""`model_type` of a config -> family; for a video model the part for single images."""

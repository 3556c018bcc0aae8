"""The supported model families as data, and how a config of the library says its family and input size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simmat.errors import SpecError, what_is_wrong
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
    _TWO_WAY
    + r"(layers[.][0-9]+[.](self_attn|cross_attn_token_to_image|cross_attn_image_to_token)"
    r"|final_attn_token_to_image)"
)
_PROMPTS = r"decoder[.](prompt_encoder|shared_image_embedding)[.].*"
_OBJECT_HEAD = r"decoder[.]mask_decoder[.]pred_obj_score_head[.].*"
"""Head for the presence of an object, whose output is not used."""


def _sam_like(
    projection: str,
    parts: int,
    layer: str,
    attention: str,
    embed: tuple[str, ...],
    *frozen: str,
) -> TuningTargets:
    """Describe an encoder with a SAM-like decoder.

    Args:
        projection: pattern of the projections of an attention: "qkv", or "[qv]_proj" for separate ones.
        parts: number of projections in one layer.
        layer: pattern of a layer of the encoder.
        attention: its attention.
        embed: patterns of first layer and position embeddings.
        frozen: parameters that no tuner trains, besides the prompt encoder.
    """
    attended = _VISION + layer + "[.]" + attention
    return TuningTargets(
        lora={
            attended + "[.]" + projection: ((0, 2), 3) if parts == 3 else ((0,), 1),
            _DECODER_ATTENTION + r"[.][qv]_proj": ((0,), 1),
        },
        spatial_layers=(attended + "[.]" + projection,),
        adapters={
            _VISION + layer + r"[.]mlp": "layer_norm2",
            _TWO_WAY + r"layers[.][0-9]+[.]mlp": "",
        },
        embed=tuple(_VISION + name for name in embed),
        frozen=(_PROMPTS, *frozen),
    )


_SAM = _sam_like(
    "qkv",
    3,
    r"layers[.][0-9]+",
    "attn",
    (r"pos_embed", r"patch_embed[.]projection[.](weight|bias)"),
)
_SAM2 = _sam_like(
    "qkv",
    3,
    r"backbone[.]blocks[.][0-9]+",
    "attn",
    (
        r"backbone[.]pos_embed(_window)?",
        r"backbone[.]patch_embed[.]projection[.](weight|bias)",
    ),
    _OBJECT_HEAD,
)
_SAM3 = _sam_like(
    "[qv]_proj",
    1,
    r"backbone[.]layers[.][0-9]+",
    "attention",
    (
        r"backbone[.]embeddings[.](position_embeddings|patch_embeddings[.]projection[.]weight)",
    ),
    _OBJECT_HEAD,
)

_SAM2_FAMILY = Family(
    "SAM 2", "Sam2Model", True, "backbone.patch_embed.projection", _SAM2
)
_SAM3_FAMILY = Family(
    "SAM 3",
    "Sam3TrackerModel",
    True,
    "backbone.embeddings.patch_embeddings.projection",
    _SAM3,
    HALF,
)

FAMILIES: dict[str, Family] = {
    "sam": Family("SAM", "SamModel", False, "patch_embed.projection", _SAM),
    "sam2": _SAM2_FAMILY,
    "sam2_video": _SAM2_FAMILY,
    "sam3_tracker": _SAM3_FAMILY,
    "sam3_video": _SAM3_FAMILY,
}
"""`model_type` of a config -> family; for a video model the part for single images."""


Values = Mapping[str, Any]
"""A config as json values."""

_HINTS = {
    "sam3": "it segments what a text names, and takes no clicks; for clicks use SAM 3's tracker, model_type "
    "sam3_tracker, or sam3_video, as which facebook/sam3 is published",
    "sam_hq": "the library's decoder for it differs from the published one",
    **dict.fromkeys(
        ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit"), "timm/ has such ViTs"
    ),
}
_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
_MAX_NUMBER = 2**20
"""Limit of sizes, counts and ids in a config of the library."""
_MAX_POOLINGS = 16
_NOT_THE_NETWORK = (
    "architectures",
    "model_type",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
)


def family_of(values: Values, origin: str) -> Family:
    """Return the family of a config.

    Args:
        values: the config.
        origin: place of the config, for messages.

    Raises:
        SpecError: it names no supported family, or quantized weights.
    """
    found = values.get("model_type")
    if not isinstance(found, str) or found not in FAMILIES:
        hint = (
            f" ({_HINTS[found]})" if isinstance(found, str) and found in _HINTS else ""
        )
        raise SpecError(
            f"{origin} has model_type {found!r}{hint}; hf/ takes {', '.join(sorted(FAMILIES))}"
        )
    if values.get("quantization_config"):
        raise SpecError(
            f"{origin} has quantized weights, which cannot be tuned; use the model with 16-bit or 32-bit floats"
        )
    return FAMILIES[found]


def library_config(values: Values, origin: str) -> Any:
    """Return the library's config object of the model for single images.

    For a video model this is the part of the config for single frames.

    Raises:
        SpecError: the library refuses the config.
    """
    from transformers import AutoConfig

    if large := [
        key for key, number in _whole_numbers(values) if abs(number) > _MAX_NUMBER
    ]:
        raise SpecError(
            f"{origin} is damaged: {large[0]} is larger than {_MAX_NUMBER}, which no model of the library has"
        )
    kind = values["model_type"]
    plain = {key: value for key, value in values.items() if key not in _NOT_THE_NETWORK}
    try:
        if kind in ("sam2_video", "sam3_video"):
            kind, plain = kind.removesuffix("_video"), _frame_parts(plain)
            kind = "sam3_tracker" if kind == "sam3" else kind
        return AutoConfig.for_model(kind, **plain)
    # the library raises various classes for values of the wrong type
    except Exception as error:
        raise SpecError(f"{origin} is damaged: {_first_line(error)}") from error


def _frame_parts(values: Values) -> dict[str, Any]:
    inner = values.get("tracker_config", values)
    parts = {name: dict(inner[name]) for name in _PARTS}
    for name in _PARTS[1:]:
        parts[name].pop("model_type", None)  # the name in the video model differs
    return parts


def input_size(config: Any, family: Family, origin: str) -> tuple[int, int]:
    """Return the native input size S and the number of which S must be a multiple, in pixels.

    Raises:
        SpecError: the input is not square or has not three planes, or the config contradicts itself.
    """
    try:
        size, multiple, planes = (_pyramid if family.has_pyramid else _sam)(config)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise SpecError(f"{origin} is damaged: {_first_line(error)}") from error
    if planes != 3:
        raise SpecError(
            f"{origin} describes a model with {planes} input planes; a foundation model of SimMAT needs 3"
        )
    if multiple < 1 or size < multiple or size % multiple:
        raise SpecError(
            f"{origin} is damaged: the input size {size} is not a multiple of {multiple}"
        )
    return size, multiple


def _sam(config: Any) -> tuple[int, int, int]:
    vision, prompts = config.vision_config, config.prompt_encoder_config
    if (
        square(vision.image_size) != square(prompts.image_size)
        or vision.patch_size != prompts.patch_size
    ):
        raise ValueError(
            "vision_config and prompt_encoder_config differ in image_size or patch_size"
        )
    return square(vision.image_size), square(vision.patch_size), vision.num_channels


def _pyramid(config: Any) -> tuple[int, int, int]:
    prompts, vision = config.prompt_encoder_config, config.vision_config.backbone_config
    patch = square(prompts.patch_size)
    # Hiera: whole windows in the first stage, whole positions in the last
    if hasattr(vision, "window_size_per_stage"):
        first = square(vision.patch_stride)
        if not 0 <= vision.num_query_pool_stages <= _MAX_POOLINGS:
            raise ValueError(f"num_query_pool_stages is {vision.num_query_pool_stages}")
        places = square(vision.query_stride) ** vision.num_query_pool_stages
        patch = math.lcm(first * vision.window_size_per_stage[0], first * places)
    return square(prompts.image_size), patch, vision.num_channels


def _whole_numbers(values: Any, name: str = "a number") -> Iterator[tuple[str, int]]:
    """Yield key and value of each whole number in a config."""
    if isinstance(values, int):
        yield name, values
    elif isinstance(values, list | Mapping):
        for key, value in (
            values.items()
            if isinstance(values, Mapping)
            else ((name, value) for value in values)
        ):
            yield from _whole_numbers(value, key)


def square(value: Any) -> int:
    """Return the side of a square, given as a number or a pair."""
    sides = list(value) if isinstance(value, list | tuple) else [value]
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ValueError(f"a square's side is needed, got {value!r}")
    return sides[0]


def _first_line(error: Exception) -> str:
    return " ".join(what_is_wrong(error).split())[:200]

"""Read a `config.json` of the library: its family and input size; the library's classes fill in defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from simmat.errors import SpecError
from simmat_plugin_transformers.families import FAMILIES, Family

Values = Mapping[str, Any]
"""A config as json values."""

_HINTS = {
    "sam3": "it segments what a text names and takes no clicks; for clicks use SAM 3's tracker, model_type "
    "sam3_tracker, or sam3_video, as which facebook/sam3 is published",
    "sam_hq": "the decoder that the library gives it differs from the published one",
    **dict.fromkeys(("vit", "dinov2", "dinov2_with_registers", "dinov3_vit"), "timm/ has such ViTs"),
}
_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
_MAX_NUMBER = 2**20
"""Limit of sizes, counts and ids in a config of the library."""
_MAX_POOLINGS = 16
_NOT_THE_NETWORK = ("architectures", "model_type", "auto_map", "dtype", "torch_dtype", "transformers_version")


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
        hint = f" ({_HINTS[found]})" if isinstance(found, str) and found in _HINTS else ""
        raise SpecError(f"{origin} has model_type {found!r}{hint}; hf/ takes {', '.join(sorted(FAMILIES))}")
    if values.get("quantization_config"):
        raise SpecError(f"{origin} has quantized weights, which cannot be tuned; use the model in 16 or 32-bit floats")
    return FAMILIES[found]


def library_config(values: Values, origin: str) -> Any:
    """Return the library's config object of the model for single images.

    For a video model this is the part of the config for single frames.

    Raises:
        SpecError: the library refuses the config.
    """
    from transformers import AutoConfig

    if large := [key for key, number in _whole_numbers(values) if abs(number) > _MAX_NUMBER]:
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
    except Exception as error:  # the library raises various classes for values of the wrong type
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
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise SpecError(f"{origin} is damaged: {_first_line(error)}") from error
    if planes != 3:
        raise SpecError(f"{origin} describes a model with {planes} input planes; a foundation model of SimMAT needs 3")
    if multiple < 1 or size < multiple or size % multiple:
        raise SpecError(f"{origin} is damaged: the input size {size} is not a multiple of {multiple}")
    return size, multiple


def _sam(config: Any) -> tuple[int, int, int]:
    vision, prompts = config.vision_config, config.prompt_encoder_config
    if _square(vision.image_size) != _square(prompts.image_size) or vision.patch_size != prompts.patch_size:
        raise ValueError("vision_config and prompt_encoder_config differ in image_size or patch_size")
    return _square(vision.image_size), _square(vision.patch_size), vision.num_channels


def _pyramid(config: Any) -> tuple[int, int, int]:
    prompts, vision = config.prompt_encoder_config, config.vision_config.backbone_config
    patch = _square(prompts.patch_size)
    if hasattr(vision, "window_size_per_stage"):  # Hiera: whole windows in the first stage, whole positions in the last
        first = _square(vision.patch_stride)
        if not 0 <= vision.num_query_pool_stages <= _MAX_POOLINGS:
            raise ValueError(f"num_query_pool_stages is {vision.num_query_pool_stages}")
        places = _square(vision.query_stride) ** vision.num_query_pool_stages
        patch = math.lcm(first * vision.window_size_per_stage[0], first * places)
    return _square(prompts.image_size), patch, vision.num_channels


def _whole_numbers(values: Any, name: str = "a number") -> Iterator[tuple[str, int]]:
    """Yield key and value of each whole number in a config."""
    if isinstance(values, int):
        yield name, values
    elif isinstance(values, list | Mapping):
        for key, value in values.items() if isinstance(values, Mapping) else ((name, value) for value in values):
            yield from _whole_numbers(value, key)


def _square(value: Any) -> int:
    """Return the side of a square, given as a number or a pair."""
    sides = list(value) if isinstance(value, list | tuple) else [value]
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ValueError(f"a square's side is needed, got {value!r}")
    return sides[0]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

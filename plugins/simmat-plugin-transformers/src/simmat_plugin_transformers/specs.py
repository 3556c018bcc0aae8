"""Make the spec of a model from its config and its image processor file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simmat.errors import SpecError
from simmat.plugin_specs import FoundationSpec, WeightFile
from simmat.types import is_finite_number
from simmat_plugin_transformers.configs import (
    Family,
    family_of,
    input_size,
    library_config,
)
from simmat_plugin_transformers.sources import PREFIX, PUBLISHED, find, is_folder


def models() -> dict[str, str]:
    """Return repository -> description of well-known models."""
    return dict(PUBLISHED)


def spec(model: str) -> FoundationSpec | None:
    """Return the spec of `hf/MODEL`; None if that is not the name of a model.

    Args:
        model: ORG/NAME on the Hugging Face Hub, or a folder written ./FOLDER, ../FOLDER, ~/FOLDER or /FOLDER.

    Raises:
        SimMATError: there is no such model, it is not supported, or the Hub cannot be reached.
    """
    return _spec_of(model, fetch=True)


def local_spec(model: str) -> FoundationSpec | None:
    """Return the spec of `hf/MODEL` without asking the Hub: of a folder, or of what its cache holds; see `spec`."""
    return _spec_of(model, fetch=False)


def _spec_of(model: str, *, fetch: bool) -> FoundationSpec | None:
    source = find(model, fetch=fetch)
    if source is None:
        return None
    family = family_of(source.config, source.origin)
    config = library_config(source.config, source.origin)
    size, multiple = input_size(config, family, source.origin)
    mean, std = pixel_statistics(source.processor, family, source.origin)
    return FoundationSpec(
        name=PREFIX + model,
        description=_describe(family, source.weights, model),
        build="simmat_plugin_transformers.build:build_model",
        image_size=size,
        size_multiple=multiple,
        pixel_mean=mean,
        pixel_std=std,
        targets=family.targets,
        weights=source.weights,
        promptable=bool(source.weights.path or source.weights.hub),
        licence="",  # it is on the page of the model
        options={"config": source.config, "origin": source.origin},
    )


def pixel_statistics(
    processor: Mapping[str, Any], family: Family, origin: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of R, G, B on the 0..255 scale, as the image processor applies them.

    Args:
        processor: its settings as json values; empty without such a file.
        family: gives the values that are not in the settings.
        origin: place of the model, for messages.

    Raises:
        SpecError: mean or deviation is not three numbers, or a deviation is not positive.
    """
    settings = processor.get("image_processor", processor)
    if not isinstance(settings, Mapping):
        raise SpecError(
            f"the image processor of {origin} must be a table, got {settings!r}"
        )
    white = _white(settings, origin)
    if not settings.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (white,) * 3
    if "image_mean" not in settings and "image_std" not in settings:
        return family.pixels
    mean = _three(settings.get("image_mean"), white, origin)
    std = _three(settings.get("image_std"), white, origin)
    if min(std) <= 0:
        raise SpecError(
            f"the image processor of {origin} has image_std {settings['image_std']}; it must be positive"
        )
    return mean, std


def _white(settings: Mapping[str, Any], origin: str) -> float:
    """Return the value, on the 0..255 scale, that the processor maps to 1."""
    if not settings.get("do_rescale", True):
        return 1.0
    factor = settings.get("rescale_factor", 1 / 255)
    if not is_finite_number(factor) or factor <= 0:
        raise SpecError(
            f"the image processor of {origin} has rescale_factor {factor!r}; it must be a number above 0"
        )
    return 1.0 / factor


def _three(values: object, scale: float, origin: str) -> tuple[float, float, float]:
    numbers = isinstance(values, Sequence) and all(map(is_finite_number, values))
    if not isinstance(values, Sequence) or not numbers or len(values) != 3:
        raise SpecError(
            f"the image processor of {origin} must give mean and deviation of three planes, got {values!r}"
        )
    red, green, blue = (round(float(value) * scale, 9) for value in values)
    return red, green, blue


def _describe(family: Family, weights: WeightFile, model: str) -> str:
    where = (
        f"folder {model}" if is_folder(model) else f"{model} on the Hugging Face Hub"
    )
    lacks = "" if weights.path or weights.hub else ", without weights"
    return f"{family.title} of transformers, {where}{lacks}"

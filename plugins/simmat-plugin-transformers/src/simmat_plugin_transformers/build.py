"""Build models of the library: backbone and decoder, for SimMAT's transfer layers and tuners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import nn

from simmat.assemble import TooLargeError, meta_device
from simmat.errors import SimMATError, SpecError
from simmat.foundation import FoundationModel
from simmat.nn.tensor_files import first_line
from simmat.plugin_specs import FoundationSpec
from simmat_plugin_transformers.backbones import HfSamBackbone, PyramidBackbone
from simmat_plugin_transformers.configs import Family, family_of, library_config, square
from simmat_plugin_transformers.decoders import ClickDecoder, Sam2Decoder
from simmat_plugin_transformers.library import (
    loaded_model,
    new_model,
    random_model,
    resize_input,
)

_MAX_BYTES_RATIO, _MAX_BYTES_RANDOM = 8, 2**36
"""Largest size of a model: as a multiple of its weight file, which may have 16 bits, and without one in bytes."""
MAX_CALLS = 2**17
"""Calls of torch to build a model, at most; the largest published one takes some ten thousand."""


class ClickModel(nn.Module):
    """A `simmat.foundation.FoundationModel` with the mask decoder of the library.

    Attributes:
        name: name of its spec.
        image_size: S.
    """

    def __init__(
        self, name: str, model: nn.Module, config: Any, family: Family, image_size: int
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        parts = cast(Any, model)
        if family.has_pyramid:
            coarsest = square(config.prompt_encoder_config.patch_size)
            self.backbone: HfSamBackbone | PyramidBackbone = PyramidBackbone(
                parts.vision_encoder,
                family.first_layer,
                parts.no_memory_embedding,
                tuple(_whole(coarsest / step) for step in (4, 2, 1)),
            )
        else:
            self.backbone = HfSamBackbone(parts.vision_encoder, family.first_layer)
        decoder = Sam2Decoder if family.has_pyramid else ClickDecoder
        self.decoder = decoder(
            parts.prompt_encoder, parts.mask_decoder, parts.shared_image_embedding
        )

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute encoder layers in the backward pass, which saves memory and costs time."""
        self.backbone.gradient_checkpointing(on)


def build_model(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> FoundationModel:
    """Build a model of the library for S×S input; see `simmat.assemble.build_foundation`.

    Raises:
        SpecError: the library refuses the config.
        TooLargeError: the config describes a model far larger than its weights, or than any published model.
        WeightsError: the file is damaged, or of another model.
    """
    with _config_errors(spec.options["origin"]):
        return _build(spec, image_size, weights, seed)


@contextmanager
def _config_errors(origin: str) -> Iterator[None]:
    """Turn any error while building into one about the config, whose values the library hardly checks."""
    try:
        yield
    except SimMATError:
        raise
    except Exception as error:
        raise SpecError(
            f"{origin} describes no model that the library can build ({type(error).__name__}: {first_line(error)}); "
            "give the config as it was published"
        ) from error


def _build(
    spec: FoundationSpec, image_size: int, weights: Path | None, seed: int
) -> FoundationModel:
    values, origin = spec.options["config"], spec.options["origin"]
    family, config = family_of(values, origin), library_config(values, origin)
    largest = (
        _MAX_BYTES_RANDOM
        if weights is None
        else _MAX_BYTES_RATIO * weights.stat().st_size + 2**30
    )
    with meta_device(f"the model of {origin}", MAX_CALLS):
        sizes = new_model(config, family)
    if sum(tensor.nbytes for tensor in sizes.parameters()) > largest:
        raise TooLargeError(
            f"the model of {origin} would take more than {largest / 2**30:.3g} GiB of memory"
        )
    model = (
        random_model(config, family, seed)
        if weights is None
        else loaded_model(config, family, weights)
    )
    resize_input(model, config, family, image_size)
    return cast(
        FoundationModel, ClickModel(spec.name, model, config, family, image_size).eval()
    )


def _whole(stride: float) -> float:
    return int(stride) if stride == int(stride) else stride

"""Build models of the library, with weights or random, for an input size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import WeightsError
from simmat.nn.tensor_files import first_line, read_safetensors
from simmat_plugin_transformers.configs import Family, square


def new_model(config: Any, family: Family) -> nn.Module:
    """Build a model as the library does, on the device of the context."""
    with torch.random.fork_rng(devices=[]), quiet():
        return cast(nn.Module, _class(family)(config))


def random_model(config: Any, family: Family, seed: int) -> nn.Module:
    """Build a model with the library's random weights from a seed; torch's global random state is not changed.

    Two initializations differ, because the library expects weights to be loaded: the standard deviation of SAM's
    encoder is 0.02 instead of 1e-10, and that of Fourier positions is 1, as in the original code, with the same
    positions for prompts and image.
    """
    vision = getattr(config, "vision_config", None)
    if vision is not None and vision.initializer_range < 1e-4:
        vision.initializer_range = 0.02
    with torch.random.fork_rng(devices=[]), quiet():
        # torch.manual_seed would seed every GPU, too
        torch.default_generator.manual_seed(seed)
        model = _class(family)(config)
        positions = torch.randn(model.shared_image_embedding.positional_embedding.shape)
        for part in (
            model.shared_image_embedding,
            model.prompt_encoder.shared_embedding,
        ):
            part.positional_embedding.data.copy_(positions)
    return cast(nn.Module, model)


def loaded_model(config: Any, family: Family, weights: Path) -> nn.Module:
    """Build a model from a safetensors file with the library's loader, in 32-bit floats.

    Raises:
        WeightsError: the file is damaged, not safetensors, or of another model.
    """
    state = read_safetensors(weights)
    with torch.random.fork_rng(devices=[]), quiet():
        try:
            model, report = _class(family).from_pretrained(
                None,
                config=config,
                state_dict=state,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{weights} does not fit {family.title}: {first_line(error)}"
            ) from error
    problems = [
        f"{len(names)} tensors {word} ({', '.join(sorted(map(str, names))[:3])}…)"
        for word, names in (
            ("missing", report["missing_keys"]),
            ("of another shape", report["mismatched_keys"]),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{weights} does not fit {family.title} as its config describes it: {'; '.join(problems)}; "
            "give the weights that belong to the config"
        )
    return cast(nn.Module, model)


def resize_input(model: nn.Module, config: Any, family: Family, size: int) -> None:
    """Set the input size of a model to S×S, in place.

    Learned position tables are interpolated. Where the library does that itself, or positions are rotary, only the
    sizes are set.
    """
    parts = cast(Any, model)
    grid = size // square(config.prompt_encoder_config.patch_size)
    prompts = parts.prompt_encoder
    prompts.image_embedding_size, prompts.input_image_size = (grid, grid), size
    if family.has_pyramid:
        for layer in parts.vision_encoder.modules():
            # SAM 3's rotary positions
            if hasattr(layer, "precompute_positions") and layer.window_size == 0:
                layer.config.image_size = size
                layer.position_ids = layer.precompute_positions(layer.config, 0)
        return
    encoder = parts.vision_encoder
    encoder.patch_embed.image_size = (size, size)
    if encoder.pos_embed is not None and encoder.pos_embed.shape[1] != grid:
        encoder.pos_embed = nn.Parameter(
            _interpolated(encoder.pos_embed.detach(), grid)
        )


def _interpolated(positions: Tensor, grid: int) -> Tensor:
    """Interpolate (1, n, n, D) to (1, grid, grid, D), bicubic, as in ViT (arXiv 2010.11929)."""
    planes = positions.permute(0, 3, 1, 2)
    resized = F.interpolate(
        planes, (grid, grid), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.permute(0, 2, 3, 1).contiguous()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's logs and progress bars; problems are raised as errors instead."""
    logging: Any = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _class(family: Family) -> Any:
    return getattr(transformers, family.model)

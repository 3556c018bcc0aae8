"""timm's networks as they come: built, filled with weights, stripped of what a backbone does not need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]
from torch import Tensor, nn

from simmat.errors import SpecError, WeightsError
from simmat_plugin_timm.architectures import Architecture, architecture_of

State = dict[str, Tensor]
_POSITION_STRIDES = {"hiera": 4, "cait": 16}
"""Architectures whose position embeddings timm leaves at their native size -> the stride of these."""


def bare_network(model: str, **model_args: Any) -> nn.Module:
    """Build a network of timm without memory for its weights, to look at its layers."""
    with torch.device("meta"):
        return _stripped(timm.create_model(model, num_classes=0, **model_args), _known(model))


def random_network(model: str, image_size: int, seed: int, **model_args: Any) -> nn.Module:
    """Build a network for S×S input with timm's own random weights; torch's own state is left alone."""
    architecture = _known(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        network = timm.create_model(model, num_classes=0, **_sized(architecture, image_size), **model_args)
    return _stripped(network, architecture)


def loaded_network(model: str, image_size: int, weights: Path, **model_args: Any) -> nn.Module:
    """Build a network for S×S input with the weights of a file, brought to that size by timm.

    timm draws random weights first, all of which are replaced; torch's own state is left alone.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or those of another model.
    """
    architecture, state = _known(model), read_state(weights)
    if architecture.module in _POSITION_STRIDES:
        state = _positions(state, image_size // _POSITION_STRIDES[architecture.module])
    classes = _classes(model, state)
    # With the classifier of the file itself timm loads strictly: what is missing is an error, not random.
    overlay = {"state_dict": state, "num_classes": classes, **({} if classes else {"classifier": None})}
    arguments = {"num_classes": classes, **_sized(architecture, image_size), **model_args}
    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise WeightsError(f"{weights} does not fit timm/{model}: {_short(error)}") from error
    for name in ("pretrained_cfg", "default_cfg"):
        getattr(network, name, {}).pop("state_dict", None)  # else a second copy of the weights lives on
    return _stripped(network, architecture)


def read_state(weights: Path) -> State:
    """Read a file of tensors by name, as timm reads it, without running code.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or none.
    """
    try:
        state = timm.models.load_state_dict(str(weights), weights_only=True)
    except Exception as error:  # whatever a strange file makes of three readers
        raise WeightsError(
            f"{weights} is damaged, or no weight file that can be read without running code "
            f"({type(error).__name__}: {_short(error)}); give the .safetensors or .bin file as timm publishes it"
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{weights} holds no plain table of tensors by name; give a state dict")
    return {str(name): tensor for name, tensor in state.items()}


def first_convolution(network: nn.Module, architecture: Architecture, model: str) -> nn.Conv2d:
    """Return the convolution that everything begins with.

    Raises:
        SpecError: the model begins with something else.
    """
    layer = dict(network.named_modules()).get(architecture.first_layer)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.in_channels != 3:
        raise SpecError(f"timm/{model} does not begin with one plain convolution of three planes, so it is not taken")
    return layer


def level_table(network: nn.Module, architecture: Architecture) -> tuple[list[int], list[int]]:
    """Return the widths and the strides of the levels a network gives, finest first."""
    table = list(network.feature_info)  # type: ignore[arg-type]
    levels = table[architecture.first_level :] if architecture.every_level else table[-1:]
    widths = [level["num_chs_norm" if architecture.final_norm and "num_chs_norm" in level else "num_chs"]
              for level in levels]  # fmt: skip
    return widths, [level["reduction"] for level in levels]


def level_indices(network: nn.Module, architecture: Architecture) -> list[int] | int:
    """Return which of its maps timm is asked for: all stages of a hierarchy, else the last one."""
    if not architecture.every_level:
        return 1
    return list(range(architecture.first_level, len(network.feature_info)))  # type: ignore[arg-type]


def _classes(model: str, state: State) -> int:
    """Return how many classes a file's classifier has; 0 where it has none."""
    names = timm.models.get_pretrained_cfg_value(model, "classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        if f"{name}.weight" in state and state[f"{name}.weight"].ndim == 2:
            return len(state[f"{name}.weight"])
    return 0


def _known(model: str) -> Architecture:
    architecture = architecture_of(model)
    if architecture is None:
        raise SpecError(f"timm/{model} is none of the models that are taken here")
    return architecture


def _sized(architecture: Architecture, image_size: int) -> dict[str, Any]:
    return {"img_size": image_size} if architecture.sized else {}


def _stripped(network: nn.Module, architecture: Architecture) -> nn.Module:
    """Remove head and pooling, whose weights would never see a gradient."""
    network.prune_intermediate_layers(  # type: ignore[operator]
        level_indices(network, architecture), prune_norm=not architecture.final_norm, prune_head=True
    )
    for module in network.modules():
        if hasattr(module, "qkv_bias_separate"):
            # Run the layer qkv itself, to which a tuner adds, and not its weights alone.
            setattr(module, "qkv_bias_separate", True)  # noqa: B010 - typed as Tensor | Module otherwise
    return network


def _positions(state: State, side: int) -> State:
    """Bring a position embedding (1, n², D) to side × side places; timm leaves it as it is."""
    position = state.get("pos_embed")
    if position is None or position.ndim != 3 or position.shape[1] == side * side:
        return state
    resized = resample_abs_pos_embed(position, new_size=[side, side], num_prefix_tokens=0)
    return {**state, "pos_embed": resized}


def _short(error: Exception) -> str:
    """Return what an error says, without torch's heading and the names behind the first few."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Error(s) in loading")] or [type(error).__name__]
    return "; ".join(re.sub(r"((?:\"[^\"]*\", ){3}).*", r"\1…", line) for line in lines[:3])

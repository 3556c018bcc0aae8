"""Build timm's networks, load their weights, and remove what a backbone does not need."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Conv2dSame, StdConv2dSame  # type: ignore[attr-defined]
from timm.models.efficientformer import Attention as OffsetAttention
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import SpecError, WeightsError
from simmat_plugin_timm.architectures import Architecture, known_architecture
from simmat_plugin_timm.positions import State, resized, resized_offsets

FINEST, COARSEST = 4, 16
"""Finest and coarsest stride of a pyramid's levels, if a network has them."""


def bare_network(model: str, **model_args: Any) -> nn.Module:
    """Build a network of timm on the meta device, to inspect its layers."""
    with torch.device("meta"):
        return _stripped(timm.create_model(model, num_classes=0, **model_args), known_architecture(model))


def random_network(model: str, image_size: int, seed: int, **model_args: Any) -> nn.Module:
    """Build a network for S×S input with timm's random weights; torch's global random state stays the same."""
    architecture = known_architecture(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU
        network = timm.create_model(model, num_classes=0, **_sized(architecture, image_size), **model_args)
    return _stripped(network, architecture, image_size)


def loaded_network(model: str, image_size: int, weights: Path, **model_args: Any) -> nn.Module:
    """Build a network for S×S input with the weights of a file, which timm resizes for it.

    torch's global random state stays the same.

    Raises:
        WeightsError: the file is damaged, has more than tensors, or belongs to another model.
    """
    architecture, state = known_architecture(model), read_state(weights)
    if architecture.tables:
        with torch.device("meta"):
            bare = timm.create_model(model, num_classes=0, **_sized(architecture, image_size), **model_args)
        state = resized(state, {name: value.shape for name, value in bare.state_dict().items()}, architecture.tables)
    classes = _classes(model, state)
    # With the file's own classifier timm loads strictly: a missing tensor is an error, not random.
    overlay = {"state_dict": state, "num_classes": classes, **({} if classes else {"classifier": None})}
    arguments = {"num_classes": classes, **_sized(architecture, image_size), **model_args}
    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise WeightsError(f"{weights} does not fit timm/{model}: {_short(error)}") from error
    for name in ("pretrained_cfg", "default_cfg"):
        getattr(network, name, {}).pop("state_dict", None)  # else a second copy of the weights stays in memory
    network = _stripped(network, architecture, image_size)
    if "siglip" in model or model.partition(".")[0].endswith("_fl"):
        _check_complete(network, state, f"{weights} does not fit timm/{model}")
    return network


def read_state(weights: Path) -> State:
    """Read a state dict as timm does, without running code from the file.

    Raises:
        WeightsError: the file is damaged, or is not a dict of tensors.
    """
    try:
        state = timm.models.load_state_dict(str(weights), weights_only=True)
    except Exception as error:  # timm has three readers, with many kinds of errors
        raise WeightsError(
            f"{weights} is damaged, or cannot be read without running code from it "
            f"({type(error).__name__}: {_short(error)}); give the .safetensors or .bin file as timm publishes it"
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{weights} is not a table of tensors by name; give a state dict")
    return {str(name): tensor for name, tensor in state.items()}


def first_layer_name(network: nn.Module) -> str:
    """Return the name of a network's first convolution, from timm's registry."""
    return str(network.pretrained_cfg["first_conv"])  # type: ignore[index]


def first_convolution(network: nn.Module, model: str) -> nn.Conv2d:
    """Return a network's first convolution.

    Raises:
        SpecError: the network starts with another layer.
    """
    layer = dict(network.named_modules()).get(first_layer_name(network))
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.in_channels != 3:
        raise SpecError(
            f"timm/{model} is not supported: it does not start with one convolution of three planes without groups"
        )
    return layer


@dataclass(frozen=True, slots=True)
class Levels:
    """The maps taken from a network, and the levels made from them, finest first.

    With a map at stride 4, each map is a level. Without, the pyramid makes finer levels itself; for it to end at stride
    16, coarser maps are enlarged and concatenated to the map at that stride.

    Attributes:
        indices: timm's indices of the maps.
        widths: channels of the levels.
        strides: strides of the levels in pixels.
        enlarge: factor for each map after the last level, which is enlarged and concatenated to that level.
        multiple: the input's side must be a multiple of this.
    """

    indices: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    enlarge: tuple[int, ...]
    multiple: int


def levels_of(network: nn.Module, architecture: Architecture) -> Levels:
    """Select the last map at each stride from 4 on, from timm's description of a network."""
    table = list(enumerate(network.feature_info))  # type: ignore[arg-type]
    last = {level["reduction"]: (index, level) for index, level in table[architecture.first_level :]}
    strides = sorted(stride for stride in last if stride >= FINEST)
    width = "num_chs_norm" if architecture.final_norm else "num_chs"
    widths = [last[stride][1].get(width, last[stride][1]["num_chs"]) for stride in strides]
    kept = len(strides)
    if strides[0] > FINEST:
        kept = max(1, sum(stride <= COARSEST for stride in strides))
    return Levels(
        indices=tuple(last[stride][0] for stride in strides),
        widths=(*widths[: kept - 1], sum(widths[kept - 1 :])),
        strides=tuple(strides[:kept]),
        enlarge=tuple(stride // strides[kept - 1] for stride in strides[kept:]),
        # Enlarged maps may be cropped at the edge, such as one at stride 64 of a 224 px input.
        multiple=math.lcm(max(strides[kept - 1], min(strides[-1], 32)), architecture.multiple),
    )


def _classes(model: str, state: State) -> int:
    """Return the number of classes of a file's classifier; 0 without a classifier."""
    names = timm.models.get_pretrained_cfg_value(model, "classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        if f"{name}.weight" in state and state[f"{name}.weight"].ndim == 2:
            return len(state[f"{name}.weight"])
    return 0


def _check_complete(network: nn.Module, state: State, what: str) -> None:
    """Refuse a file without some tensors, for models whose files timm does not check: SigLIP and Florence."""
    filtered = sys.modules[type(network).__module__].checkpoint_filter_fn(dict(state), network)
    missing = [f'"{name}"' for name in network.state_dict() if name not in filtered]
    if missing:
        raise WeightsError(
            f"{what}: Missing key(s) in state_dict: {', '.join(missing[:3])}{', …' * (len(missing) > 3)}"
        )


def _sized(architecture: Architecture, image_size: int) -> dict[str, Any]:
    return {"img_size": image_size} if architecture.sized else {}


def _stripped(network: nn.Module, architecture: Architecture, image_size: int | None = None) -> nn.Module:
    """Remove head and pooling, whose weights would get no gradient, and adapt layers to size and tuning."""
    network.prune_intermediate_layers(  # type: ignore[operator]
        list(levels_of(network, architecture).indices), prune_norm=not architecture.final_norm, prune_head=True
    )
    for module in network.modules():
        if hasattr(module, "qkv_bias_separate"):
            # Call the layer qkv, which a tuner may replace, instead of using its weights.
            setattr(module, "qkv_bias_separate", True)  # noqa: B010 - typed as Tensor | Module otherwise
        if isinstance(module, OffsetAttention) and image_size is not None:
            _fit_offsets(module, image_size // 32)
    _standardize(dict(network.named_modules()).get(first_layer_name(network)))
    return network


@torch.no_grad()
def _fit_offsets(attention: OffsetAttention, side: int) -> None:
    """Resize EfficientFormer's attention, which timm builds for 224 px, to side × side positions."""
    if attention.attention_biases.shape[1] == side * side:
        return
    attention.attention_biases = nn.Parameter(resized_offsets(attention.attention_biases, side))
    positions = torch.cartesian_prod(torch.arange(side), torch.arange(side))  # (side², 2)
    offsets = (positions[:, None] - positions[None]).abs()
    attention.attention_bias_idxs = offsets[..., 0] * side + offsets[..., 1]


@torch.no_grad()
def _standardize(layer: nn.Module | None) -> None:
    """Replace a convolution that standardizes its weights in every pass by a plain one with standardized weights.

    Copies with other channels would otherwise be standardized again and give other features.
    """
    if isinstance(layer, StdConv2dSame):
        flat = layer.weight.reshape(1, layer.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=layer.eps)
        layer.weight.copy_(weight.reshape_as(layer.weight))
        layer.__class__ = Conv2dSame if layer.same_pad else nn.Conv2d  # type: ignore[assignment]


def _short(error: Exception) -> str:
    """Return the text of an error without torch's heading, and with the first three of each list of names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Error(s) in loading")] or [type(error).__name__]
    return "; ".join(re.sub(r"((?:\"[^\"]*\", ){3}).*", r"\1…", line) for line in lines[:3])

"""timm's networks as they come: built, filled with weights, stripped of what a backbone does not need."""

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
from simmat_plugin_timm.architectures import Architecture, architecture_of
from simmat_plugin_timm.positions import State, resized, resized_offsets

FINEST, COARSEST = 4, 16
"""Strides between which the three levels of a pyramid lie, where a network has them."""


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
    return _stripped(network, architecture, image_size)


def loaded_network(model: str, image_size: int, weights: Path, **model_args: Any) -> nn.Module:
    """Build a network for S×S input with the weights of a file, brought to that size by timm.

    timm draws random weights first, all of which are replaced; torch's own state is left alone.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or those of another model.
    """
    architecture, state = _known(model), read_state(weights)
    if architecture.tables:
        with torch.device("meta"):
            bare = timm.create_model(model, num_classes=0, **_sized(architecture, image_size), **model_args)
        state = resized(state, {name: value.shape for name, value in bare.state_dict().items()}, architecture.tables)
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
    network = _stripped(network, architecture, image_size)
    if "siglip" in model or model.partition(".")[0].endswith("_fl"):
        _check_complete(network, state, f"{weights} does not fit timm/{model}")
    return network


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


def first_layer_name(network: nn.Module) -> str:
    """Return the name of the convolution that everything begins with, as timm says it."""
    return str(network.pretrained_cfg["first_conv"])  # type: ignore[index]


def first_convolution(network: nn.Module, model: str) -> nn.Conv2d:
    """Return the convolution that everything begins with.

    Raises:
        SpecError: the model begins with something else.
    """
    layer = dict(network.named_modules()).get(first_layer_name(network))
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.in_channels != 3:
        raise SpecError(f"timm/{model} does not begin with one plain convolution of three planes, so it is not taken")
    return layer


@dataclass(frozen=True, slots=True)
class Levels:
    """Which of its maps a network is asked for, and which levels become of them, finest first.

    A pyramid makes of one level, or two, the finer ones. So that it ends at a stride of 16, coarser maps are enlarged
    and laid beside the one at that stride, where there is no map at a stride of 4; where there is, each is a level.

    Attributes:
        indices: of the maps, as timm counts.
        widths: channels of the levels.
        strides: of the levels, in pixels.
        enlarge: how many times larger the maps behind the last level become, which are laid beside it.
        multiple: the input's side is a multiple of this.
    """

    indices: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    enlarge: tuple[int, ...]
    multiple: int


def levels_of(network: nn.Module, architecture: Architecture) -> Levels:
    """Take the last map at each stride from 4 on, by what timm says of a network."""
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
        # What is enlarged may be cut at the edge, as a map at a stride of 64 from an input of 224 pixels.
        multiple=math.lcm(max(strides[kept - 1], min(strides[-1], 32)), architecture.multiple),
    )


def _classes(model: str, state: State) -> int:
    """Return how many classes a file's classifier has; 0 where it has none."""
    names = timm.models.get_pretrained_cfg_value(model, "classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        if f"{name}.weight" in state and state[f"{name}.weight"].ndim == 2:
            return len(state[f"{name}.weight"])
    return 0


def _check_complete(network: nn.Module, state: State, what: str) -> None:
    """Refuse a file that lacks tensors, for the models timm loads without looking: SigLIP's and Florence's."""
    filtered = sys.modules[type(network).__module__].checkpoint_filter_fn(dict(state), network)
    missing = [f'"{name}"' for name in network.state_dict() if name not in filtered]
    if missing:
        raise WeightsError(
            f"{what}: Missing key(s) in state_dict: {', '.join(missing[:3])}{', …' * (len(missing) > 3)}"
        )


def _known(model: str) -> Architecture:
    architecture = architecture_of(model)
    if architecture is None:
        raise SpecError(f"timm/{model} is none of the models that are taken here")
    return architecture


def _sized(architecture: Architecture, image_size: int) -> dict[str, Any]:
    return {"img_size": image_size} if architecture.sized else {}


def _stripped(network: nn.Module, architecture: Architecture, image_size: int | None = None) -> nn.Module:
    """Remove head and pooling, whose weights would never see a gradient, and mend what timm does not do itself."""
    network.prune_intermediate_layers(  # type: ignore[operator]
        list(levels_of(network, architecture).indices), prune_norm=not architecture.final_norm, prune_head=True
    )
    for module in network.modules():
        if hasattr(module, "qkv_bias_separate"):
            # Run the layer qkv itself, to which a tuner adds, and not its weights alone.
            setattr(module, "qkv_bias_separate", True)  # noqa: B010 - typed as Tensor | Module otherwise
        if isinstance(module, OffsetAttention) and image_size is not None:
            _fit_offsets(module, image_size // 32)
    _standardise(dict(network.named_modules()).get(first_layer_name(network)))
    return network


@torch.no_grad()
def _fit_offsets(attention: OffsetAttention, side: int) -> None:
    """Bring EfficientFormer's attention, which timm builds for an input of 224 pixels, to side × side places."""
    if attention.attention_biases.shape[1] == side * side:
        return
    attention.attention_biases = nn.Parameter(resized_offsets(attention.attention_biases, side))
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side))  # (side², 2)
    away = (places[:, None] - places[None]).abs()
    attention.attention_bias_idxs = away[..., 0] * side + away[..., 1]


@torch.no_grad()
def _standardise(layer: nn.Module | None) -> None:
    """Make of a convolution that standardises its weights in every pass a plain one with these weights.

    So a copy of it that sees other channels answers alike: standardised anew, other weights would be others.
    """
    if isinstance(layer, StdConv2dSame):
        flat = layer.weight.reshape(1, layer.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=layer.eps)
        layer.weight.copy_(weight.reshape_as(layer.weight))
        layer.__class__ = Conv2dSame if layer.same_pad else nn.Conv2d  # type: ignore[assignment]


def _short(error: Exception) -> str:
    """Return what an error says, without torch's heading and the names behind the first few."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Error(s) in loading")] or [type(error).__name__]
    return "; ".join(re.sub(r"((?:\"[^\"]*\", ){3}).*", r"\1…", line) for line in lines[:3])

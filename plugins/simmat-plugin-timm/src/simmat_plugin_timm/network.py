"""Build timm's networks, load their weights, and remove what a backbone does not need."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from simmat_plugin_sam.pyramid import PromptableModel
from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]
from torch import Tensor, nn

from simmat.errors import SpecError, WeightsError
from simmat.nn.first_layer import OverridableConv2d, blank_image, make_overridable
from simmat.plugin_specs import FoundationSpec
from simmat_plugin_timm.architectures import Architecture, known_architecture


class TimmBody(nn.Module):
    """A network of timm as `simmat_plugin_sam.pyramid.FeatureMaps`.

    Args:
        network: the network without its head.
        architecture: its architecture.

    Attributes:
        model: the network.
        widths: channels of its levels, finest first.
        strides: strides of its levels in pixels.
        gradient_checkpointing: recompute blocks in the backward pass to save memory; only if the network supports it.
    """

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self._levels = levels_of(network, architecture)
        self.widths, self.strides = self._levels.widths, self._levels.strides
        self.model = network
        self._final_norm = architecture.final_norm
        self._first_name = first_layer_name(network)
        make_overridable(network, self._first_name)
        if _has_checkpointing(network):
            self.gradient_checkpointing = network.set_grad_checkpointing

    @property
    def first_layer(self) -> OverridableConv2d:
        """The network's first convolution."""
        return cast(OverridableConv2d, self.model.get_submodule(self._first_name))

    def embed(self, image: Tensor) -> Tensor:
        """Run the first convolution: (B, 3, S, S) to (B, D, S/k, S/k)."""
        features: Tensor = self.first_layer(image)
        return features

    def maps(self, features: Tensor) -> list[Tensor]:
        """Run the rest: return one map (B, width, S / stride, S / stride) per level."""
        first = self.first_layer
        with first.override(features):
            maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
                blank_image(features, first),
                indices=list(self._levels.indices),
                norm=self._final_norm,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        return maps


def _has_checkpointing(network: nn.Module) -> bool:
    """True if timm supports gradient checkpointing of a network; it raises an AssertionError if not."""
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except AssertionError:
        return False
    network.set_grad_checkpointing(False)  # type: ignore[operator]
    return True


FINEST = 4
"""Finest stride of a pyramid's levels."""
HIERA_STRIDE = 4
"""Stride of Hiera's position table."""
State = dict[str, Tensor]


def bare_network(model: str, **model_args: Any) -> nn.Module:
    """Build a network of timm on the meta device, to inspect its layers."""
    with torch.device("meta"):
        return _stripped(
            timm.create_model(model, num_classes=0, **model_args),
            known_architecture(model),
        )


def random_network(
    model: str, image_size: int, seed: int, **model_args: Any
) -> nn.Module:
    """Build a network for S×S input with timm's random weights; torch's global random state stays the same."""
    architecture = known_architecture(model)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU
        torch.default_generator.manual_seed(seed)
        network = timm.create_model(
            model, num_classes=0, **_sized(architecture, image_size), **model_args
        )
    return _stripped(network, architecture)


def loaded_network(
    model: str, image_size: int, weights: Path, **model_args: Any
) -> nn.Module:
    """Build a network for S×S input with the weights of a file, which timm resizes for it.

    torch's global random state stays the same.

    Raises:
        WeightsError: the file is damaged, has more than tensors, or belongs to another model.
    """
    architecture, state = known_architecture(model), read_state(weights)
    table = state.get("pos_embed")
    # timm resizes all other tables
    if architecture.module == "hiera" and table is not None and table.ndim == 3:
        side = image_size // HIERA_STRIDE
        state["pos_embed"] = resample_abs_pos_embed(
            table, [side, side], num_prefix_tokens=0
        )
    classes = _classes(model, state)
    # With the file's own classifier timm loads strictly: a missing tensor is an error, not random.
    overlay = {
        "state_dict": state,
        "num_classes": classes,
        **({} if classes else {"classifier": None}),
    }
    arguments = {
        "num_classes": classes,
        **_sized(architecture, image_size),
        **model_args,
    }
    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(
                model, pretrained=True, pretrained_cfg_overlay=overlay, **arguments
            )
    except (
        RuntimeError,
        KeyError,
        ValueError,
        AttributeError,
        TypeError,
        IndexError,
    ) as error:
        raise WeightsError(
            f"{weights} does not fit timm/{model}: {_short(error)}"
        ) from error
    for name in ("pretrained_cfg", "default_cfg"):
        # else a second copy of the weights stays in memory
        getattr(network, name, {}).pop("state_dict", None)
    network = _stripped(network, architecture)
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
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(value, Tensor) for value in state.values())
    ):
        raise WeightsError(
            f"{weights} is not a table of tensors by name; give a state dict"
        )
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

    The input's side must be a multiple of the last stride.

    Attributes:
        indices: timm's indices of the maps.
        widths: channels of the levels.
        strides: strides of the levels in pixels.
    """

    indices: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]


def levels_of(network: nn.Module, architecture: Architecture) -> Levels:
    """Select the last map at each stride from 4 on, from timm's description of a network."""
    levels = cast(Iterable[Any], network.feature_info)
    last = {level["reduction"]: (index, level) for index, level in enumerate(levels)}
    strides = tuple(sorted(stride for stride in last if stride >= FINEST))
    width = "num_chs_norm" if architecture.final_norm else "num_chs"
    return Levels(
        indices=tuple(last[stride][0] for stride in strides),
        widths=tuple(
            last[stride][1].get(width, last[stride][1]["num_chs"]) for stride in strides
        ),
        strides=strides,
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
    filtered = sys.modules[type(network).__module__].checkpoint_filter_fn(
        dict(state), network
    )
    missing = [f'"{name}"' for name in network.state_dict() if name not in filtered]
    if missing:
        raise WeightsError(
            f"{what}: Missing key(s) in state_dict: {', '.join(missing[:3])}{', …' * (len(missing) > 3)}"
        )


def _sized(architecture: Architecture, image_size: int) -> dict[str, Any]:
    return {"img_size": image_size} if architecture.sized else {}


def _stripped(network: nn.Module, architecture: Architecture) -> nn.Module:
    """Remove head and pooling, whose weights would get no gradient, and adapt layers to tuning."""
    network.prune_intermediate_layers(  # type: ignore[operator]
        list(levels_of(network, architecture).indices),
        prune_norm=not architecture.final_norm,
        prune_head=True,
    )
    for module in network.modules():
        if hasattr(module, "qkv_bias_separate"):
            # Call the layer qkv, which a tuner may replace, instead of using its weights.
            setattr(module, "qkv_bias_separate", True)  # noqa: B010 - typed as Tensor | Module otherwise
    return network


def _short(error: Exception) -> str:
    """Return the text of an error without torch's heading, and with the first three of each list of names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Error(s) in loading")] or [
        type(error).__name__
    ]
    return "; ".join(
        re.sub(r"((?:\"[^\"]*\", ){3}).*", r"\1…", line) for line in lines[:3]
    )


def build_timm(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> PromptableModel:
    """Build a model of timm; see `simmat.assemble.build_foundation`.

    The weights are those of timm's network; pyramid and decoder are always random from the seed.

    Raises:
        SpecError: the model is not supported.
        WeightsError: the file is damaged or belongs to another model.
    """
    options = dict(spec.options)
    model, model_args = options.pop("model"), options.pop("model_args")
    architecture = known_architecture(model)
    if weights is None:
        network = random_network(model, image_size, seed, **model_args)
    else:
        network = loaded_network(model, image_size, weights, **model_args)
    body = TimmBody(network, architecture)
    return PromptableModel(
        spec.name, body, image_size=image_size, seed=seed, **options
    ).eval()

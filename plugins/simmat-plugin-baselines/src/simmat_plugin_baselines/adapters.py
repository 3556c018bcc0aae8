"""MLP adapters: a small trained MLP parallel to a frozen one, on the same residual stream.

AdaptFormer (Chen et al. 2022, arXiv 2205.13535): y = x + MLP(norm(x)) + scale · up(ReLU(down(x))). `up` starts at zero,
so step 0 equals the untuned model.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.mat import uniform_
from simmat.nn.tuners import check_options, model_name, targeted_modules
from simmat.plugin_specs import TuningTargets


class Adapter(nn.Module):
    """Linear to `width` features, ReLU, linear back, per position: (…, D) or (B, D, H, W) to the same shape.

    Args:
        like: the Linear or Conv2d whose input the adapter gets; sets D, layout, device and dtype.
        width: hidden features.
        scale: factor of the output.
        generator: draws the first layer; the second starts at zero.
    """

    def __init__(
        self,
        like: nn.Linear | nn.Conv2d,
        width: int,
        scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        size = like.in_features if isinstance(like, nn.Linear) else like.in_channels
        down = uniform_(torch.empty(width, size), size, generator)
        down_bias = uniform_(torch.empty(width), size, generator)
        self.scale = scale
        self.on_grid = isinstance(like, nn.Conv2d)
        self.down = nn.Parameter(down.to(like.weight))  # (width, D)
        self.down_bias = nn.Parameter(down_bias.to(like.weight))
        self.up = nn.Parameter(torch.zeros(size, width).to(like.weight))  # (D, width)
        self.up_bias = nn.Parameter(torch.zeros(size).to(like.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the MLP's output, in the shape of x."""
        if self.on_grid:
            inner = F.relu(F.conv2d(x, self.down[..., None, None], self.down_bias))
            return F.conv2d(inner, self.up[..., None, None], self.up_bias) * self.scale
        return (
            F.linear(
                F.relu(F.linear(x, self.down, self.down_bias)), self.up, self.up_bias
            )
            * self.scale
        )


class Adapted(nn.Module):
    """A module with a parallel adapter: base(norm(x)) + adapter(x).

    Args:
        base: the residual MLP or block.
        norm: the norm before it, moved here.
        adapter: gets the input before the norm.
    """

    def __init__(self, base: nn.Module, norm: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.base, self.norm, self.adapter = base, norm, adapter

    def forward(self, x: Tensor) -> Tensor:
        """Map x to a tensor of its shape."""
        plain: Tensor = self.base(self.norm(x))
        added: Tensor = self.adapter(x)
        return plain + added


def apply_adapter(
    model: nn.Module,
    *,
    targets: TuningTargets,
    generator: torch.Generator,
    width: int,
    scale: float,
) -> None:
    """Add an adapter to every module that the model names, in backbone and decoder.

    The module moves to `NAME.base`, the norm before it to `NAME.norm`.

    Args:
        targets: names the modules for `adapters`.
        width: hidden features, at least 1.
        scale: factor of the adapters' output, greater than 0.

    Raises:
        ConfigError: an option is out of range, or the model names no module that takes an adapter.
    """
    check_options(
        "adapter",
        (width >= 1, f"width must be at least 1, got {width}"),
        (scale > 0, f"scale must be greater than 0, got {scale}"),
    )
    for name, module in targeted_modules(model, targets.adapters, "adapter"):
        norm = next(
            norm
            for pattern, norm in targets.adapters.items()
            if re.fullmatch(pattern, name)
        )
        path, _, leaf = name.rpartition(".")
        parent = model.get_submodule(path)
        layer = next(
            (
                part
                for part in module.modules()
                if isinstance(part, nn.Linear | nn.Conv2d)
            ),
            None,
        )
        before = getattr(parent, norm, None) if norm else nn.Identity()
        if layer is None or before is None:
            missing = (
                "no Linear or Conv2d in it"
                if layer is None
                else f"no norm {norm!r} next to it"
            )
            raise ConfigError(
                f"foundation model {model_name(model)!r} names {name!r} for tuner 'adapter', but there is {missing}"
            )
        if norm:
            setattr(parent, norm, nn.Identity())
        setattr(
            parent,
            leaf,
            Adapted(module, before, Adapter(layer, width, scale, generator)),
        )

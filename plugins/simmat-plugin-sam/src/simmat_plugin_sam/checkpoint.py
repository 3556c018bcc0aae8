"""Read, check and resize the weights of SAM, or draw random ones from a seed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import WeightsError
from simmat.nn.mat import uniform_
from simmat.nn.tensor_files import read_safetensors, read_torch
from simmat.plugin_specs import FoundationSpec
from simmat_plugin_sam.specs import VIT_MODELS

State = dict[str, Tensor]

_PATCH = "image_encoder.patch_embed.proj.weight"
_POSITION = "image_encoder.pos_embed"


def read_checkpoint(path: Path) -> State:
    """Read a `.pth` or `.safetensors` file as name -> tensor; code in it is never run.

    Raises:
        WeightsError: the file is missing, damaged, holds more than tensors, or holds none.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)


def check_variant(
    state: Mapping[str, Tensor], spec: FoundationSpec, path: Path
) -> None:
    """Check that weights are those of a spec.

    Raises:
        WeightsError: they are not those of a SAM, or those of another SAM, which the message names.
    """
    if _PATCH not in state or state[_PATCH].ndim != 4:
        raise WeightsError(
            f"{path} is not a Segment Anything checkpoint: it has no tensor {_PATCH!r}; "
            + describe_other(state, "the .pth that segment-anything publishes")
        )
    blocks = {
        match[1]
        for name in state
        if (match := re.match(r"image_encoder[.]blocks[.]([0-9]+)[.]", name))
    }
    found = (state[_PATCH].shape[0], len(blocks))
    if found == (spec.options["dim"], spec.options["depth"]):
        return
    names = {
        (other.options["dim"], other.options["depth"]): other.name
        for other in VIT_MODELS
    }
    what = names.get(found, f"an unknown SAM of width {found[0]} and depth {found[1]}")
    advice = f"; use --foundation {names[found]}" if found in names else ""
    raise WeightsError(f"{path}: this is {what}, expected {spec.name}{advice}")


def fit_state(state: Mapping[str, Tensor], model: nn.Module, where: str) -> State:
    """Fit weights to a model's input size; tensors whose shape already fits keep their bits.

    Position embeddings are interpolated bicubically (ViT, arXiv 2010.11929), the tables of relative positions
    linearly, as segment-anything does.

    Args:
        state: weights under segment-anything's names.
        model: the parts of `segment_anything.modeling.Sam` under the same names.
        where: origin of the weights, for messages.

    Raises:
        WeightsError: a tensor is missing, unknown, not a float, or of a shape that cannot be fitted.
    """
    wanted = model.state_dict()
    differences = {
        "missing": wanted.keys() - state.keys(),
        "unknown": state.keys() - wanted.keys(),
    }
    problems = [
        f"{len(names)} tensors {word} ({', '.join(sorted(names)[:3])}…)"
        for word, names in differences.items()
        if names
    ]
    fitted: State = {}
    for name in sorted(wanted.keys() & state.keys()):
        tensor = _fit(name, state[name], tuple(wanted[name].shape), model)
        if tuple(tensor.shape) != tuple(wanted[name].shape):
            problems.append(
                f"{name} has shape {tuple(tensor.shape)}, needs {tuple(wanted[name].shape)}"
            )
        elif not tensor.is_floating_point():
            problems.append(f"{name} is {tensor.dtype}, needs a float")
        else:
            # A copy: training must not write to the memory-mapped file, nor changes of the file reach the model.
            fitted[name] = tensor.to(torch.float32, copy=True).contiguous()
    if problems:
        raise WeightsError(f"{where} does not fit: " + "; ".join(problems[:5]))
    return fitted


def random_state(model: nn.Module, seed: int) -> State:
    """Return random weights for every tensor of a model, which may be on the meta device; the same for each seed.

    Linear and convolution layers get torch's default, embeddings a normal distribution, positions one of std 0.02.
    torch's global random state is not used.
    """
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for full, tensor in model.state_dict().items():
        prefix, _, name = full.rpartition(".")
        state[full] = _random_tensor(
            model.get_submodule(prefix), name, tensor, generator
        )
    return state


def _random_tensor(
    module: nn.Module, name: str, like: Tensor, generator: torch.Generator
) -> Tensor:
    values = torch.zeros(like.shape)
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        fan_in = module.weight[0].numel()
        uniform_(values, fan_in, generator)
    elif (
        isinstance(module, nn.Embedding)
        or name == "positional_encoding_gaussian_matrix"
    ):
        values.normal_(generator=generator)
    elif name in ("pos_embed", "rel_pos_h", "rel_pos_w"):
        values.normal_(std=0.02, generator=generator)
    elif name == "weight":  # the norms
        values.fill_(1.0)
    return values


def _fit(name: str, tensor: Tensor, shape: tuple[int, ...], model: nn.Module) -> Tensor:
    """Interpolate a tensor that depends on the input size; return any other as it is."""
    if tuple(tensor.shape) == shape or not tensor.is_floating_point():
        return tensor
    # (1, n, n, D)
    if name == _POSITION and tensor.ndim == 4 and tensor.shape[1] == tensor.shape[2]:
        grid = tensor.float().permute(0, 3, 1, 2)
        resized = F.interpolate(
            grid, shape[1:3], mode="bicubic", align_corners=False, antialias=True
        )
        return resized.permute(0, 2, 3, 1)
    table = re.fullmatch(
        r"(image_encoder[.]blocks[.][0-9]+)[.]attn[.]rel_pos_[hw]", name
    )
    # (2n - 1, d)
    if table and tensor.ndim == 2 and model.get_submodule(table[1]).window_size == 0:
        return F.interpolate(tensor.float().T[None], shape[0], mode="linear")[0].T
    return tensor


def describe_other(state: Mapping[str, Tensor], wanted: str) -> str:
    """Say which tensors weights of another model begin with, what they probably are, and what to do.

    Args:
        state: the weights.
        wanted: the file to give instead.
    """
    names = list(state)
    if any(name.startswith("vision_encoder.") for name in names):
        hint = f"this looks like the layout of `transformers`; give {wanted}"
    elif any("image_encoder.trunk" in name for name in names):
        hint = "this looks like SAM 2, which is a different model"
    elif any(name.startswith("module.") for name in names):
        hint = "its names begin with 'module.'; save the model inside DistributedDataParallel instead"
    elif _PATCH in state:
        hint = "this looks like SAM with a ViT; use --foundation sam_vit_b, sam_vit_l or sam_vit_h"
    elif any(
        name.startswith("image_encoder.layers.0.blocks.0.conv1.") for name in names
    ):
        hint = "this looks like MobileSAM; use --foundation mobilesam"
    else:
        hint = f"give {wanted}"
    return (
        f"its first tensors are {', '.join(repr(name) for name in names[:3])}; {hint}"
    )

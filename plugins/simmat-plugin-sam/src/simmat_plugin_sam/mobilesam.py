"""MobileSAM (Zhang et al. 2023, arXiv 2306.14289): TinyViT in front of Segment Anything's prompt decoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from simmat.assemble import meta_device
from simmat.errors import WeightsError
from simmat.plugin_specs import FoundationSpec
from simmat_plugin_sam.checkpoint import (
    State,
    describe_other,
    fit_state,
    random_state,
    read_checkpoint,
)
from simmat_plugin_sam.model import SamDecoder, sam_parts
from simmat_plugin_sam.tinyvit import TinyVit, TinyVitBackbone, distances

_BATCH_NORM_EPS = 1e-5
_UNUSED = ("image_encoder.norm_head.", "image_encoder.head.")
"""TinyViT's classifier, which MobileSAM's file still holds."""
_QKV = re.compile(r"image_encoder[.]layers[.]([0-3])[.]blocks[.][0-9]+[.]attn[.]qkv")


class MobileSamModel(nn.Module):
    """MobileSAM as a `simmat.foundation.FoundationModel`.

    Attributes:
        name: name of its spec.
        image_size: S.
    """

    def __init__(self, spec: FoundationSpec, image_size: int) -> None:
        super().__init__()
        self.name = spec.name
        self.image_size = image_size
        options = spec.options
        encoder = TinyVit(
            widths=options["widths"],
            depths=options["depths"],
            heads=options["heads"],
            windows=options["windows"],
            out=options["prompt_dim"],
        )
        self.backbone = TinyVitBackbone(encoder)
        self.decoder = SamDecoder(spec, image_size)

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute encoder blocks in the backward pass, which saves memory and costs time."""
        self.backbone.image_encoder.checkpoint_blocks = on


def build_mobilesam(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> MobileSamModel:
    """Build MobileSAM for S×S input; see `simmat.assemble.build_foundation`.

    Args:
        weights: a file with the names of this package, or `mobile_sam.pt` as its authors publish it.

    Raises:
        WeightsError: the file is damaged, or of another model.
    """
    with meta_device():
        model = MobileSamModel(spec, image_size)
    parts = sam_parts(model)
    if weights is None:
        state, where = random_state(parts, seed), f"{spec.name} of seed {seed}"
    else:
        state, where = read_checkpoint(weights), str(weights)
        if "image_encoder.layers.0.blocks.0.conv1.c.weight" in state:
            state = fold_batch_norm(state, where, heads=spec.options["heads"])
        elif "image_encoder.layers.0.blocks.0.conv1.weight" not in state:
            raise WeightsError(
                f"{where} is not a MobileSAM checkpoint: it has no tensor of TinyViT's first block; "
                + describe_other(state, "MobileSAM's mobile_sam.pt")
            )
    parts.load_state_dict(fit_state(state, parts, where), assign=True)
    return model.eval()


def fold_batch_norm(
    state: Mapping[str, Tensor], where: str, *, heads: tuple[int, ...]
) -> State:
    """Change the weights of `mobile_sam.pt` to the names and the layout of this package.

    Each BatchNorm becomes part of the convolution before it, computed in float64. The rows of `qkv` are q, k and v of
    each head there, and all of q, then k, then v here. TinyViT's classifier is left out.

    Args:
        where: origin of the weights, for messages.
        heads: attention heads of the four stages.

    Raises:
        WeightsError: a convolution lacks a tensor of its BatchNorm, or the attention has other distances.
    """
    folded: State = {}
    for name, tensor in state.items():
        prefix, _, leaf = name.rpartition(".")
        if name.startswith(_UNUSED) or prefix.endswith(".bn"):
            continue
        if leaf == "attention_bias_idxs":
            if not torch.equal(tensor.cpu(), distances(round(tensor.numel() ** 0.25))):
                raise WeightsError(
                    f"{where} does not fit: {name} has distances that differ from MobileSAM's"
                )
        elif leaf == "weight" and prefix.endswith(".c"):
            conv = prefix.removesuffix(".c")
            norm = [
                state.get(f"{conv}.bn.{part}")
                for part in ("weight", "bias", "running_mean", "running_var")
            ]
            if any(part is None or part.shape != tensor.shape[:1] for part in norm):
                raise WeightsError(
                    f"{where} does not fit: {conv}.bn is missing or has different channels"
                )
            scale, shift, mean, variance = (
                part.double() for part in norm if part is not None
            )
            factor = scale / (variance + _BATCH_NORM_EPS).sqrt()
            folded[f"{conv}.weight"] = pointwise_as_linear(
                (tensor.double() * factor[:, None, None, None]).float()
            )
            folded[f"{conv}.bias"] = (shift - mean * factor).float()
        elif (
            (qkv := _QKV.fullmatch(prefix))
            and tensor.ndim
            and len(tensor) % (3 * heads[int(qkv[1])]) == 0
        ):
            folded[name] = by_part(tensor, heads[int(qkv[1])])
        else:
            folded[name] = (
                pointwise_as_linear(tensor)
                if name == "image_encoder.neck.0.weight"
                else tensor
            )
    return folded


def pointwise_as_linear(weight: Tensor) -> Tensor:
    """Return the weight of a 1x1 convolution (O, I, 1, 1) as that of a linear layer (O, I); any other as it is."""
    return (
        weight.flatten(1)
        if weight.shape[2:] == (1, 1) and weight.shape[1] > 1
        else weight
    )


def by_part(tensor: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a fused qkv from q, k and v of each head to all of q, then k, then v: (3D, …) -> (3D, …)."""
    return (
        tensor.reshape(heads, 3, -1, *tensor.shape[1:])
        .transpose(0, 1)
        .flatten(0, 2)
        .contiguous()
    )

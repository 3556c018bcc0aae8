"""Join traced graphs, in sequence or as variants for kinds of prompts."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from onnx.compose import add_prefix, merge_models

from simmat_plugin_export.tracing import OPSET

_BOTH = (True, False)
KINDS = tuple(kind for kind in itertools.product(_BOTH, _BOTH, _BOTH) if any(kind))
"""Kinds of prompts: (has points, has box, has mask)."""
Kinds = Sequence[tuple[bool, bool, bool]]

IR_VERSION = 9
"""IR version of the files, which onnxruntime 1.18 can read."""


def chained(first: ModelProto, second: ModelProto, links: Sequence[str]) -> ModelProto:
    """Return a model of two in sequence; outputs of the first named in `links` are the inputs of the second."""
    kept = {f"prepare/{one.name}": one.name for one in first.graph.input}
    kept |= {f"net/{one.name}": one.name for one in second.graph.output}
    first, second = add_prefix(first, "prepare/"), add_prefix(second, "net/")
    joined = merge_models(
        first, second, io_map=[(f"prepare/{name}", f"net/{name}") for name in links]
    )
    _rename(joined.graph, kept)
    del joined.opset_import[1:]  # both have the same
    joined.ir_version = min(joined.ir_version, IR_VERSION)
    return joined


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename values of a graph and its subgraphs, in place."""
    for one in (*graph.input, *graph.output):
        one.name = names.get(one.name, one.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
        for attribute in node.attribute:
            _rename(attribute.g, names)


@dataclass
class Variants:
    """A model that selects one of several graphs by the kind of its prompts, see `add`.

    Equal weights of several graphs are stored once.

    Attributes:
        graphs: (has points, has box, has mask) -> graph.
        weights: sha256 -> tensor.
    """

    graphs: dict[tuple[bool, bool, bool], GraphProto] = field(default_factory=dict)
    weights: dict[str, TensorProto] = field(default_factory=dict)

    def add(
        self, kind: tuple[bool, bool, bool], model: ModelProto, inputs: Sequence[str]
    ) -> None:
        """Add the graph for prompts of one kind.

        Args:
            kind: (has points, has box, has mask).
            model: the traced model.
            inputs: names of its inputs, which are also those of the joined model.
        """
        prefix = "".join("ft"[has] for has in kind) + "/"
        names = {name: name for name in inputs}
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            digest = hashlib.sha256(
                f"{values.dtype}{values.shape}".encode() + values.tobytes()
            ).hexdigest()
            if digest not in self.weights:
                kept = TensorProto()
                kept.CopyFrom(tensor)
                kept.name = f"weight/{digest[:16]}"
                self.weights[digest] = kept
            names[tensor.name] = self.weights[digest].name
        graph = GraphProto(name=prefix)
        graph.node.extend(_renamed(model.graph.node, names, prefix))
        graph.output.extend(
            _output(one, names.get(one.name, prefix + one.name))
            for one in model.graph.output
        )
        self.graphs[kind] = graph

    def joined(
        self, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> ModelProto:
        """Return the joined model; without points axis 1 is empty, without boxes or masks their axis 0."""
        nodes: list[NodeProto] = []
        for name, axis in (("point_labels", 1), ("boxes", 0), ("mask_input", 0)):
            nodes += [
                helper.make_node(
                    "Shape", [name], [f"{name}/size"], start=axis, end=axis + 1
                ),
                helper.make_node("Squeeze", [f"{name}/size"], [f"{name}/count"]),
                helper.make_node(
                    "Cast", [f"{name}/count"], [f"has/{name}"], to=TensorProto.BOOL
                ),
            ]
        whole = self._choice((), [one.name for one in outputs])
        nodes += whole.node
        weights = list(self.weights.values())
        graph = helper.make_graph(
            nodes, "decoder", list(inputs), list(outputs), initializer=weights
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="simmat"
        )

    def _choice(self, known: tuple[bool, ...], outputs: Sequence[str]) -> GraphProto:
        """Return a graph with the given outputs, for prompts whose kind begins with `known`."""
        if len(known) == 3:
            kind = (known[0], known[1], known[2])
            if kind in self.graphs:
                return self.graphs[kind]
            # an empty prompt, which the runtime refuses before
            return self.graphs[max(self.graphs)]
        condition = ("has/point_labels", "has/boxes", "has/mask_input")[len(known)]
        prefix = "".join("ft"[has] for has in known)
        names = [f"{prefix}?{name}" for name in outputs] if known else list(outputs)
        branches = {
            "then_branch": self._choice((*known, True), outputs),
            "else_branch": self._choice((*known, False), outputs),
        }
        graph = GraphProto(name=f"choice{prefix}")
        graph.node.append(helper.make_node("If", [condition], names, **branches))
        first = next(iter(self.graphs.values()))
        graph.output.extend(
            _output(one, name) for one, name in zip(first.output, names, strict=True)
        )
        return graph


def _renamed(
    nodes: Sequence[NodeProto], names: Mapping[str, str], prefix: str
) -> list[NodeProto]:
    """Return copies of nodes with renamed values: as in `names`, or else with a prefix."""

    def renamed(name: str) -> str:
        return name and names.get(name, prefix + name)

    found = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.ClearField("doc_string")
        copy.name = prefix + node.name
        copy.input[:], copy.output[:] = (
            map(renamed, node.input),
            map(renamed, node.output),
        )
        for attribute in copy.attribute:
            if attribute.HasField("g"):
                inner = _renamed(attribute.g.node, names, prefix)
                attribute.g.ClearField("node")
                attribute.g.node.extend(inner)
                for value in (
                    *attribute.g.input,
                    *attribute.g.output,
                    *attribute.g.initializer,
                ):
                    value.name = renamed(value.name)
        found.append(copy)
    return found


def _output(value: ValueInfoProto, name: str) -> ValueInfoProto:
    """Return an output without sizes, whose names would differ between graphs."""
    return helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, None)


def value(
    name: str, shape: Sequence[str | int], kind: type[np.generic] = np.float32
) -> ValueInfoProto:
    """Return the description of an input or output."""
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), list(shape)
    )

"""Small edits of an ONNX graph (rename, retype, append a node); used by recipes whose exporter names tensors
badly.

The one invariant: every function leaves the graph topologically ordered and every tensor name unique.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[np.generic]


def add_constant(graph: GraphProto, name: str, value: Array) -> str:
    """Add an initializer and return its name."""
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def constant(graph: GraphProto, name: str) -> Array:
    """The value of the initializer ``name``; KeyError if there is none."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    raise KeyError(name)


def producer(graph: GraphProto, output: str) -> NodeProto:
    """The node that makes ``output``; KeyError if there is none."""
    node: NodeProto
    for node in graph.node:
        if output in node.output:
            return node
    raise KeyError(output)


def prepend(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Put ``nodes`` before all others."""
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def set_interface(
    graph: GraphProto,
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
) -> None:
    """Replace the declared inputs and outputs by ``(name, TensorProto type, dimensions)``; a str is a dynamic
    axis.
    """
    del graph.input[:]
    del graph.output[:]
    del graph.value_info[:]
    graph.input.extend(helper.make_tensor_value_info(*entry) for entry in inputs)
    graph.output.extend(helper.make_tensor_value_info(*entry) for entry in outputs)


def renumber(graph: GraphProto) -> None:
    """Order the nodes depth-first from the outputs and name nodes and tensors by that order.

    For converters that walk over sets, so that their order and their numbers differ from run to run. Inputs
    and outputs keep their names. Graphs with control flow are not handled: none of ours has any.
    """
    makers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
    ordered: list[NodeProto] = []
    seen: set[int] = set()

    def visit(node: NodeProto) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        for name in node.input:
            if name in makers:
                visit(makers[name])
        ordered.append(node)

    for value in graph.output:
        visit(makers[value.name])
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    names = {name: name for name in kept}
    for index, node in enumerate(ordered):
        node.name = f"{node.op_type.lower()}_{index}"
        for fields in (node.input, node.output):
            for position, name in enumerate(fields):
                fields[position] = names.setdefault(name, f"t{len(names)}")
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


FLOAT = int(TensorProto.FLOAT)
UINT8 = int(TensorProto.UINT8)

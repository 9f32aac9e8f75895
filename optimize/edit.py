"""Small edits of an ONNX graph (rename, retype, append a node); used by recipes whose exporter names tensors badly.

The one invariant: every function leaves the graph topologically ordered and every tensor name unique.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[np.generic]


def rename_tensor(graph: GraphProto, old: str, new: str) -> None:
    """Give the tensor ``old`` the name ``new`` wherever it is made or read."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


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
    """Replace the declared inputs and outputs by ``(name, TensorProto type, dimensions)``; a str is a dynamic axis."""
    del graph.input[:]
    del graph.output[:]
    del graph.value_info[:]
    graph.input.extend(helper.make_tensor_value_info(*entry) for entry in inputs)
    graph.output.extend(helper.make_tensor_value_info(*entry) for entry in outputs)


FLOAT = int(TensorProto.FLOAT)
UINT8 = int(TensorProto.UINT8)

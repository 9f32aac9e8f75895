"""Write an ONNX model in one canonical form; used by every recipe, so that equal graphs are equal bytes.

The one invariant: nothing that names a machine, a path, a time or a line of code survives: doc strings,
producer details, metadata and unused tensors go; initializers are sorted; names and topology stay.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

IR_VERSION = 10
"""Read by ONNX Runtime 1.18 and newer, thus by Triton 24.06 and newer."""


def save_canonical(model: "ModelProto", path: Path) -> None:
    """Clean ``model`` in place, write it and check it as it lies there, beside its external data if it has any.

    Raises:
        onnx.checker.ValidationError: it is not ONNX; nothing lies at ``path`` that was not there before.
    """
    import onnx

    clean(model)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(part), full_check=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def clean(model: "ModelProto") -> None:
    """Remove what differs between two runs of the same export."""
    model.ir_version = min(model.ir_version, IR_VERSION)
    model.producer_name = "reelmesh"
    model.producer_version = ""
    model.doc_string = ""
    model.domain = ""
    del model.metadata_props[:]
    used = {node.domain for node in model.graph.node}
    opsets = sorted((entry.domain, entry.version) for entry in model.opset_import if entry.domain in used)
    del model.opset_import[:]
    for domain, version in opsets:
        model.opset_import.add(domain=domain, version=version)
    clean_graph(model.graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def clean_graph(graph: "GraphProto") -> None:
    """The same for a graph and the bodies of its control flow."""
    graph.name = "main"
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                clean_graph(attribute.g)
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    read = names_read(graph)
    kept = sorted((t for t in graph.initializer if t.name in read), key=lambda tensor: tensor.name)
    copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    for tensor in copies:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
        graph.initializer.append(tensor)


def names_read(graph: "GraphProto") -> set[str]:
    """Tensors that a graph reads, those that only the bodies of its control flow read among them."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    own = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    return own.union(*map(names_read, bodies))

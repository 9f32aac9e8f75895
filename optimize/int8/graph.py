"""Readies an ONNX file for quantisation and writes the result; the only reader and writer of files in optimize.int8.

The one invariant: node names are unique and depend on the source alone, so that layers can be named in reports, and
equal graphs are equal bytes.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from google.protobuf.message import DecodeError

from optimize import canonical
from optimize.external import data_file
from optimize.int8.feeds import Input, inputs_of
from serving.errors import BadInput, EngineFailed, foreign_text

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Mode = Literal["static", "dynamic", "weight_only"]

OPERATORS: Final[dict[Mode, tuple[str, ...]]] = {
    "static": ("Conv", "MatMul"),
    "dynamic": ("MatMul",),
    "weight_only": ("MatMul",),
}
"""What becomes INT8 in each mode. Gemm is rewritten as MatMul and Add first. ConvInteger, the dynamic convolution, is
slower than the float one in ONNX Runtime 1.32, and so is a ConvTranspose between Q and DQ: they stay in float."""

INLINE_BYTES: Final = 512 << 20
"""Weights beyond this together go into ``<file>.data``; protobuf itself ends at 2 GiB."""


class Prepared(NamedTuple):
    """A pre-processed float file and the names of nodes that can become INT8, in the graph's order.

    ``big`` says that weights lie beside the file.
    """

    file: Path
    nodes: tuple[str, ...]
    big: bool


def inputs_in(source: Path) -> tuple[Input, ...]:
    """A file's inputs; reads no external weights. BadInput if it is no ONNX file."""
    return inputs_of(_read(source, weights=False).graph)


def prepare(source: Path, folder: Path, mode: Mode) -> Prepared:
    """Fold constants and batch norms, infer shapes, rewrite Gemm, name nodes; writes into ``folder``.

    Raises:
        BadInput: ``source`` is no ONNX file, or nothing in it can become INT8.
        EngineFailed: ONNX Runtime's pre-processing fails.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    named, optimised, file = folder / "named.onnx", folder / "optimised.onnx", folder / "prepared.onnx"
    _rewrite(source, named, name_nodes)
    big = data_file(named).exists()
    try:
        quant_pre_process(
            str(named), str(optimised), skip_symbolic_shape=True, save_as_external_data=big, all_tensors_to_one_file=big
        )
    except Exception as error:
        raise EngineFailed(f"pre-processing failed: {foreign_text(error)}", field=str(source)) from error
    # Afterwards, since ONNX Runtime's optimiser makes Gemm of MatMul and Add where the rank is 2.
    _rewrite(optimised, file, _replace_gemm, name_nodes)
    graph = _read(file, weights=False).graph
    nodes = candidates(graph, mode)
    if not nodes:
        kinds = " or ".join(OPERATORS[mode])
        problem = f"no {kinds} of this graph has constant float32 weights, so nothing can become INT8 ({mode})"
        raise BadInput(problem, field=str(source), fix="give the float32 file; for convolutions use mode static")
    return Prepared(file, nodes, data_file(file).exists())


def candidates(graph: "GraphProto", mode: Mode) -> tuple[str, ...]:
    """Nodes whose second input is a constant float32 weight: matrices for MatMul, kernels for Conv.

    Products of two activations, as in attention, are none: their float kernels are as fast, and scores are sensitive.
    """
    from onnx import TensorProto

    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    matrix = 2
    return tuple(
        node.name
        for node in graph.node
        if node.op_type in OPERATORS[mode]
        and node.domain in {"", "ai.onnx"}
        and (ranks.get(node.input[1], 0) == matrix if node.op_type == "MatMul" else node.input[1] in ranks)
    )


def name_nodes(model: "ModelProto") -> None:
    """Give nodes without a name, or with one that is taken, the name ``OPERATOR_INDEX``."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def save(model: "ModelProto", file: Path) -> None:
    """Write in canonical form; large weights go beside it, in the order of their names. The folder must be empty.

    Raises:
        EngineFailed: what was made is not ONNX.
    """
    import onnx

    try:
        if _is_big(model):
            canonical.clean(model)
            _write(model, file)
            onnx.checker.check_model(str(file))
        else:
            canonical.save_canonical(model, file)
    except onnx.checker.ValidationError as error:
        raise EngineFailed(f"the quantised graph is not ONNX: {foreign_text(error)}", field="int8") from error


def place(file: Path, target: Path) -> None:
    """Put a finished file of the same name and its data at ``target``: the data first, each by one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for origin, goal in ((data_file(file), data_file(target)), (file, target)):
        if origin.exists():
            part = goal.with_name(f".{goal.name}.part")
            shutil.copyfile(origin, part)
            part.replace(goal)
    if not data_file(file).exists():
        data_file(target).unlink(missing_ok=True)


def load(file: Path) -> "ModelProto":
    """A file that was written here, with its weights."""
    return _read(file)


def _read(file: Path, *, weights: bool = True) -> "ModelProto":
    import onnx

    try:
        return onnx.load(file, load_external_data=weights)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        fix = "give an ONNX file, with its .data beside it if it has one"
        raise BadInput(
            f"this is no ONNX file that can be read: {foreign_text(error)}", field=str(file), fix=fix
        ) from error


def _rewrite(source: Path, target: Path, *edits: "Callable[[ModelProto], None]") -> None:
    model = _read(source)
    for edit in edits:
        edit(model)
    _write(model, target)


def _write(model: "ModelProto", file: Path) -> None:
    import onnx

    big = _is_big(model)
    onnx.save_model(model, file, save_as_external_data=big, all_tensors_to_one_file=True, location=data_file(file).name)


def _is_big(model: "ModelProto") -> bool:
    """By its tensors one by one: protobuf counts no message beyond 2 GiB."""
    return sum(tensor.ByteSize() for tensor in model.graph.initializer) > INLINE_BYTES


def _replace_gemm(model: "ModelProto") -> None:
    from onnxruntime.quantization.onnx_model import ONNXModel

    edited = ONNXModel(model)
    edited.replace_gemm_with_matmul()
    edited.clean_initializers()  # the weights whose transposed copy is read instead

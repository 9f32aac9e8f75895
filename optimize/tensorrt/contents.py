"""What an ONNX file holds that decides on a TensorRT plan: tensors, types, Q/DQ nodes; read before anything is built.

The one invariant: only the graph is read, never the weights, so that it takes milliseconds at any size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from optimize.tensorrt.profiles import Declaration, Declared
from serving.errors import BadInput, NotFound, foreign_text

if TYPE_CHECKING:
    import onnx

_FP8: Final = frozenset({"FLOAT8E4M3FN", "FLOAT8E5M2"})
_FLOATS: Final = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16"}
_ZERO_POINT: Final = 2
"""Input of Q/DQ nodes."""
_QUANTIZING: Final = ("QuantizeLinear", "DequantizeLinear")
_UNKNOWN: Final = frozenset({"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"})
"""Operators of quantised files for CPUs, which TensorRT's parser refuses (onnx-tensorrt, operators.md)."""
_DOMAINS: Final = ("", "ai.onnx")
_MOST_GRAPH_BYTES: Final = (2 << 30) - 1
"""Protobuf's limit: a larger file cannot be read by anybody."""
_REMAKE: Final = "publish the part again: `reelmesh optimize MODEL --part PART`"


class Contents(NamedTuple):
    """Of an ONNX file.

    Attributes:
        floats: types of its weights, of ``fp32``, ``fp16`` and ``bf16``; never empty.
        quantized: types of its Q/DQ nodes, of ``int8`` (symmetric), ``asymmetric`` (zero points that are not 0, and
            unsigned ones) and ``fp8``.
    """

    floats: frozenset[str]
    quantized: frozenset[str]


def look(onnx_file: Path, declaration: Declaration) -> Contents:
    """What a file holds, once it is clear that it has the declared tensors.

    Raises:
        NotFound: there is no such file.
        BadInput: it cannot be read, its weights are missing, or its tensors are not the declared ones.
    """
    import onnx

    if not onnx_file.is_file():
        raise NotFound("there is no ONNX file", field=str(onnx_file), fix=_REMAKE)
    if onnx_file.stat().st_size > _MOST_GRAPH_BYTES:
        fix = "keep its weights in external data: onnx.save(..., save_as_external_data=True)"
        raise BadInput("over 2 GB in one file, which no protobuf reader takes", field=str(onnx_file), fix=fix)
    try:
        model = onnx.load(onnx_file, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is of another class in each of its implementations
        raise BadInput(f"is no ONNX file: {foreign_text(error)}", field=str(onnx_file), fix=_REMAKE) from error
    for name in sorted(_external(model)):
        if not (onnx_file.parent / name).is_file():
            raise BadInput(f"its weights {name!r} are missing", field=str(onnx_file), fix="put the file beside it")
    _check(onnx_file, "input", model.graph.input, declaration.inputs)
    _check(onnx_file, "output", model.graph.output, declaration.outputs)
    _check_operators(onnx_file, model)
    return Contents(frozenset(_floats(model)), frozenset(_quantized(model)))


def _external(model: "onnx.ModelProto") -> set[str]:
    return {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }


def _check(file: Path, kind: str, found: "Sequence[onnx.ValueInfoProto]", declared: Sequence[Declared]) -> None:
    """Raise :class:`BadInput` where names, types or numbers of axes differ; fixed sizes must be equal."""
    import onnx

    here = {
        value.name: (onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type), _dims(value)) for value in found
    }
    wanted = {one.name: (_element(one.dtype), list(one.axes)) for one in declared}
    if here.keys() != wanted.keys():
        odd = ", ".join(sorted(here.keys() ^ wanted.keys()))
        raise BadInput(f"{kind}s differ from the declared ones: {odd}", field=str(file), fix=_REMAKE)
    for name, (element, axes) in wanted.items():
        has, dims = here[name]
        fits = len(dims) == len(axes) and all(
            axis == dim or (isinstance(axis, str) and isinstance(dim, str))
            for axis, dim in zip(axes, dims, strict=True)
        )
        if has != element or not fits:
            problem = f"{kind} {name} is {has} {dims}, and declared as {element} {axes}"
            raise BadInput(problem, field=str(file), fix=_REMAKE)


def _dims(value: "onnx.ValueInfoProto") -> list[int | str]:
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim]


def _element(dtype: str) -> str:
    """ONNX's name of a numpy dtype."""
    import numpy as np
    import onnx

    if dtype == "bfloat16":
        return "BFLOAT16"
    return str(onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))


def _check_operators(file: Path, model: "onnx.ModelProto") -> None:
    for node in model.graph.node:
        if node.op_type in _UNKNOWN or node.domain not in _DOMAINS:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            problem = f"node {node.name!r} is a {name}, which TensorRT does not know"
            fix = "build of the float file, or of one with QuantizeLinear and DequantizeLinear nodes alone"
            raise BadInput(problem, field=str(file), fix=fix)


def _floats(model: "onnx.ModelProto") -> set[str]:
    """Types of the weights.

    Scalars and vectors of mixed files (epsilons, scales, biases) say little of their precision, so matrices come first.
    """
    import onnx

    for axes in (2, 0):
        names = [onnx.TensorProto.DataType.Name(one.data_type) for one in _weights(model) if len(one.dims) >= axes]
        found = {_FLOATS[name] for name in names if name in _FLOATS}
        if found:
            return found
    return {"fp32"}


def _weights(model: "onnx.ModelProto") -> "Iterator[onnx.TensorProto]":
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def _quantized(model: "onnx.ModelProto") -> Iterator[str]:
    zeros = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _QUANTIZING:
            # Without a zero point it is an unsigned 0 (ONNX's operators, QuantizeLinear).
            yield _kind(zeros.get(node.input[2])) if len(node.input) > _ZERO_POINT else "asymmetric"


def _kind(zero: "onnx.TensorProto | None") -> str:
    import onnx

    if zero is None:
        return "asymmetric"
    name = onnx.TensorProto.DataType.Name(zero.data_type)
    if name in _FP8:
        return "fp8"
    return "asymmetric" if name != "INT8" or onnx.numpy_helper.to_array(zero).any() else "int8"

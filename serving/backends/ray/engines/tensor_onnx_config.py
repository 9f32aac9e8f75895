"""An ONNX file's tensors against config.pbtxt: completes what is left out, refuses what differs; used by tensor_onnx.

The one invariant: pure functions; the rules are those of Triton's onnxruntime backend.
"""

from collections.abc import Sequence
from typing import Any, Final

from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput

DEFAULT_MAX_BATCH_SIZE: Final = 4
"""Triton's own ``default-max-batch-size``, for models whose config.pbtxt names no tensors."""

DATATYPES: Final = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
"""ONNX Runtime's names of datatypes to config.pbtxt's."""

NodeArg = Any


def completed(config: pb.ModelConfig, inputs: Sequence[NodeArg], outputs: Sequence[NodeArg]) -> pb.ModelConfig:
    """A copy with inputs, outputs and batching filled in from the file, where config.pbtxt leaves them out.

    Raises:
        BadInput: the file has a tensor of a type the protocol lacks.
    """
    full = pb.ModelConfig()
    full.CopyFrom(config)
    if full.input and full.output:
        return full
    every = [*inputs, *outputs]
    if not (full.input or full.output) and all(node.shape and not isinstance(node.shape[0], int) for node in every):
        full.max_batch_size = full.max_batch_size or DEFAULT_MAX_BATCH_SIZE
        if full.WhichOneof("scheduling_choice") is None:
            full.dynamic_batching.SetInParent()
    skip = 1 if full.max_batch_size > 0 else 0
    if not full.input:
        for node in inputs:
            full.input.add(name=node.name, data_type=_data_type(node), dims=dimensions(node)[skip:])
    if not full.output:
        for node in outputs:
            full.output.add(name=node.name, data_type=_data_type(node), dims=dimensions(node)[skip:])
    return full


def check_tensors(
    model: str, kind: str, configured: Sequence[pb.ModelInput | pb.ModelOutput], nodes: Sequence[NodeArg], batch: bool
) -> None:
    """Raise :class:`BadInput` unless config.pbtxt names the file's tensors with fitting types and shapes.

    Args:
        model: its name.
        kind: ``input`` or ``output``.
        configured: what config.pbtxt says.
        nodes: what the file has.
        batch: whether the first dimension is the batch.
    """
    by_name = {node.name: node for node in nodes}
    for entry in configured:
        node, place = by_name.get(entry.name), f"model '{model}', {kind} '{entry.name}'"
        if node is None:
            raise BadInput(
                f"unexpected inference {kind} '{entry.name}', allowed {kind}s are: {', '.join(sorted(by_name))}",
                field=f"{model}/config.pbtxt:{kind}",
            )
        said, have = pb.DataType.Name(entry.data_type), DATATYPES.get(node.type, node.type)
        if said != have:
            raise BadInput(f"{place}: config.pbtxt says {said}, the file has {have}")
        _check_shape(place, entry, dimensions(node), batch)


def dimensions(node: NodeArg) -> list[int]:
    """The shape of an ONNX tensor with -1 for what is not fixed."""
    return [size if isinstance(size, int) else -1 for size in node.shape]


def _check_shape(place: str, entry: pb.ModelInput | pb.ModelOutput, have: list[int], batch: bool) -> None:
    said = list(entry.reshape.shape if entry.HasField("reshape") else entry.dims)
    said = [-1, *said] if batch else said
    if len(said) != len(have) or not all(a in (-1, b) or b == -1 for a, b in zip(said, have, strict=True)):
        raise BadInput(
            f"{place}: the model expects {len(have)} dimensions (shape {have}) "
            f"but the model configuration specifies {len(said)} dimensions (shape {said})"
        )


def _data_type(node: NodeArg) -> int:
    if node.type not in DATATYPES:
        raise BadInput(f"tensor '{node.name}' has unsupported type {node.type}")
    return int(pb.DataType.Value(DATATYPES[node.type]))

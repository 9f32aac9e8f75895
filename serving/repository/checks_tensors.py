"""What Triton refuses in the tensors of a config.pbtxt: names, types, shapes, batch tensors; used by checks.

The one invariant: an error here is a refusal of tritonserver, with or without completion of configurations.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput

from serving.repository.derive import triton_backend
from serving.repository.findings import Finding
from serving.repository.places import at_config
from serving.repository.read import RawModel

VARIABLE: Final = -1
"""A dimension of any size."""
_IMAGE_DIMS: Final = 3
_BATCH_TYPES: Final = (DataType.TYPE_INT32, DataType.TYPE_FP32)


def check_tensors(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    """Inputs, outputs and the tensors that batches add."""
    for kind, tensors in (("input", config.input), ("output", config.output)):
        names = [tensor.name for tensor in tensors]
        for index, tensor in enumerate(tensors):
            field = f"{kind}[{index}]"
            if not tensor.name:
                yield at_config(raw, f"{field}.name", "is empty", "name the tensor as the model does")
            elif tensor.name in names[:index]:
                yield at_config(raw, f"{field}.name", f"{tensor.name!r} is repeated", "keep one", warning=True)
            if tensor.data_type == DataType.TYPE_INVALID:
                fix = "use TYPE_FP32, TYPE_INT64, TYPE_STRING, ..."
                yield at_config(raw, f"{field}.data_type", "is not set", fix)
            yield from _check_shape(raw, field, tensor, batched=config.max_batch_size > 0)
            if tensor.is_shape_tensor and triton_backend(config) != "tensorrt":
                fix = "remove it"
                yield at_config(raw, f"{field}.is_shape_tensor", "only TensorRT models have shape tensors", fix)
    yield from _check_inputs(raw, config)
    yield from _check_labels(raw, config)
    yield from _check_batch_tensors(raw, config)


def _check_shape(raw: RawModel, field: str, tensor: ModelInput | ModelOutput, *, batched: bool) -> Iterator[Finding]:
    if not tensor.dims:
        yield at_config(raw, f"{field}.dims", "is empty", "give the shape, -1 where it varies")
        return
    for dimension in tensor.dims:
        if dimension < 1 and dimension != VARIABLE:
            fix = "use a size from 1 up, or -1 where it varies"
            yield at_config(raw, f"{field}.dims", f"{dimension} is no size", fix)
            return
    if tensor.HasField("reshape"):
        yield from _check_reshape(raw, field, tensor, batched=batched)


def _check_reshape(raw: RawModel, field: str, tensor: ModelInput | ModelOutput, *, batched: bool) -> Iterator[Finding]:
    shape = list(tensor.reshape.shape)
    if wrong := [size for size in shape if size < 1 and size != VARIABLE]:
        fix = "use a size from 1 up, or -1 where it varies"
        yield at_config(raw, f"{field}.reshape.shape", f"{wrong[0]} is no size", fix)
    elif not shape and not batched:
        fix = "keep one dimension: without batches there are no scalars"
        yield at_config(raw, f"{field}.reshape", "is empty while max_batch_size is 0", fix)
    elif _pieces(tensor.dims) != _pieces(shape):
        problem = f"{shape} has another number of elements than dims {list(tensor.dims)}"
        fix = "make the products equal, between each -1 too"
        yield at_config(raw, f"{field}.reshape", problem, fix)


def _pieces(dims: Sequence[int]) -> list[int]:
    """The number of elements before, between and after the dimensions of any size."""
    pieces = [1]
    for variable, sizes in groupby(dims, lambda size: size == VARIABLE):
        if variable:
            pieces += [1 for _ in sizes]
        else:
            pieces[-1] = math.prod(sizes)
    return pieces


def _check_inputs(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    for index, tensor in enumerate(config.input):
        if tensor.format != ModelInput.Format.FORMAT_NONE and len(tensor.dims) != _IMAGE_DIMS:
            problem = f"{ModelInput.Format.Name(tensor.format)} needs three dims"
            yield at_config(raw, f"input[{index}].format", problem, "remove it, or give dims such as [3, 224, 224]")


def _check_labels(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    for index, tensor in enumerate(config.output):
        if tensor.label_filename and not (raw.folder / tensor.label_filename).is_file():
            problem = f"there is no file {tensor.label_filename!r} in the model's folder"
            yield at_config(raw, f"output[{index}].label_filename", problem, "put it there, or remove the field")


def _check_batch_tensors(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    inputs, outputs = ({tensor.name for tensor in tensors} for tensors in (config.input, config.output))
    for kind, tensors in (("batch_input", config.batch_input), ("batch_output", config.batch_output)):
        for index, tensor in enumerate(tensors):
            field = f"{kind}[{index}]"
            if len(tensor.source_input) != 1:
                problem = f"{len(tensor.source_input)} inputs, and one is taken"
                yield at_config(raw, f"{field}.source_input", problem, "name one input")
            for source in tensor.source_input:
                if source not in inputs:
                    yield at_config(raw, f"{field}.source_input", f"no input {source!r}", "name a declared input")
    for index, tensor in enumerate(config.batch_input):
        if tensor.data_type not in _BATCH_TYPES:
            problem = f"is {DataType.Name(tensor.data_type)}"
            yield at_config(raw, f"batch_input[{index}].data_type", problem, "use TYPE_INT32 or TYPE_FP32")
    for index, tensor in enumerate(config.batch_output):
        for target in tensor.target_name:
            if target not in outputs:
                problem = f"no output {target!r}"
                yield at_config(raw, f"batch_output[{index}].target_name", problem, "name a declared output")

"""What tensor engines read from a model's config.pbtxt: parameters, instances, reshapes; used by both of them.

The one invariant: pure functions over ModelConfig; the words are those of Triton's model configuration.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput

from serving.errors import BadInput
from serving.protocol.oip import DATATYPES, Tensor
from serving.protocol.oip_config import input_specs, output_specs

MAX_INSTANCES: Final = 64
"""Most instances of one model in a replica: each has a thread of its own."""

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


def parameter(config: ModelConfig, name: str, default: str = "") -> str:
    """A ``parameters`` entry of config.pbtxt; ``default`` where it is missing or empty."""
    return (config.parameters[name].string_value or default) if name in config.parameters else default


def number(config: ModelConfig, name: str, default: int) -> int:
    """A ``parameters`` entry that must be a whole number.

    Raises:
        BadInput: it is something else.
    """
    text = parameter(config, name, str(default))
    try:
        return int(text)
    except ValueError:
        raise BadInput(
            f"must be a whole number, not {text[:32]!r}", field=f"{config.name}/config.pbtxt:parameters.{name}"
        ) from None


def instance_count(config: ModelConfig) -> int:
    """How many instances ``instance_group`` asks for: the sum over its groups, one where it says nothing."""
    count = sum(max(1, group.count) * max(1, len(group.gpus)) for group in config.instance_group)
    return int(min(max(1, count), MAX_INSTANCES))


def asks_for_gpu(config: ModelConfig) -> bool:
    """Whether ``instance_group`` names KIND_GPU."""
    return any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group)


def reshapes(config: ModelConfig, tensors: Sequence[ModelInput | ModelOutput]) -> dict[str, Shape]:
    """By tensor name the shape that ``reshape`` gives it, with -1 for the batch dimension where there is one."""
    batch = (-1,) if config.max_batch_size > 0 else ()
    return {tensor.name: (*batch, *tensor.reshape.shape) for tensor in tensors if tensor.HasField("reshape")}


def reshaped(array: Array, shape: Shape | None, batch: bool) -> Array:
    """The array as ``reshape`` has it; the batch keeps its size, one other dimension may be -1."""
    if shape is None:
        return array
    return array.reshape((array.shape[0], *shape[1:]) if batch else shape)


def output_shapes(config: ModelConfig) -> Mapping[str, Shape]:
    """By output the shape clients see, for those that the model itself gives in another (``reshape``)."""
    renamed = {tensor.name for tensor in config.output if tensor.HasField("reshape")}
    return {spec.name: spec.shape for spec in output_specs(config) if spec.name in renamed}


def datatypes(config: ModelConfig) -> dict[str, str]:
    """The protocol's datatype of every input and output by name."""
    return {spec.name: spec.datatype for spec in (*input_specs(config), *output_specs(config))}


def tensor_of(name: str, array: Array, datatype: str | None) -> Tensor:
    """A tensor over the array's own memory where it can be had without a copy.

    Raises:
        BadInput: the array's type is none of the protocol's.
    """
    known = DATATYPES.get(datatype or "")
    if known is None or datatype is None or known.size_bytes is None or array.dtype != known.numpy:
        return Tensor.from_array(name, array)
    flat = np.ascontiguousarray(array).reshape(-1)
    return Tensor(name, datatype, array.shape, flat.view(np.uint8).data)

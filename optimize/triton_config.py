"""Triton's config.pbtxt for a recipe: makes a missing one and checks an existing one; called by optimize.run.

The one invariant: a file that a person wrote is never overwritten; where it contradicts the recipe, nothing
is published.
"""

from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from optimize.recipe import Recipe, Tensor
from serving.errors import BadInput

QUEUE: Final = "dynamic_batching { default_queue_policy { max_queue_size: 1024 } }"
"""A queue with a bound, as the default of ``limits.queued_per_model``: Triton's own has none."""
TRITON_TYPES: Final = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "float64": "TYPE_FP64",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}


def dims(recipe: Recipe, tensor: Tensor) -> list[int]:
    """Triton's dims: without the batch axis, -1 where an axis is dynamic; [1] for one number a request.

    Raises:
        BadInput: a tensor without any axis in a model without batches, for which Triton has no configuration.
    """
    axes = tensor.axes[1:] if recipe.max_batch else tensor.axes
    if not axes and not recipe.max_batch:
        raise BadInput("has no axis", field=tensor.name, fix="return it with an axis of 1: Triton serves no scalars")
    return [axis if isinstance(axis, int) else -1 for axis in axes or (1,)]


def _declaration(recipe: Recipe, tensor: Tensor) -> str:
    """One entry of input or output; where dims gained the axis that Triton demands, reshape takes it away again."""
    reshape = "" if len(tensor.axes) > bool(recipe.max_batch) else " reshape { shape: [ ] }"
    data_type = TRITON_TYPES[tensor.dtype]
    return f'  {{ name: "{tensor.name}" data_type: {data_type} dims: {dims(recipe, tensor)}{reshape} }}'


def render(name: str, recipe: Recipe) -> str:
    """A whole config.pbtxt."""

    def tensors(kind: str, declared: tuple[Tensor, ...]) -> list[str]:
        return [f"{kind} [", ",\n".join(_declaration(recipe, tensor) for tensor in declared), "]"]

    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "onnxruntime"',
            f"max_batch_size: {recipe.max_batch}",
            *tensors("input", recipe.inputs),
            *tensors("output", recipe.outputs),
            *([QUEUE] if recipe.max_batch else []),
            "",
        ]
    )


def check(file: Path, config: ModelConfig, recipe: Recipe) -> None:
    """BadInput if an existing configuration declares other tensors than the recipe."""
    declared = [(t.name, TRITON_TYPES[t.dtype], dims(recipe, t)) for t in (*recipe.inputs, *recipe.outputs)]
    written = [(t.name, DataType.Name(t.data_type), list(t.dims)) for t in (*config.input, *config.output)]
    if written != declared or config.max_batch_size != recipe.max_batch:
        raise BadInput(
            f"declares {written} with max_batch_size {config.max_batch_size}, "
            f"the recipe makes {declared} with {recipe.max_batch}",
            field=str(file),
            fix="correct it, or remove it and it is written anew",
        )

"""The folder of a published part: model.yaml and config.pbtxt, so that Triton serves it as any other model.

The one invariant: a part carries its model's licence, and is served by Triton only where somebody asks for it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import yaml

from serving.errors import BadInput
from serving.repository.model import TENSOR_TASK, Model
from serving.repository.part_file import PartFile, PartTensor

TYPES: Final[Mapping[str, str]] = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float64": "TYPE_FP64",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}


def folder_name(model: str, part: str) -> str:
    """Of the part in the repository that its model is in."""
    return f"{model}_{part}"


def folder_files(model: Model, part: PartFile) -> dict[str, str]:
    """Texts of ``model.yaml`` and ``config.pbtxt``.

    Raises:
        BadInput: Triton has no such type.
    """
    card = {
        "description": f"{part.part} of {part.model}, exported; run by the model's engine or by Triton.",
        "task": TENSOR_TASK,
        "backend": "triton",
        "engine": "tensor",
        "license": model.card.license.model_dump(mode="json", exclude_none=True),
        "source": {"uri": f"export:{part.model}.{part.part}"},
        "precision": part.precision,
        "optional": True,
    }
    return {"model.yaml": yaml.safe_dump(card, sort_keys=False, allow_unicode=True), "config.pbtxt": _config(part)}


def _config(part: PartFile) -> str:
    first = part.variants[0]
    return "\n".join(
        [
            f'name: "{folder_name(part.model, part.part)}"',
            'backend: "onnxruntime"',
            "max_batch_size: 0",
            *_tensors("input", first.inputs),
            *_tensors("output", first.outputs),
            "",
        ]
    )


def _tensors(kind: str, tensors: Sequence[PartTensor]) -> list[str]:
    rows = [
        f'  {{ name: "{tensor.name}" data_type: {_type(tensor)} '
        f"dims: {[axis if isinstance(axis, int) else -1 for axis in tensor.axes]} }}"
        for tensor in tensors
    ]
    return [f"{kind} [", ",\n".join(rows), "]"]


def _type(tensor: PartTensor) -> str:
    if tensor.dtype not in TYPES:
        raise BadInput(f"Triton has no type {tensor.dtype}", field=tensor.name, fix="cast it in the part's module")
    return TYPES[tensor.dtype]

"""The folder of a published part: model.yaml and config.pbtxt, so that Triton serves it as any other model.

The one invariant: a part carries its model's licence, and is served by Triton only where somebody asks for it.
"""

from typing import Final

import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.model import TENSOR_TASK, Model
from serving.repository.part_config import part_source, write_tensors
from serving.repository.part_file import PartFile

_THREADS: Final = "intra_op_thread_count"
"""Of Triton's backend for ONNX Runtime; without it a call has one thread in this project's own."""


def folder_name(model: str, part: str) -> str:
    """Of the part in the repository that its model is in."""
    return f"{model}_{part}"


def folder_files(model: Model, part: PartFile) -> dict[str, str]:
    """Texts of ``model.yaml`` and ``config.pbtxt``.

    Where Triton runs the part, it gets as many threads and as much of a GPU as the model: it is the model's work.

    Raises:
        BadInput: Triton has no such type.
    """
    card: dict[str, object] = {
        "description": f"{part.part} of {part.model}, exported; run by the model's engine or by Triton.",
        "task": TENSOR_TASK,
        "backend": "triton",
        "engine": "tensor",
        "license": model.card.license.model_dump(mode="json", exclude_none=True),
        "source": {"uri": part_source(part.model, part.part)},
        "precision": part.precision,
        "optional": True,
    }
    if model.card.share.gpu:
        card["share"] = {"gpu": model.card.share.gpu}
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    return {"model.yaml": text, "config.pbtxt": _config(model, part)}


def _config(model: Model, part: PartFile) -> str:
    config = ModelConfig(name=folder_name(part.model, part.part), backend="onnxruntime")
    write_tensors(config, part)
    if (threads := int(model.card.share.cpu)) > 1:
        config.parameters[_THREADS].string_value = str(threads)
    return str(text_format.MessageToString(config))

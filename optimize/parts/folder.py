"""The folder of a published part: model.yaml and config.pbtxt, so that Triton serves it as any other model.

The one invariant: a part carries its model's licence, and is served by Triton only where somebody asks for it.
"""

from pathlib import Path
from typing import Final

import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import BadInput
from serving.repository.model import TENSOR_TASK, Model
from serving.repository.part_config import part_source, write_tensors
from serving.repository.part_file import PartFile
from serving.repository.read import CARD_FILE, CONFIG_FILE, read_model

_THREADS: Final = "intra_op_thread_count"
"""Of Triton's backend for ONNX Runtime; without it a call has one thread in this project's own."""


def folder_name(model: str, part: str) -> str:
    """Of the part in the repository that its model is in."""
    return f"{model}_{part}"


def check_owner(folder: Path, model: str, part: str) -> None:
    """Whether a folder is the part's own, or not there yet.

    Raises:
        BadInput: it is a model of somebody else's, which is left alone.
    """
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    card = read_model(folder).card
    if card is None or card.source.uri != part_source(model, part):
        fix = f"rename that folder: the part {part!r} of {model!r} is published there"
        raise BadInput(f"{folder.name} is a model of its own", field=str(folder), fix=fix)


def folder_files(model: Model, part: PartFile, folder: Path) -> dict[str, str]:
    """Texts of ``model.yaml`` and ``config.pbtxt``; of what is in the folder, all stays but what the part decides.

    Where Triton runs the part, it gets as many threads and as much of a GPU as the model: it is the model's work.

    Raises:
        BadInput: Triton has no such type, or a file of the folder cannot be read.
    """
    card: dict[str, object] = {
        "description": f"{part.part} of {part.model}, exported; run by the model's engine or by Triton.",
        "task": TENSOR_TASK,
        "backend": "triton",
        "engine": "tensor",
        "optional": True,
    }
    if model.card.share.gpu:
        card["share"] = {"gpu": model.card.share.gpu}
    file = folder / CARD_FILE
    if file.is_file():
        card = yaml.safe_load(file.read_text(encoding="utf-8"))
    card |= {
        "license": model.card.license.model_dump(mode="json", exclude_none=True),
        "source": {"uri": part_source(part.model, part.part)},
        "precision": part.precision,
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    return {CARD_FILE: text, CONFIG_FILE: _config(model, part, folder / CONFIG_FILE)}


def _config(model: Model, part: PartFile, file: Path) -> str:
    config = ModelConfig(name=folder_name(part.model, part.part), backend="onnxruntime")
    if (threads := int(model.card.share.cpu)) > 1:
        config.parameters[_THREADS].string_value = str(threads)
    if file.is_file():
        try:
            config = text_format.Parse(file.read_text(encoding="utf-8"), ModelConfig())
        except text_format.ParseError as error:
            raise BadInput(str(error), field=str(file), fix="correct it, or remove it") from error
    write_tensors(config, part)
    return str(text_format.MessageToString(config))

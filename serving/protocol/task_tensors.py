"""Typed tasks as OIP tensors, by rule; used by Ray replicas, by lint and to write a config.pbtxt.

The one invariant: the mapping follows from the task's pydantic models alone. A field ``audio`` is the
tensor ``AUDIO`` of shape [1]: text and files are BYTES, int INT64, float FP32, bool BOOL, anything nested
BYTES with JSON.
"""

import types
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, TypeVar, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import to_json
from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput, foreign_text
from serving.protocol.artifact import ArtifactRef
from serving.protocol.oip import DATATYPES, Tensor
from serving.protocol.oip_json import parse_json
from serving.protocol.tasks import TASKS, TaskSpec

M = TypeVar("M", bound=BaseModel)


class Kind(StrEnum):
    """What one element of a task's tensor holds; the value is the comment in a generated config.pbtxt."""

    TEXT = "text, UTF-8"
    INTEGER = "integer"
    REAL = "number"
    BOOLEAN = "true or false"
    FILE = "the bytes of a file"
    JSON = "JSON, UTF-8"


class TaskTensor(NamedTuple):
    """The tensor of one field."""

    field: str
    tensor: str
    kind: Kind
    optional: bool

    @property
    def datatype(self) -> str:
        """The protocol's name of the datatype."""
        return _DATATYPES.get(self.kind, "BYTES")


class Files(Protocol):
    """The part of the artifact store that the mapping needs."""

    async def put_bytes(self, data: bytes, *, media_type: str, name: str) -> ArtifactRef:
        """Store bytes."""

    async def get_bytes(self, ref: ArtifactRef) -> bytes:
        """Fetch bytes."""


_DATATYPES: Final = {Kind.INTEGER: "INT64", Kind.REAL: "FP32", Kind.BOOLEAN: "BOOL"}
# bool before int, since bool is an int to issubclass.
_KINDS: Final[tuple[tuple[type, Kind], ...]] = (
    (bool, Kind.BOOLEAN),
    (int, Kind.INTEGER),
    (float, Kind.REAL),
    (str, Kind.TEXT),
    (ArtifactRef, Kind.FILE),
)


def task_tensors(message: type[BaseModel]) -> tuple[TaskTensor, ...]:
    """The tensors of a request or result type, in the order of its fields."""
    return tuple(
        TaskTensor(name, name.upper(), _kind(info.annotation), not info.is_required())
        for name, info in message.model_fields.items()
    )


def config_inputs(task: str) -> list[pb.ModelInput]:
    """The ``input`` entries a model of this task must declare in config.pbtxt; raises :class:`BadInput`."""
    return [
        pb.ModelInput(name=field.tensor, data_type=_config_type(field), dims=[1], optional=field.optional)
        for field in task_tensors(_spec(task).request)
    ]


def config_outputs(task: str) -> list[pb.ModelOutput]:
    """The ``output`` entries a model of this task must declare in config.pbtxt; raises :class:`BadInput`."""
    return [
        pb.ModelOutput(name=field.tensor, data_type=_config_type(field), dims=[1])
        for field in task_tensors(_spec(task).result)
    ]


def config_text(model_name: str, task: str, backend: str = "ray") -> str:
    """A whole config.pbtxt for a model of this task that Ray serves."""
    spec = _spec(task)
    return "\n".join(
        (
            f'# Tensors follow from the task "{task}" field by field; `reelmesh models lint` checks them.',
            f'name: "{model_name}"',
            f'backend: "{backend}"',
            "max_batch_size: 0",
            *_config_block("input", task_tensors(spec.request), optional=True),
            *_config_block("output", task_tensors(spec.result), optional=False),
            "",
        )
    )


async def from_tensors(message: type[M], tensors: Iterable[Tensor], files: Files) -> M:
    """Build a request or result of tensors; file bytes are put into ``files``.

    Raises:
        BadInput: a tensor is unknown, missing or of another datatype or shape, or the type refuses its value.
    """
    fields = {field.tensor: field for field in task_tensors(message)}
    values: dict[str, Any] = {}
    for tensor in tensors:
        field = fields.get(tensor.name)
        if field is None:
            raise BadInput("there is no such tensor", field=tensor.name, fix=f"one of {', '.join(fields)}")
        values[field.field] = await _value(field, tensor, files)
    try:
        return message.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        head, *rest = map(str, first["loc"] or ("request",))
        raise BadInput(foreign_text(first["msg"]), field=".".join((head.upper(), *rest))) from error


async def to_tensors(
    message: BaseModel, files: Files, wants: Callable[[str], bool] = lambda _: True
) -> tuple[Tensor, ...]:
    """The tensors of a request or result; files are fetched for wanted tensors only, and None is left out."""
    return tuple(
        [
            await _tensor(field, value, files)
            for field in task_tensors(type(message))
            if (value := getattr(message, field.field)) is not None and wants(field.tensor)
        ]
    )


def _spec(task: str) -> TaskSpec:
    if task not in TASKS:
        raise BadInput(f"there is no task {task!r}", field="task", fix=f"one of {', '.join(TASKS)}")
    return TASKS[task]


def _kind(annotation: Any) -> Kind:  # noqa: ANN401 (annotations have no common type)
    """The kind of a field's annotation, looking through Annotated, Literal and ``| None``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return _kind(inner[0]) if len(inner) == 1 else Kind.JSON
    if origin is Literal:
        kinds = {_kind(type(argument)) for argument in arguments}
        return kinds.pop() if len(kinds) == 1 else Kind.JSON
    if isinstance(annotation, type):
        return next((kind for base, kind in _KINDS if issubclass(annotation, base)), Kind.JSON)
    return Kind.JSON


def _config_type(field: TaskTensor) -> pb.DataType:
    return pb.DataType.Value(DATATYPES[field.datatype].config)


def _config_block(name: str, fields: Iterable[TaskTensor], *, optional: bool) -> list[str]:
    lines = [f"{name} ["]
    fields = list(fields)
    for field in fields:
        entry = f'name: "{field.tensor}" data_type: {DATATYPES[field.datatype].config} dims: [ 1 ]'
        entry += " optional: true" if optional and field.optional else ""
        comma = "," if field is not fields[-1] else ""
        lines.append(f"  {{ {entry} }}{comma} # {field.kind.value}")
    return [*lines, "]"]


async def _value(field: TaskTensor, tensor: Tensor, files: Files) -> JsonValue | ArtifactRef:
    if tensor.datatype != field.datatype:
        raise BadInput(f"data-type is '{tensor.datatype}', but the task expects '{field.datatype}'", field=tensor.name)
    if tensor.shape != (1,):
        raise BadInput(f"shape is {list(tensor.shape)}, but the task expects [1]", field=tensor.name)
    if field.datatype != "BYTES":
        value: JsonValue = tensor.array().tolist()[0]
        return value
    data = tensor.elements()[0]
    if field.kind is Kind.FILE:
        return await files.put_bytes(data, media_type="application/octet-stream", name=field.field)
    if field.kind is Kind.JSON:
        return parse_json(data, tensor.name)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start}", field=tensor.name) from error


async def _tensor(field: TaskTensor, value: object, files: Files) -> Tensor:
    if field.datatype != "BYTES":
        array = np.array([value], dtype=DATATYPES[field.datatype].numpy)
        return Tensor.from_array(field.tensor, array, field.datatype)
    if isinstance(value, ArtifactRef):
        data = await files.get_bytes(value)
    else:
        data = str(value).encode() if field.kind is Kind.TEXT else to_json(value)
    return Tensor.from_elements(field.tensor, [data])

"""Requests of a model's task out of a file of JSON lines; what users export at their own sizes and calibrate with.

The one invariant: a line that is no request of the task is told with its number, before anything is loaded.
"""

import asyncio
import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import JsonValue, ValidationError

from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.protocol.tasks import TASKS, TaskRequest

MOST_BYTES: Final = 8 << 20
MOST_LINES: Final = 64


async def read_requests(file: Path, task: str, store: ArtifactStore) -> Sequence[TaskRequest]:
    """The requests, in order.

    Args:
        file: a request a line, as the mesh takes them, but that media are ``{"path": "voice.wav"}``, from the file on.
        task: of the model.
        store: where the media go.

    Raises:
        BadInput: the file is too large, empty, or a line is no request of the task.
    """
    lines = await asyncio.to_thread(_lines, file)
    return [await _request(line, file, number, task, store) for number, line in lines]


def _lines(file: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    if file.stat().st_size > MOST_BYTES:
        raise BadInput(f"larger than {MOST_BYTES >> 20} MiB", field=str(file), fix="give fewer requests")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput("this is no UTF-8", field=str(file), fix="save it as UTF-8") from error
    # Not splitlines, which cuts at separators that JSON allows within a string.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not 1 <= len(lines) <= MOST_LINES:
        raise BadInput(f"{len(lines)} requests", field=str(file), fix=f"give 1 to {MOST_LINES}, one a line")
    return lines


async def _request(line: str, file: Path, number: int, task: str, store: ArtifactStore) -> TaskRequest:
    where = f"{file}:{number}"
    fix = f"write a request of the task {task}"
    try:
        held = json.loads(line)
    except ValueError as error:
        raise BadInput("this is no JSON", field=where, fix=fix) from error
    if not isinstance(held, dict):
        raise BadInput("this is no JSON object", field=where, fix=fix)
    fields = {name: await _stored(value, file.parent, f"{where}:{name}", store) for name, value in held.items()}
    try:
        return TASKS[task].request.model_validate(fields)
    except ValidationError as error:
        told = error.errors()[0]
        raise BadInput(f"{'.'.join(map(str, told['loc']))}: {told['msg']}", field=where, fix=fix) from error


async def _stored(value: JsonValue, folder: Path, field: str, store: ArtifactStore) -> object:
    """A reference where there is a path."""
    if not (isinstance(value, dict) and list(value) == ["path"]):
        return value
    path = folder / str(value["path"])
    media_type = mimetypes.guess_type(path.name)[0]
    if media_type is None or not path.is_file():
        raise BadInput(f"{path} is no file of media", field=field, fix="name a picture, a clip or a sound")
    return await store.put_file(path, media_type=media_type)

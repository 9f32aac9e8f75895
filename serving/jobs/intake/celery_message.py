"""CeleryMessage: what a message of a Celery client asks for, whatever broker it came by; read by the Celery intake.

The one invariant: nothing but JSON of bounded size and depth is ever decoded, so no message runs code or fills memory.
"""

import bz2
import json
import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import JsonValue

from serving.errors import BadInput, TooLarge, shown
from serving.jobs.types import Lane
from serving.protocol.oip_json import parse_json

MAX_BYTES: Final = 16 << 20
"""Of a message, packed or not; RabbitMQ 4 takes no larger one either."""
JSON: Final = "application/json"
_LZMA_BYTES: Final = 64 << 20
"""Memory that unpacking may take: more than any preset of xz needs."""
_CHARSETS: Final = {"", "utf-8", "utf8", "us-ascii", "ascii", "binary"}
_AFTER: Final = ("callbacks", "errbacks", "chain", "chord")
"""What a Celery client hangs on a task; more than its own result, so it is kept even if that is not wanted."""
_TEXTS: Final = ("id", "task", "root_id", "parent_id", "group")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as its broker hands it out.

    Args:
        headers: of the message; in Celery's second protocol they name the task.
        body: as it came, packed or not.
        content_type: how the body is written; only JSON is read.
        content_encoding: the body's character set.
        reply_to: the client's queue of results, where results are messages.
        correlation_id: what the client knows the result by; the task id without it.
        lane: what its priority asks for, which each broker counts in its own way.
        attempt: 1 for the first delivery, as far as the broker tells.
        problem: why not even this much could be read.
        handle: what the broker's class needs to acknowledge it.
    """

    headers: Mapping[str, Any]
    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    lane: Lane | None = None
    attempt: int = 1
    problem: BadInput | None = None
    handle: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Task:
    """What a message asks for.

    Args:
        id: Celery's task id; empty where it is not known.
        body: UTF-8 JSON of ``POST /v1/jobs``.
        reply: the request as Celery's results need it, JSON; None where nobody could be told anything.
        eta: no job before that time, in Unix seconds.
        expires: no job after that time, in Unix seconds.
        problem: why it is no job.
    """

    id: str = ""
    body: bytes = b""
    reply: dict[str, JsonValue] | None = None
    eta: float | None = None
    expires: float | None = None
    problem: BadInput | None = None


def task_of(envelope: Envelope, most_bytes: int = MAX_BYTES) -> Task:
    """Read a message; one that is malformed is a task with a problem, and with the reply as far as it is known."""
    known = dict(envelope.headers) if "task" in envelope.headers else {}
    reply = _address(known, envelope)
    try:
        if envelope.problem is not None:
            raise envelope.problem
        content = parse_json(_unpacked(envelope, most_bytes), "body")
        known, arguments = _opened(known, content)
        reply = _address(known, envelope)
        reply |= _following(known)
        own, job = _text(known, "id"), _job(_text(known, "task"), arguments, _limit_s(known))
        return Task(own, job, _wanted(reply), _moment(known, "eta"), _moment(known, "expires"))
    except BadInput as error:
        return Task(str(reply.get("id", "")), reply=_wanted(reply), problem=error)


def _unpacked(envelope: Envelope, most_bytes: int) -> bytes:
    """The body as JSON text."""
    kind = (envelope.content_type or "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise BadInput(
            f"the message is written as {shown(kind)}, and only JSON is read",
            field="content_type",
            fix="set task_serializer to json in the client's configuration",
        )
    if (envelope.content_encoding or "").lower() not in _CHARSETS:
        raise BadInput(f"the character set {shown(envelope.content_encoding)} is not UTF-8", field="content_encoding")
    method = envelope.headers.get("compression")
    body = envelope.body if method is None else _inflated(envelope.body, str(method), most_bytes)
    if len(body) > most_bytes:
        raise TooLarge(f"the message has more than {most_bytes} bytes", field="body")
    return body


def _inflated(body: bytes, method: str, most_bytes: int) -> bytes:
    """The first ``most_bytes`` and one of a packed body, however much more there would be."""
    unpacker: Any
    match method:
        case "application/x-gzip":
            unpacker = zlib.decompressobj()
        case "application/x-bz2":
            unpacker = bz2.BZ2Decompressor()
        case "application/x-lzma":
            unpacker = lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
        case _:
            raise BadInput(
                f"the message is packed by {shown(method)}", field="compression", fix="use gzip, bzip2 or lzma"
            )
    try:
        unpacked: bytes = unpacker.decompress(body, most_bytes + 1)
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise BadInput("the message cannot be unpacked", field="compression") from error
    return unpacked


def _opened(headers: dict[str, Any], content: JsonValue) -> tuple[dict[str, Any], list[JsonValue]]:
    """What is known of a task, and its arguments: of the second protocol, or of the first, which is all in the body."""
    match content:
        case [list() as args, dict() as kwargs, embed] if headers:
            after = embed if isinstance(embed, dict) else {}
            return headers | {name: after.get(name) for name in _AFTER}, [args, kwargs]
        case dict() as known if not headers and "task" in known:
            return known, [known.get("args") or [], known.get("kwargs") or {}]
        case _:
            raise BadInput("it is no task of Celery's message protocol 1 or 2", field="body")


def _job(name: str, arguments: list[JsonValue], limit_s: float | None) -> bytes:
    """The body of ``POST /v1/jobs``: the arguments are all of it if they have an ``input``, else they are the input.

    A task's name may have a path before the job type: ``studio.tasks.video_generation``.
    """
    match arguments:
        case [[], dict() as data]:
            pass
        case [[dict() as first], dict() as named]:
            data = {**first, **named}
        case _:
            raise BadInput(
                "the arguments are no job", field="args", fix="send the input as keyword arguments, or as one object"
            )
    body = {"type": name.rpartition(".")[2]} | ({} if limit_s is None else {"timeout_s": limit_s})
    return json.dumps(body | (data if "input" in data else {"input": data})).encode()


def _limit_s(known: Mapping[str, Any]) -> float | None:
    """The time limit that comes first, the soft or the hard one: a job has one bound on its run."""
    limits = known.get("timelimit")
    found = [limit for limit in limits if limit] if isinstance(limits, list) else []
    if not all(isinstance(limit, int | float) for limit in found):
        raise BadInput("a time limit is no number", field="timelimit")
    return min(found, default=None)


def _address(known: Mapping[str, Any], envelope: Envelope) -> dict[str, JsonValue]:
    """Where the result goes: Celery calls it the request."""
    address: dict[str, JsonValue] = {
        name: known[name] for name in _TEXTS if known.get(name) and isinstance(known[name], str)
    }
    index = known.get("group_index")
    address["group_index"] = index if isinstance(index, int) else None
    address["ignore_result"] = bool(known.get("ignore_result"))
    return address | {"reply_to": envelope.reply_to, "correlation_id": envelope.correlation_id}


def _following(known: Mapping[str, Any]) -> dict[str, JsonValue]:
    """What the client hung on the task."""
    following: dict[str, JsonValue] = {
        name: _signatures(known.get(name), name) for name in ("callbacks", "errbacks", "chain")
    }
    chord = known.get("chord")
    return following | {"chord": None if chord is None else _signatures([chord], "chord")[0]}


def _wanted(reply: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """None where the client asked for no result and nothing follows the task, or where nobody knows whose it is."""
    wanted = "id" in reply and (not reply["ignore_result"] or any(reply.get(name) for name in _AFTER))
    return reply if wanted else None


def _signatures(value: object, name: str) -> list[JsonValue]:
    """Tasks that follow this one."""
    found = value or []
    if not isinstance(found, list) or not all(isinstance(item, dict) and "task" in item for item in found):
        raise BadInput("it holds something that is no signature", field=name)
    return found


def _text(known: Mapping[str, Any], name: str) -> str:
    value = known.get(name)
    if not isinstance(value, str) or not value:
        raise BadInput("the message does not tell", field=name)
    return value


def _moment(known: Mapping[str, Any], name: str) -> float | None:
    """A time of ISO 8601 in Unix seconds; UTC where it names no zone."""
    value = known.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{shown(value)} is no time of ISO 8601", field=name) from error

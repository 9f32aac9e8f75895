"""Infer, generate and generate_stream over HTTP, in front of the application that answers everything else.

The one invariant: these calls go past no router, no middleware and no request object; a request costs two messages out
and no task of its own, since most of a small model's time would go there.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from pydantic_core import to_json
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.backends.ray.in_place import answers_small, is_small
from serving.backends.ray.oip_http_wire import JSON, ClientGone, Headers, answer, answer_error, read_body, until_gone
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import BadInput, ReelmeshError, TooLarge
from serving.protocol.licences import NON_COMMERCIAL, USE_HEADER
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_compression import accepted, compress
from serving.protocol.oip_errors import error_body, wrong_method_body
from serving.protocol.oip_generate import ONE_RESPONSE, event, generate_document, generate_request
from serving.protocol.oip_http import HEADER_LENGTH, decode_request, encode_response, header_length
from serving.settings import LimitSettings

log = structlog.get_logger()

Call = Callable[[tuple[str, str], Headers, Receive, Send], Awaitable[None]]

_PATH: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/(infer|generate|generate_stream)")
_LENGTH: Final = HEADER_LENGTH.lower().encode()
_USE: Final = USE_HEADER.encode()
_NON_COMMERCIAL: Final = NON_COMMERCIAL.encode()
_BINARY: Final = (b"content-type", b"application/octet-stream")
_WORTH_COMPRESSING: Final = 1024


class InferApp:
    """An ASGI application.

    Args:
        plane: answers.
        limits: ``infer_bytes`` bounds a request's body, both as received and decompressed, ``body_bytes`` its JSON.
        other: answers everything else.
    """

    def __init__(self, plane: OipPlane, limits: LimitSettings, other: ASGIApp) -> None:
        self._plane = plane
        self._limits = limits
        self._other = other
        self._calls: dict[str, Call] = {
            "infer": self._infer,
            "generate": self._generate,
            "generate_stream": self._generate_stream,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self._other(scope, receive, send)
            return
        if scope["method"] != "POST":
            body = to_json(wrong_method_body(scope["method"], scope["path"], "POST"))
            await answer(send, 405, body, JSON, (b"allow", b"POST"))
            return
        name, version, call = found.groups()
        try:
            await self._calls[call]((name, version or ""), dict(scope["headers"]), receive, send)
        except ClientGone:
            return
        except ReelmeshError as error:
            await answer_error(send, error)
        except Exception:
            log.exception("oip_http_failed", path=scope["path"][:256])
            await answer(send, 500, b'{"error":"internal error"}', JSON)

    async def _infer(self, model: tuple[str, str], headers: Headers, receive: Receive, send: Send) -> None:
        check = self._plane.check(*model)
        body = await read_body(receive, headers, self._limits.infer_bytes)
        length = headers.get(_LENGTH)
        json_bytes = header_length(None if length is None else length.decode("latin-1"), len(body))
        self._check_json(json_bytes)
        work = partial(decode_request, body, json_bytes, *model, check, self._plane.regions)
        asked = work() if is_small(body) else await asyncio.to_thread(work)
        async with until_gone(receive):
            response = await self._plane.infer(_for_its_use(asked, headers), "http")
        encoding = accepted(headers.get(b"accept-encoding", b"").decode("latin-1"))
        if answers_small(response):
            whole, extra = _encoded(response, asked, encoding)
        else:
            whole, extra = await asyncio.to_thread(_encoded, response, asked, encoding)
        await answer(send, 200, whole, *extra)

    async def _generate(self, model: tuple[str, str], headers: Headers, receive: Receive, send: Send) -> None:
        asked = await self._asked(model, headers, receive)
        responses = []
        async with until_gone(receive), contextlib.aclosing(self._plane.stream(asked, "http")) as stream:
            async for response in stream:
                responses.append(response)
                if len(responses) > 1:
                    break
        if len(responses) != 1:
            raise BadInput(ONE_RESPONSE)
        await answer(send, 200, await _written(_document, responses[0]), JSON)

    async def _generate_stream(self, model: tuple[str, str], headers: Headers, receive: Receive, send: Send) -> None:
        asked = await self._asked(model, headers, receive)
        started = False
        async with until_gone(receive), contextlib.aclosing(self._plane.stream(asked, "http")) as stream:
            try:
                async for response in stream:
                    if not started:
                        await _start_events(send)
                        started = True
                    await _send_event(send, await _written(_event, response))
            except ReelmeshError as error:
                if not started:
                    raise
                await _send_event(send, event(dict(error_body(error))))
            if not started:
                await _start_events(send)
            await send({"type": "http.response.body", "body": b""})

    async def _asked(self, model: tuple[str, str], headers: Headers, receive: Receive) -> InferRequest:
        specs = self._plane.check(*model).inputs
        body = await read_body(receive, headers, self._limits.infer_bytes)
        self._check_json(len(body))
        work = partial(generate_request, body, specs, *model)
        return _for_its_use(work() if is_small(body) else await asyncio.to_thread(work), headers)

    def _check_json(self, size: int) -> None:
        """Parsing holds up every thread of the process, and its objects take many times their text."""
        if size > self._limits.body_bytes:
            raise TooLarge(
                f"the JSON part has more than {self._limits.body_bytes} bytes",
                field="request body",
                fix=f"send tensors as binary data ({HEADER_LENGTH}), or raise limits.body_bytes",
            )


def _for_its_use(asked: InferRequest, headers: Headers) -> InferRequest:
    return replace(asked, use=NON_COMMERCIAL) if headers.get(_USE) == _NON_COMMERCIAL else asked


def _encoded(response: InferResponse, asked: InferRequest, encoding: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A response's body and its headers."""
    pieces, json_length = encode_response(response, asked)
    extra = [JSON] if json_length is None else [_BINARY, (_LENGTH, str(json_length).encode())]
    whole = b"".join(pieces)
    if encoding and len(whole) >= _WORTH_COMPRESSING:
        whole = compress(whole, encoding)
        extra.append((b"content-encoding", encoding.encode()))
    return whole, extra


async def _written(write: Callable[[InferResponse], bytes], response: InferResponse) -> bytes:
    return write(response) if answers_small(response) else await asyncio.to_thread(write, response)


def _document(response: InferResponse) -> bytes:
    return to_json(generate_document(response), inf_nan_mode="constants")


def _event(response: InferResponse) -> bytes:
    return event(generate_document(response))


async def _start_events(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})

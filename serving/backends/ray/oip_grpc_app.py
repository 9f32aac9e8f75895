"""gRPC as an ASGI application, for uvicorn's HTTP/2: inference.GRPCInferenceService of a Ray replica; run by OipServer.

grpc.aio spends about four times as long on a small call as uvicorn does, which was most of a small model's time.

The one invariant: every call ends with a status; what is not served answers UNIMPLEMENTED, never INTERNAL.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError, Message
from starlette.types import Receive, Scope, Send

from serving.backends.ray.oip_grpc_service import Call, StreamCall
from serving.backends.ray.oip_http_wire import ClientGone, Headers, Watch, until_gone
from serving.errors import BadInput, DeadlineExceeded, QueueFull, ReelmeshError, TooLarge
from serving.protocol.grpc_wire import Frames, frame, status_trailers, timeout_s
from serving.protocol.oip_errors import error_text

log = structlog.get_logger()

_TYPE: Final = b"application/grpc"
_SECONDS_MS: Final = 1000
_KEPT_BYTES: Final = 64
"""What keeping a message costs besides its own bytes."""

Trailers = list[tuple[bytes, bytes]]


class GrpcApp:
    """An ASGI application.

    Args:
        service: the service's full name.
        calls: unary calls by name, with the type of their requests.
        streams: calls with any number of requests and responses.
        message_bytes: largest message.
    """

    def __init__(
        self,
        service: str,
        calls: Mapping[str, tuple[type[Message], Call]],
        streams: Mapping[str, tuple[type[Message], StreamCall]],
        message_bytes: int,
    ) -> None:
        self._calls = {f"/{service}/{name}": call for name, call in calls.items()}
        self._streams = {f"/{service}/{name}": call for name, call in streams.items()}
        self._message_bytes = message_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        headers: Headers = dict(scope["headers"])
        if scope["method"] != "POST" or not headers.get(b"content-type", b"").startswith(_TYPE):
            await send({"type": "http.response.start", "status": 415, "headers": []})
            await send({"type": "http.response.body"})
            return
        if headers.get(b"te") != b"trailers":
            # Uvicorn leaves trailers, and so the status, out for who does not say this; no gRPC client does without.
            scope["headers"].append((b"te", b"trailers"))
        try:
            await _Exchange(headers, receive, send, self._message_bytes).run(scope["path"], self._calls, self._streams)
        except ClientGone:
            return


class _Exchange:
    """One call: what is read of it, and what was answered so far."""

    def __init__(self, headers: Headers, receive: Receive, send: Send, message_bytes: int) -> None:
        self._headers = headers
        self._receive = receive
        self._send = send
        self._frames = Frames(headers.get(b"grpc-encoding", b"").decode("latin-1"), message_bytes)
        self._message_bytes = message_bytes
        self._started = False

    async def run(
        self,
        path: str,
        calls: Mapping[str, tuple[type[Message], Call]],
        streams: Mapping[str, tuple[type[Message], StreamCall]],
    ) -> None:
        trailers = status_trailers("OK")
        try:
            limit_s = timeout_s(self._headers.get(b"grpc-timeout"))
            async with _limited(limit_s):
                if (unary := calls.get(path)) is not None:
                    await self._answer_one(*unary, limit_s)
                elif (stream := streams.get(path)) is not None:
                    await self._answer_many(*stream)
                else:
                    trailers = status_trailers("UNIMPLEMENTED", f"{path[:256]} is not served")
        except ReelmeshError as error:
            trailers = _refusal(error)
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("oip_grpc_failed", path=path[:256])
            trailers = status_trailers("INTERNAL", f"internal error: {type(error).__name__}")
        await self._start()
        await self._send({"type": "http.response.body", "body": b""})
        await self._send({"type": "http.response.trailers", "headers": trailers})

    async def _answer_one(self, kind: type[Message], call: Call, limit_s: float | None) -> None:
        message: Message | None = None
        async for each in self._messages(kind):
            if message is not None:
                raise BadInput("there is more than one message in a unary call", field="message")
            message = each
        if message is None:
            raise BadInput("there is no message", field="message")
        async with until_gone(self._receive):
            answer = await call(message, limit_s)
        await self._respond(answer)

    async def _answer_many(self, kind: type[Message], call: StreamCall) -> None:
        inbox = _Inbox(kind, self._message_bytes)
        async with until_gone(self._receive, watch=False) as watch:
            # Reads on while requests are worked on, so that it sees the client leave.
            reading = asyncio.create_task(self._read(inbox, watch))
            try:
                async with contextlib.aclosing(call(inbox.messages())) as responses:
                    async for response in responses:
                        await self._respond(response)
            finally:
                reading.cancel()

    async def _read(self, inbox: "_Inbox", watch: Watch) -> None:
        more = True
        while (event := await self._receive())["type"] != "http.disconnect":
            try:
                for raw in self._frames.add(event.get("body", b"")):
                    inbox.put(raw)
                if more and not event.get("more_body", False):
                    more = False
                    self._frames.end()
                    inbox.end(None)
            except ReelmeshError as error:
                inbox.end(error)
        watch.leave()

    async def _messages(self, kind: type[Message]) -> AsyncGenerator[Any, None]:
        more = True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            for raw in self._frames.add(event.get("body", b"")):
                yield _parsed(kind, raw)
            more = event.get("more_body", False)
        self._frames.end()

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            headers = [(b"content-type", _TYPE)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})

    async def _respond(self, message: Message) -> None:
        await self._start()
        body = frame(message.SerializeToString())
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


class _Inbox:
    """Messages of a stream that nobody has looked at yet, bounded in bytes."""

    def __init__(self, kind: type[Message], most_bytes: int) -> None:
        self._kind = kind
        self._most_bytes = most_bytes
        self._held = 0
        self._waiting: asyncio.Queue[bytes | ReelmeshError | None] = asyncio.Queue()

    def put(self, raw: bytes) -> None:
        """Keep a message; raises :class:`TooLarge` when too much waits."""
        self._held += len(raw) + _KEPT_BYTES
        if self._held > 2 * self._most_bytes:
            raise TooLarge(f"holds more than {2 * self._most_bytes} bytes of requests that wait", field="stream")
        self._waiting.put_nowait(raw)

    def end(self, error: ReelmeshError | None) -> None:
        """Nothing more comes, or nothing that can be read."""
        self._waiting.put_nowait(error)

    async def messages(self) -> AsyncGenerator[Any, None]:
        """The messages; raises what reading raised."""
        while (raw := await self._waiting.get()) is not None:
            if isinstance(raw, ReelmeshError):
                raise raw
            self._held -= len(raw) + _KEPT_BYTES
            yield _parsed(self._kind, raw)


@contextlib.asynccontextmanager
async def _limited(limit_s: float | None) -> AsyncIterator[None]:
    """Nothing without a limit, :class:`DeadlineExceeded` after it."""
    if limit_s is None:
        yield
        return
    try:
        async with asyncio.timeout(limit_s) as clock:
            yield
    except TimeoutError as error:
        if not clock.expired():
            raise
        raise DeadlineExceeded("the client's deadline passed") from error


def _parsed(kind: type[Message], raw: bytes) -> Message:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise BadInput(f"is not a {kind.DESCRIPTOR.name}", field="message") from error


def _refusal(error: ReelmeshError) -> Trailers:
    trailers = status_trailers(error.grpc_status, error_text(error))
    if isinstance(error, QueueFull):
        # gRPC clients that retry wait for as long as this says.
        trailers.append((b"grpc-retry-pushback-ms", str(error.retry_after_s * _SECONDS_MS).encode()))
    return trailers

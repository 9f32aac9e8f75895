"""gRPC handlers of a Ray replica for a grpc.aio server, made of tables of calls; added by OipServer.

Of the servers tried, grpc.aio alone holds back a writer that is faster than its reader, stream by stream and both ways.

The one invariant: every call ends with a status that names the fault; what is not served answers UNIMPLEMENTED.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf.message import Message

from serving.backends.ray.oip_grpc_service import Call, Kind, StreamCall
from serving.errors import QueueFull, ReelmeshError
from serving.protocol.licences import Use, use_of
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_grpc import Context, parsed, text_metadata

log = structlog.get_logger()

_SECONDS_MS: Final = 1000


def grpc_handler(
    service: str,
    calls: Mapping[str, tuple[Kind, Call]],
    streams: Mapping[str, tuple[Kind, StreamCall]],
) -> grpc.GenericRpcHandler:
    """A handler for ``server.add_generic_rpc_handlers``.

    Args:
        service: the service's full name.
        calls: unary calls by name, with the type of their requests.
        streams: calls with any number of requests and responses.
    """
    # Requests come as bytes: what is no message is the client's fault, which grpc.aio would answer with INTERNAL.
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_unary(kind, call), response_serializer=_serialize)
        for name, (kind, call) in calls.items()
    }
    for name, (kind, stream) in streams.items():
        handlers[name] = grpc.stream_stream_rpc_method_handler(_stream(kind, stream), response_serializer=_serialize)
    return grpc.method_handlers_generic_handler(service, handlers)


def _unary(kind: Kind, call: Call) -> Callable[[bytes, Context], Awaitable[Message | bytes]]:
    async def answer(raw: bytes, context: Context) -> Message | bytes:
        try:
            return await call(_read(kind, raw), context.time_remaining(), partial(_use, context))
        except Exception as error:  # whatever it is, the client is told
            return await _refuse(context, error)

    return answer


def _stream(kind: Kind, call: StreamCall) -> Callable[[AsyncIterator[bytes], Context], AsyncGenerator[Message, None]]:
    async def answer(raws: AsyncIterator[bytes], context: Context) -> AsyncGenerator[Message, None]:
        try:
            async with contextlib.aclosing(call(_messages(kind, raws), partial(_use, context))) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # whatever it is, the client is told
            await _refuse(context, error)

    return answer


async def _messages(kind: Kind, raws: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
    async for raw in raws:
        yield _read(kind, raw)


def _use(context: Context) -> Use:
    return use_of(text_metadata(context))


def _read(kind: Kind, raw: bytes) -> Any:  # noqa: ANN401  of that kind
    return raw if kind is None else parsed(kind, raw)


async def _refuse(context: Context, error: Exception) -> NoReturn:
    if not isinstance(error, ReelmeshError):
        log.error("oip_grpc_failed", exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}")
    # gRPC clients that retry wait for as long as this says.
    wait = (("grpc-retry-pushback-ms", str(error.retry_after_s * _SECONDS_MS)),) if isinstance(error, QueueFull) else ()
    await context.abort(grpc.StatusCode[error.grpc_status], error_text(error), wait)


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()

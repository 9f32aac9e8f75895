"""The OIP over gRPC, for the whole mesh; added to the gateway's grpc.aio server.

The one invariant: a message for one model is passed to a replica as it came and its answer back as it is, and whatever
fails ends with the status the protocol has for it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

import grpc
import structlog
from tritonclient.grpc import service_pb2 as pb

from serving.client.channel import connected
from serving.client.status import RETRY_AFTER, RETRY_PUSHBACK_MS
from serving.errors import NotFound, QueueFull, ReelmeshError, Unavailable
from serving.gateway.byte_budget import ByteBudget
from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_grpc_control import Call, control_calls
from serving.gateway.oip_grpc_messages import from_document, parsed, written
from serving.gateway.oip_keys import check_call
from serving.gateway.oip_look import LOOK_S
from serving.gateway.oip_mesh import TRIES, Find
from serving.gateway.oip_parts import MeshPlane
from serving.gateway.oip_stream import InferStream, ends_with_a_status, sequence_id
from serving.protocol.keys import grant_of
from serving.protocol.licences import metadata_of, use_of
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_grpc import SERVICE, Context, text_metadata
from serving.protocol.oip_shapes import check_message_shapes

log = structlog.get_logger()

_ANSWER_S: Final = 3600.0
_CONNECT_S: Final = 1.0
_WAITS: Final = (RETRY_AFTER, RETRY_PUSHBACK_MS)


def oip_handler(plane: MeshPlane, channels: Channels) -> grpc.GenericRpcHandler:
    """Handlers for ``server.add_generic_rpc_handlers``; make the server with ``grpc_options(limits.infer_bytes)``.

    Args:
        plane: the parts that both wires share.
        channels: to replicas, owned by the caller.
    """
    calls = _Calls(plane, channels)
    methods: dict[str, Call] = {
        "ServerLive": calls.live,
        "ServerReady": calls.ready,
        "ServerMetadata": calls.server,
        "RepositoryIndex": calls.index,
        "ModelInfer": calls.infer,
        "ModelMetadata": calls.metadata,
        "ModelConfig": calls.config,
        "ModelReady": calls.model_ready,
        "ModelStatistics": calls.statistics,
        **control_calls(plane.control),
    }
    unary = {
        name: grpc.unary_unary_rpc_method_handler(_guarded(name, call, plane.budget)) for name, call in methods.items()
    }
    stream = grpc.stream_stream_rpc_method_handler(calls.stream)
    return grpc.method_handlers_generic_handler(SERVICE, {**unary, "ModelStreamInfer": stream})


class _Calls:
    """Bytes in, bytes out: most messages are only passed on."""

    def __init__(self, plane: MeshPlane, channels: Channels) -> None:
        self._plane = plane
        self._mesh = plane.mesh
        self._channels = channels

    async def live(self, _data: bytes, _context: Context) -> bytes:
        return written(pb.ServerLiveResponse(live=True))

    async def ready(self, _data: bytes, _context: Context) -> bytes:
        return written(pb.ServerReadyResponse(ready=not await self._mesh.missing()))

    async def server(self, _data: bytes, _context: Context) -> bytes:
        return from_document(pb.ServerMetadataResponse, self._mesh.metadata())

    async def index(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.RepositoryIndexRequest, data)
        return from_document(pb.RepositoryIndexResponse, {"models": await self._mesh.index(message.ready)})

    async def infer(self, data: bytes, context: Context) -> bytes:
        message = parsed(pb.ModelInferRequest, data)
        check_message_shapes(message)
        use = use_of(text_metadata(context))
        find = partial(self._mesh.find, message.model_name, message.model_version, sequence_id(message))
        await self._mesh.permit(message.model_name, use)
        return await self._send("ModelInfer", find, data, context.time_remaining() or _ANSWER_S, metadata_of(use))

    async def metadata(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.ModelMetadataRequest, data)
        document = await self._plane.look.metadata(message.name, message.version)
        return from_document(pb.ModelMetadataResponse, document)

    async def config(self, data: bytes, context: Context) -> bytes:
        message = parsed(pb.ModelConfigRequest, data)
        find = partial(self._mesh.find, message.name, message.version, None)
        return await self._send("ModelConfig", find, data, context.time_remaining() or LOOK_S)

    async def model_ready(self, data: bytes, context: Context) -> bytes:
        message = parsed(pb.ModelReadyRequest, data)
        find = partial(self._mesh.find, message.name, message.version, None)
        try:
            return await self._send("ModelReady", find, data, context.time_remaining() or LOOK_S)
        except (NotFound, Unavailable):
            return written(pb.ModelReadyResponse(ready=False))

    async def statistics(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.ModelStatisticsRequest, data)
        document = await self._plane.look.statistics(message.name, message.version)
        return from_document(pb.ModelStatisticsResponse, document)

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        plane = self._plane
        strict, use = ends_with_a_status(context), use_of(text_metadata(context))
        stream = InferStream(
            plane, self._channels, context.time_remaining(), grant_of(text_metadata(context)), strict, use
        )
        async with _refusing(context), aclosing(stream.answers(messages)) as answers:
            async for answer in answers:
                yield answer

    async def _send(
        self, name: str, find: Find, data: bytes, patience_s: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> bytes:
        """One replica's answer; one that cannot be reached has not seen the request, so another is asked."""
        tried: set[str] = set()
        while len(tried) < TRIES:
            address = (await find(tried)).grpc
            if address in tried:
                break
            tried.add(address)
            async with self._channels.to(address) as channel:
                if await connected(channel, _CONNECT_S):
                    call = channel.unary_unary(f"/{SERVICE}/{name}")
                    answer: bytes = await call(data, timeout=patience_s, metadata=metadata)
                    return answer
        raise Unavailable("the replica cannot be reached", fix="try again in a moment")


def _guarded(name: str, call: Call, budget: ByteBudget) -> Call:
    async def guarded(data: bytes, context: Context) -> bytes:
        async with _refusing(context):
            check_call(grant_of(text_metadata(context)), name, data)
            with budget.holding() as held:
                held.take(len(data))
                return await call(data, context)
        raise AssertionError("abort always raises")

    return guarded


@asynccontextmanager
async def _refusing(context: Context) -> AsyncIterator[None]:
    """Whatever fails ends the call with its status."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        await context.abort(error.code(), error.details() or "", _waits_of(error))
    except ReelmeshError as error:
        waits = ((RETRY_AFTER, str(error.retry_after_s)),) if isinstance(error, QueueFull) else ()
        await context.abort(grpc.StatusCode[error.grpc_status], error_text(error), waits)
    except Exception:  # a bug of ours must not show its traceback to a client
        log.exception("oip_grpc_failed")
        await context.abort(grpc.StatusCode.INTERNAL, "the gateway failed; its log says more")


def _waits_of(error: grpc.aio.AioRpcError) -> Sequence[tuple[str, str]]:
    """What a replica with a full queue says of when to come again."""
    return tuple((name, value) for name, value in error.trailing_metadata() or () if name in _WAITS)

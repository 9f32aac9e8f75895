"""InferStream: one client's ModelStreamInfer through the gateway, over one upstream stream for each replica it needs.

The one invariant: whatever happens to one message or one replica, every message gets an answer or an error in the
stream, and the stream goes on; unless the client asked for a stream that ends with the status of its first error.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
import structlog
from tritonclient.grpc import service_pb2 as pb

from serving.errors import EngineFailed, ReelmeshError, Unavailable
from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_grpc_messages import parsed
from serving.gateway.oip_http_body import sequence_text
from serving.gateway.oip_keys import check_may
from serving.gateway.oip_mesh import TRIES
from serving.gateway.oip_parts import MeshPlane
from serving.gateway.oip_upstream import Upstream, refusal_message
from serving.protocol.endpoint import Endpoint
from serving.protocol.keys import Grant
from serving.protocol.licences import COMMERCIAL, Use, metadata_of
from serving.protocol.oip_grpc import SERVICE, STATUS_IN_STREAMS, Context
from serving.protocol.oip_shapes import check_message_shapes

log = structlog.get_logger()

IN_FLIGHT: Final = 1024
"""Messages of one stream that wait for their answer; more are not read until some have come."""
OUT: Final = 4
"""Answers that wait for the client to read them; then the replicas wait too."""
AVOID_S: Final = 2.0
"""How long a replica that broke off is not asked again while there are others."""
MOST_CHOSEN: Final = 1024
"""Models whose replica a stream remembers; a client may make up versions without end."""


class InferStream:
    """Passes messages to replicas and their answers back as they come.

    Args:
        plane: knows the replicas, and bounds what is held of messages.
        channels: to replicas.
        deadline_s: what is left of the client's deadline; None means that there is none.
        grant: what the client's key allows; None where the mesh asks for no keys.
        strict: whether the first error ends the stream with its status.
        use: what all of its inferences are for.
    """

    def __init__(
        self,
        plane: MeshPlane,
        channels: Channels,
        deadline_s: float | None = None,
        grant: Grant | None = None,
        strict: bool = False,
        use: Use = COMMERCIAL,
    ) -> None:
        self._use = use
        self._mesh = plane.mesh
        self._budget = plane.budget
        self._channels = channels
        self._grant = grant
        self._strict = strict
        self._failure: Exception | None = None
        self._ends_s = None if deadline_s is None else time.monotonic() + deadline_s
        # Bounded by a semaphore, so that the end finds its way in at any time.
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._unread = asyncio.Semaphore(OUT)
        self._held = AsyncExitStack()
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._upstreams: dict[str, Upstream] = {}
        self._all: set[Upstream] = set()
        self._chosen: dict[tuple[str, str], str] = {}
        self._avoided: dict[str, float] = {}

    async def answers(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """What the client gets; ends when it has half-closed and every replica has answered.

        Raises:
            ReelmeshError: the first error of a strict stream.
            grpc.aio.AioRpcError: the same, where a replica gave it.
        """
        reading = asyncio.create_task(self._read(messages))
        reading.add_done_callback(self._end)
        try:
            while (answer := await self._out.get()) is not None:
                yield answer
                self._unread.release()
            if self._failure is not None:
                raise self._failure
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, *(upstream.cancel() for upstream in self._all), return_exceptions=True)
            await self._held.aclose()

    def _end(self, _reading: asyncio.Task[None] | None = None) -> None:
        self._out.put_nowait(None)

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        async for data in messages:
            await self._accept(data)
        await asyncio.gather(*(upstream.finish() for upstream in self._all))

    async def _put(self, answer: bytes) -> None:
        await self._unread.acquire()
        self._out.put_nowait(answer)

    async def _refuse(self, name: str, error: ReelmeshError) -> None:
        if self._strict:
            cause = error.__cause__
            self._failure = self._failure or (cause if isinstance(cause, grpc.aio.AioRpcError) else error)
            self._end()
        else:
            await self._put(refusal_message(name, error))

    async def _accept(self, data: bytes) -> None:
        await self._room.acquire()
        name = ""
        try:
            message = parsed(pb.ModelInferRequest, data)
            name = message.id
            check_may(self._grant, "ModelInfer", message.model_name)
            await self._mesh.permit(message.model_name, self._use)
            check_message_shapes(message)
            with self._budget.holding() as held:
                held.take(len(data))
                await (await self._upstream(message)).send(message, data)
        except ReelmeshError as error:
            self._settled()
            await self._refuse(name, error)
        except Exception:  # a bug of ours must not end the stream
            log.exception("oip_stream_failed")
            self._settled()
            await self._refuse(name, EngineFailed("the gateway failed; its log says more"))

    async def _upstream(self, message: Any) -> Upstream:  # noqa: ANN401  messages have no types
        """An open stream to a replica of the message's model."""
        error: ReelmeshError = Unavailable("no replica answers", fix="try again in a moment")
        for _ in range(TRIES):
            replica = await self._replica(message)
            known = self._upstreams.get(replica.grpc)
            if known is not None and not known.over:
                return known
            try:
                return await self._open(replica.grpc)
            except Unavailable as caught:
                error = caught
                self._avoided[replica.grpc] = time.monotonic() + AVOID_S
        raise error

    async def _replica(self, message: Any) -> Endpoint:  # noqa: ANN401
        """Sequences go where they belong; other messages of one model to one replica, which keeps their order."""
        model, version = message.model_name, message.model_version
        avoid = self._avoid()
        sequence = sequence_id(message)
        if sequence is not None:
            return await self._mesh.find(model, version, sequence, avoid)
        here = self._chosen.get((model, version))
        serving = await self._mesh.serving(model, version)
        kept = next((each for each in serving if each.grpc == here and here not in avoid), None)
        chosen = kept or await self._mesh.find(model, version, avoid=avoid)
        if len(self._chosen) >= MOST_CHOSEN:
            self._chosen.clear()
        self._chosen[model, version] = chosen.grpc
        return chosen

    async def _open(self, address: str) -> Upstream:
        left_s = None if self._ends_s is None else max(0.0, self._ends_s - time.monotonic())
        channel = await self._held.enter_async_context(self._channels.to(address))
        metadata = (*(STATUS_IN_STREAMS if self._strict else ()), *metadata_of(self._use))
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(timeout=left_s, metadata=metadata)
        upstream = Upstream(call, address, self._put, self._refuse, self._settled)
        await upstream.connect()
        self._all = {each for each in self._all if not each.done} | {upstream}
        self._upstreams[address] = upstream
        return upstream

    def _avoid(self) -> set[str]:
        now = time.monotonic()
        broken = [address for address, upstream in self._upstreams.items() if upstream.over]
        for address in broken:
            del self._upstreams[address]
            self._avoided[address] = now + AVOID_S
        self._avoided = {address: until for address, until in self._avoided.items() if until > now}
        return set(self._avoided)

    def _settled(self) -> None:
        self._room.release()


def ends_with_a_status(context: Context) -> bool:
    """Whether the client asked for a stream that ends with the status of its first error."""
    return STATUS_IN_STREAMS[0] in [tuple(pair) for pair in context.invocation_metadata() or ()]


def sequence_id(message: Any) -> str | None:  # noqa: ANN401
    """The sequence that a request belongs to; None when to none."""
    if "sequence_id" not in message.parameters:
        return None
    parameter = message.parameters["sequence_id"]
    chosen = parameter.WhichOneof("parameter_choice")
    return sequence_text(getattr(parameter, chosen)) if chosen else None

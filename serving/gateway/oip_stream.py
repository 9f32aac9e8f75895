"""InferStream: one client's ModelStreamInfer through the gateway, over one upstream stream for each replica it needs.

The one invariant: whatever happens to one message or one replica, every message gets an answer or an error in the
stream, and the stream goes on.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import structlog
from tritonclient.grpc import service_pb2 as pb

from serving.errors import EngineFailed, ReelmeshError, Unavailable
from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_grpc_messages import parsed
from serving.gateway.oip_http_body import sequence_text
from serving.gateway.oip_keys import check_may
from serving.gateway.oip_mesh import OipMesh
from serving.gateway.oip_upstream import Upstream, refusal_message
from serving.protocol.endpoint import Endpoint
from serving.protocol.keys import Grant

log = structlog.get_logger()

IN_FLIGHT: Final = 1024
"""Messages of one stream that wait for their answer; more are not read until some have come."""
OUT: Final = 4
"""Answers that wait for the client to read them; then the replicas wait too."""
TRIES: Final = 3
AVOID_S: Final = 2.0
"""How long a replica that broke off is not asked again while there are others."""


class InferStream:
    """Passes messages to replicas and their answers back as they come.

    Args:
        mesh: knows the replicas.
        channels: to them.
        deadline_s: what is left of the client's deadline; None means that there is none.
        grant: what the client's key allows; None where the mesh asks for no keys.
    """

    def __init__(
        self, mesh: OipMesh, channels: Channels, deadline_s: float | None = None, grant: Grant | None = None
    ) -> None:
        self._mesh = mesh
        self._channels = channels
        self._grant = grant
        self._ends_s = None if deadline_s is None else time.monotonic() + deadline_s
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue(OUT)
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._upstreams: dict[str, Upstream] = {}
        self._all: set[Upstream] = set()
        self._chosen: dict[tuple[str, str], str] = {}
        self._avoided: dict[str, float] = {}

    async def answers(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What the client gets; ends when it has half-closed and every replica has answered."""
        reading = asyncio.create_task(self._read(messages))
        try:
            while (answer := await self._out.get()) is not None:
                yield answer
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, *(upstream.cancel() for upstream in self._all), return_exceptions=True)

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        try:
            async for data in messages:
                await self._accept(data)
            await asyncio.gather(*(upstream.finish() for upstream in self._all))
        finally:
            await self._out.put(None)

    async def _accept(self, data: bytes) -> None:
        await self._room.acquire()
        name = ""
        try:
            message = parsed(pb.ModelInferRequest, data)
            name = message.id
            check_may(self._grant, "ModelInfer", message.model_name)
            await (await self._upstream(message)).send(message, data)
        except ReelmeshError as error:
            self._room.release()
            await self._out.put(refusal_message(name, error))
        except Exception:  # a bug of ours must not end the stream
            log.exception("oip_stream_failed")
            self._room.release()
            await self._out.put(refusal_message(name, EngineFailed("the gateway failed; its log says more")))

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
        self._chosen[model, version] = chosen.grpc
        return chosen

    async def _open(self, address: str) -> Upstream:
        left_s = None if self._ends_s is None else max(0.0, self._ends_s - time.monotonic())
        upstream = Upstream(await self._channels.to(address), address, left_s, self._out.put, self._settled)
        await upstream.connect()
        self._all = {each for each in self._all if not each.over} | {upstream}
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


def sequence_id(message: Any) -> str | None:  # noqa: ANN401
    """The sequence that a request belongs to; None when to none."""
    if "sequence_id" not in message.parameters:
        return None
    parameter = message.parameters["sequence_id"]
    chosen = parameter.WhichOneof("parameter_choice")
    return sequence_text(getattr(parameter, chosen)) if chosen else None

"""Mesh: the typed async client of a mesh, or of any server that speaks the Open Inference Protocol over gRPC; used by
the Triton backend and by programs outside the mesh.

The one invariant: one deadline holds over everything that a call does, and a request that may have run is not sent
again unless the caller said that it may.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from serving.client.channel import CallFailed, Channel
from serving.client.control import CONTROL_S, Control
from serving.client.regions import MOST_BYTES, Lease, RegionPool
from serving.client.request import Given, Outputs, Step, build_request, plan, to_bytes
from serving.client.result import Result, from_bytes
from serving.client.retries import Deadline, Retries
from serving.client.status import Turned
from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, Unsupported, foreign_text
from serving.protocol.oip import InferRequest, Parameters
from serving.protocol.oip_grpc import STATUS_IN_STREAMS
from serving.protocol.oip_parameters import ENABLE_FINAL, FINAL
from serving.protocol.oip_wire import split_contents

DEADLINE_S: Final = 120.0
"""Of a call that names none."""
SHARED_FROM_BYTES: Final = 1 << 20
"""Least size of a tensor that goes through shared memory. Measured against one tritonserver: below about 512 KiB the
wire is as fast; 1 MiB there and back takes 6.8 ms by the wire and 2.5 ms by shared memory, 64 MiB 600 ms and 58 ms."""

_STREAM_RESPONSE: Final = 2
"""Number of ``ModelStreamInferResponse.infer_response``."""

T = TypeVar("T")


class Mesh(Control):
    """A connection; made inside a running event loop, closed by ``async with`` or :meth:`close`.

    Args:
        address: ``host:port``, ``grpc://host:port`` or, encrypted, ``grpcs://host:port`` of the gRPC port.
        key: sent as bearer token.
        metadata: further headers of every call.
        deadline_s: of calls that name none.
        retries: when a call that was turned away is made again.
        shared_memory: False keeps all tensors on the wire.
        server: put before the texts of the server's errors.

    Raises:
        BadInput: the address has another form.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str = "",
        metadata: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
        retries: Retries | None = None,
        shared_memory: bool = True,
        server: str = "",
    ) -> None:
        headers = {**(metadata or {}), **({"authorization": f"Bearer {key}"} if key else {})}
        super().__init__(Channel(address, headers, server))
        self._server = server
        self._deadline_s = deadline_s
        self._retries = retries or Retries()
        self._shared = shared_memory and self._channel.local
        self._regions = RegionPool(self, MOST_BYTES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Unregister and remove the shared memory, and close the connection; calls under way fail."""
        await self._regions.close()
        await self._channel.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Given] | None = None,
        /,
        *,
        version: str = "",
        request_id: str = "",
        outputs: Outputs = (),
        output_bytes: Mapping[str, int] | None = None,
        priority: int | None = None,
        sequence: Step | None = None,
        parameters: Parameters | None = None,
        deadline_s: float | None = None,
        idempotent: bool = False,
        **arrays: Given,
    ) -> Result:
        """Run one inference.

        Args:
            model: its name.
            inputs: arrays by input name, where a name is no Python word or is one of the words here.
            version: empty lets the mesh choose.
            request_id: comes back with the answer.
            outputs: names of those wanted, none for all; a mapping asks for that number of classes instead.
            output_bytes: most bytes of big outputs, named in ``outputs``, so that they too come by shared memory.
            priority: 1 is the highest; 0 and None are the model's default.
            sequence: the request's place, for models that hold state.
            parameters: for the model, or reserved ones of the protocol such as ``timeout`` in microseconds.
            deadline_s: seconds from now, over all attempts.
            idempotent: the request may run twice, so it is repeated also when the connection broke under it.
            **arrays: arrays by input name, or what ``np.asarray`` takes; dtype and shape must be the input's own,
                strings are BYTES.

        Raises:
            ReelmeshError: of the class that fits the status.
        """
        request = build_request(
            model, {**(inputs or {}), **arrays},
            version=version, request_id=request_id, outputs=outputs, priority=priority, sequence=sequence,
            parameters=parameters,
        )  # fmt: skip
        deadline = Deadline.after(self._deadline_s if deadline_s is None else deadline_s, model)

        async def once() -> Result:
            return await self._infer(request, output_bytes or {}, deadline)

        return await self._retried(once, deadline, idempotent=idempotent)

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, Given] | None = None,
        /,
        *,
        version: str = "",
        request_id: str = "",
        outputs: Outputs = (),
        priority: int | None = None,
        parameters: Parameters | None = None,
        deadline_s: float | None = None,
        **arrays: Given,
    ) -> AsyncGenerator[Result, None]:
        """Run one inference of a decoupled model, and yield its answers as they come; never repeated.

        Leaving the loop cancels the request; ``contextlib.aclosing`` round it fixes the moment. Arguments as in
        :meth:`infer`.
        """
        request = build_request(
            model, {**(inputs or {}), **arrays},
            version=version, request_id=request_id, outputs=outputs, priority=priority,
            parameters={**(parameters or {}), ENABLE_FINAL: True},
        )  # fmt: skip
        timeout_s = self._deadline_s if deadline_s is None else deadline_s
        parts = self._channel.stream("ModelStreamInfer", to_bytes(request), timeout_s, model, STATUS_IN_STREAMS)
        try:
            async for message in parts:
                result = _stream_part(message, model)
                final = bool(result.parameters.get(FINAL))
                if result.outputs or not final:
                    yield result
                if final:
                    return
        except CallFailed as failure:
            raise failure.how.error from failure.__cause__
        finally:
            await parts.aclose()

    async def _retried(self, once: Callable[[], Awaitable[T]], deadline: Deadline, *, idempotent: bool) -> T:
        attempt = 1
        while True:
            try:
                return await once()
            except CallFailed as failure:
                pause_s = self._retries.pause_s(
                    failure.how, attempt, idempotent=idempotent, remaining_s=deadline.remaining_s()
                )
                if pause_s is None:
                    raise failure.how.error from failure.__cause__
            attempt += 1
            await asyncio.sleep(pause_s)

    async def _infer(self, request: InferRequest, output_bytes: Mapping[str, int], deadline: Deadline) -> Result:
        """One attempt, through shared memory where that pays."""
        inputs, outputs, size = plan(request, output_bytes, SHARED_FROM_BYTES)
        lease = await self._regions.lease(size, deadline.remaining_s()) if size and self._shared else None
        if lease is None:
            return from_bytes(await self._send(request, to_bytes(request), deadline))
        try:
            message = await asyncio.to_thread(to_bytes, request, lease, inputs, outputs)
            answer = await self._send(request, message, deadline)
            result = from_bytes(answer, lease, outputs)
            self._regions.give_back(lease)
            return result
        except CallFailed as failure:
            # Asked before the region is given up: that takes it from the server too.
            if not await self._was_not_run(failure.how, lease, min(CONTROL_S, deadline.remaining_s())):
                raise
            self._regions.refused()
        finally:
            self._regions.give_up(lease)
        return from_bytes(await self._send(request, to_bytes(request), deadline))

    async def _send(self, request: InferRequest, message: bytes, deadline: Deadline) -> bytes:
        return await self._channel.unary("ModelInfer", message, deadline.remaining_s(), request.model_name)

    async def _was_not_run(self, how: Turned, lease: Lease, timeout_s: float) -> bool:
        """Whether a call failed for its shared memory: such a one has not run and may be sent in the ordinary way."""
        if isinstance(how.error, Unsupported):
            return True
        if not isinstance(how.error, BadInput | NotFound):
            return False
        try:
            return not await self.registered(lease.segment.name, timeout_s)
        except ReelmeshError:
            return False


def _stream_part(message: bytes, model: str) -> Result:
    """One answer of a stream; raises :class:`EngineFailed` for one that is an error."""
    try:
        rest, answers = split_contents(message, _STREAM_RESPONSE)
        problem = pb.ModelStreamInferResponse.FromString(rest).error_message
    except (DecodeError, BadInput) as error:
        raise EngineFailed(f"the server's answer is broken: {error}", field=model) from error
    if problem:
        raise EngineFailed(foreign_text(problem), field=model)
    return from_bytes(answers[0] if answers else b"")

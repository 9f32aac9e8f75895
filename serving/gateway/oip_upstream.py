"""Upstream: the gateway's ModelStreamInfer to one replica, on behalf of one client; held by InferStream.

The one invariant: it knows which messages are not answered whole, so that each gets an error when the replica ends.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import structlog
from tritonclient.grpc import service_pb2 as pb

from serving.errors import BadInput, EngineFailed, ReelmeshError, Unavailable, foreign_text
from serving.gateway.oip_grpc_messages import parsed, written
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_parameters import ENABLE_FINAL, FINAL

log = structlog.get_logger()

CONNECT_S: Final = 2.0
_REMEMBERED: Final = 1024

# Appended to a serialized request it sets the parameter, since fields of concatenated messages are merged.
_ASK_FOR_FINAL: Final = written(pb.ModelInferRequest(parameters={ENABLE_FINAL: pb.InferParameter(bool_param=True)}))


def refusal_message(name: str, error: ReelmeshError) -> bytes:
    """An error in the stream, with the id of the request it is about."""
    response = pb.ModelInferResponse(id=name)
    return written(pb.ModelStreamInferResponse(error_message=error_text(error), infer_response=response))


class Upstream:
    """One stream to one replica.

    Args:
        call: to the replica.
        address: its address, for logs.
        put: takes answers for the client; waits while the client does not read.
        refuse: takes the errors of requests that get no answer.
        settled: called once for each message that is answered whole.
    """

    def __init__(
        self,
        call: Any,  # noqa: ANN401  grpc has no types
        address: str,
        put: Callable[[bytes], Awaitable[None]],
        refuse: Callable[[str, ReelmeshError], Awaitable[None]],
        settled: Callable[[], None],
    ) -> None:
        self.over = False
        self._address = address
        self._call = call
        self._put = put
        self._refuse = refuse
        self._settled = settled
        # By request id, oldest first: whether the client itself wants an empty final response.
        self._waiting: OrderedDict[str, deque[bool]] = OrderedDict()
        self._failed: OrderedDict[str, bool] = OrderedDict()
        self._pumping: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        """Whether every message has had its answer or its error, and no more can be sent."""
        return self._pumping is None or self._pumping.done()

    async def connect(self) -> None:
        """Raises :class:`Unavailable` when the replica cannot be reached."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._call.wait_for_connection()
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            self.over = True
            self._call.cancel()
            raise Unavailable("the replica cannot be reached", fix="try again in a moment") from error
        self._pumping = asyncio.create_task(self._pump())

    async def send(self, message: Any, data: bytes) -> None:  # noqa: ANN401  messages have no types
        """Pass a request on; waits while the replica does not read.

        Args:
            message: the request.
            data: its bytes.

        Raises:
            Unavailable: the stream is over; a message that was on its way then gets its error by itself.
        """
        if self.over:
            raise Unavailable("the replica ended the stream", fix="send the request again")
        wanted = ENABLE_FINAL in message.parameters and message.parameters[ENABLE_FINAL].bool_param
        self._waiting.setdefault(message.id, deque()).append(wanted)
        try:
            await self._call.write(data if wanted else data + _ASK_FOR_FINAL)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # The pump sees the end too, and answers for every message that waits, this one among them.
            log.debug("oip_upstream_write_failed", replica=self._address, error=foreign_text(error))

    async def finish(self) -> None:
        """No more requests: wait for the answers to those that were sent."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()
        if self._pumping is not None:
            await self._pumping

    async def cancel(self) -> None:
        """End it at once: the client has gone."""
        self._call.cancel()
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)

    async def _pump(self) -> None:
        failure: ReelmeshError = Unavailable("the replica ended the stream", fix="send the request again")
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                if self._is_wanted(parsed(pb.ModelStreamInferResponse, data)):
                    await self._put(data)
        except grpc.aio.AioRpcError as error:
            why = foreign_text(error.details()) or error.code().name
            failure = Unavailable(f"the replica ended the stream: {why}", fix="send the request again")
            failure.__cause__ = error
            log.warning("oip_upstream_lost", replica=self._address, error=str(failure), waiting=len(self._waiting))
        except BadInput as error:
            failure = EngineFailed(f"the replica answered nonsense: {error}")
            log.warning("oip_upstream_lost", replica=self._address, error=str(failure), waiting=len(self._waiting))
        finally:
            self.over = True
            self._call.cancel()
        left = [name for name, requests in self._waiting.items() for _ in requests]
        self._waiting.clear()
        for name in left:
            self._settled()
            await self._refuse(name, failure)

    def _is_wanted(self, answer: Any) -> bool:  # noqa: ANN401
        """Take note of an answer; False for an empty final response that only the gateway wanted."""
        response = answer.infer_response
        if answer.error_message:
            # A decoupled model may go on after an error; what the client wanted of its end is remembered.
            self._failed[response.id] = self._settle(response.id)
            if len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
            return True
        # A replica that does not mark the end answers each request once.
        if FINAL in response.parameters and not response.parameters[FINAL].bool_param:
            return True
        known = response.id in self._waiting
        wanted = self._settle(response.id) if known else self._failed.pop(response.id, True)
        return wanted or len(response.outputs) > 0

    def _settle(self, name: str) -> bool:
        """One request is answered whole: the one with that id, or the oldest; whether its client wants the end."""
        if name not in self._waiting:
            if not self._waiting:
                return True
            name = next(iter(self._waiting))
        requests = self._waiting[name]
        wanted = requests.popleft()
        if not requests:
            del self._waiting[name]
        self._settled()
        return wanted

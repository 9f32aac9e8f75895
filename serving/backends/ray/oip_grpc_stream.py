"""ModelStreamInfer: any number of requests on one bidirectional stream; one call of the gRPC service of a Ray replica.

The one invariant: the responses of a request come in order, those of models that are not decoupled in the order of
their requests, as in Triton; what goes wrong with a request is told inside the stream, which goes on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import structlog
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.oip_plane import OipPlane
from serving.errors import ReelmeshError
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_grpc import from_message, to_message
from serving.protocol.oip_parameters import ENABLE_FINAL, FINAL

log = structlog.get_logger()

IN_FLIGHT: Final = 64
"""Requests of one stream that are worked on at a time; reading goes on when one has ended."""
_UNREAD: Final = 64


class InferStream:
    """One stream.

    Args:
        plane: answers.
    """

    def __init__(self, plane: OipPlane) -> None:
        self._plane = plane
        self._responses: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue(_UNREAD)
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._failure: ReelmeshError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(
        self, messages: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """The responses to a stream of requests; closing it cancels what is in flight."""
        reading = asyncio.create_task(self._read(messages))
        try:
            while (response := await self._responses.get()) is not None:
                yield response
            if self._failure is not None:
                raise self._failure
        finally:
            for task in (reading, *self._tasks):
                task.cancel()
            await asyncio.gather(reading, *self._tasks, return_exceptions=True)

    async def _read(self, messages: AsyncIterator[pb.ModelInferRequest]) -> None:
        before = asyncio.Event()
        before.set()
        try:
            async for message in messages:
                await self._places.acquire()
                done = asyncio.Event()
                decoupled = self._plane.decoupled(message.model_name)
                task = asyncio.create_task(self._serve(message, before, done, decoupled=decoupled))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                if not decoupled:
                    # Nobody waits for a request that may go on for ever.
                    before = done
            await asyncio.gather(*self._tasks)
        except ReelmeshError as error:
            # What came was no message: nothing after it can be read either.
            self._failure = error
        await self._responses.put(None)

    async def _serve(
        self, message: pb.ModelInferRequest, before: asyncio.Event, done: asyncio.Event, *, decoupled: bool
    ) -> None:
        try:
            request = from_message(message, self._plane.regions)
            if decoupled:
                await self._answer_many(request)
            else:
                response = await self._plane.infer(request, "grpc")
                await before.wait()
                await self._respond(response, final=True)
        except ReelmeshError as error:
            await before.wait()
            await self._refuse(message, error_text(error))
        except Exception as error:
            log.exception("oip_stream_failed")
            await before.wait()
            await self._refuse(message, f"internal error: {type(error).__name__}")
        finally:
            done.set()
            self._places.release()

    async def _answer_many(self, request: InferRequest) -> None:
        version = request.model_version
        async with contextlib.aclosing(self._plane.stream(request, "grpc")) as responses:
            async for response in responses:
                version = response.model_version
                await self._respond(response, final=False)
        if request.parameters.get(ENABLE_FINAL):
            await self._respond(InferResponse(request.model_name, version or "1", request.id), final=True)

    async def _respond(self, response: InferResponse, *, final: bool) -> None:
        answer = to_message(response)
        answer.parameters[FINAL].bool_param = final
        await self._responses.put(pb.ModelStreamInferResponse(infer_response=answer))

    async def _refuse(self, message: pb.ModelInferRequest, text: str) -> None:
        about = pb.ModelInferResponse(model_name=message.model_name[:256], id=message.id[:4096])
        await self._responses.put(pb.ModelStreamInferResponse(error_message=text, infer_response=about))

"""ModelStreamInfer: any number of requests on one bidirectional stream; one call of the gRPC service of a Ray replica.

The one invariant: the responses of a request come in order, those of models that are not decoupled in the order of
their requests, as in Triton; what goes wrong with a request is told inside the stream, which goes on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

import structlog
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.in_place import IN_PLACE_BYTES, answers_small, is_small
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import ReelmeshError
from serving.protocol.licences import COMMERCIAL, Use
from serving.protocol.oip import InferRequest, InferResponse, Raw
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_grpc import from_message, parsed, split_message, to_message
from serving.protocol.oip_parameters import ENABLE_FINAL, FINAL

log = structlog.get_logger()

IN_FLIGHT: Final = 64
"""Requests of one stream that are worked on at a time; reading goes on when one has ended."""
_UNREAD: Final = 64


class GrpcRequests:
    """Makes requests of messages.

    Args:
        plane: knows the models.
        body_bytes: what a message may have beside its raw contents.
    """

    def __init__(self, plane: OipPlane, body_bytes: int) -> None:
        self._plane = plane
        self._body_bytes = body_bytes

    def decode(self, raw: bytes) -> InferRequest:
        """The request in a serialized message; may block unless that :func:`is_small`.

        Raises:
            BadInput: it is none, or does not fit the model.
            NotFound: there is no such model, version or region.
        """
        return self.convert(*self.parse(raw))

    def parse(self, raw: bytes) -> tuple[pb.ModelInferRequest, Sequence[Raw] | None]:
        """The message, of a large one without its raw contents, which come beside it."""
        if len(raw) <= IN_PLACE_BYTES:
            return parsed(pb.ModelInferRequest, raw), None
        return split_message(raw, self._body_bytes)

    def convert(self, message: pb.ModelInferRequest, contents: Sequence[Raw] | None) -> InferRequest:
        """The request in what :meth:`parse` gave."""
        check = self._plane.check(message.model_name, message.model_version)
        return from_message(message, self._plane.regions, check, contents)


class RequestStream:
    """One stream.

    Args:
        plane: answers.
        requests: reads messages.
        use: what all of them are for.
    """

    def __init__(self, plane: OipPlane, requests: GrpcRequests, use: Use = COMMERCIAL) -> None:
        self._use = use
        self._plane = plane
        self._requests = requests
        self._responses: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue(_UNREAD)
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._failure: ReelmeshError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, raws: AsyncIterator[bytes]) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """The responses to a stream of requests; closing it cancels what is in flight."""
        reading = asyncio.create_task(self._read(raws))
        try:
            while (response := await self._responses.get()) is not None:
                yield response
            if self._failure is not None:
                raise self._failure
        finally:
            for task in (reading, *self._tasks):
                task.cancel()
            await asyncio.gather(reading, *self._tasks, return_exceptions=True)

    async def _read(self, raws: AsyncIterator[bytes]) -> None:
        before = asyncio.Event()
        before.set()
        try:
            async for raw in raws:
                await self._places.acquire()
                done = asyncio.Event()
                # One after the other, also in threads: requests of a sequence must not overtake each other.
                message, request = self._decoded(raw) if is_small(raw) else await asyncio.to_thread(self._decoded, raw)
                decoupled = self._plane.decoupled(message.model_name)
                task = asyncio.create_task(self._serve(message, request, before, done, decoupled=decoupled))
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

    def _decoded(self, raw: bytes) -> tuple[pb.ModelInferRequest, InferRequest | Exception]:
        """A message and its request, or why it has none, which concerns that request alone."""
        message, contents = self._requests.parse(raw)
        try:
            request = self._requests.convert(message, contents)
            return message, request if self._use == request.use else replace(request, use=self._use)
        except Exception as error:  # raised where it can be told inside the stream
            return message, error

    async def _serve(
        self,
        message: pb.ModelInferRequest,
        request: InferRequest | Exception,
        before: asyncio.Event,
        done: asyncio.Event,
        *,
        decoupled: bool,
    ) -> None:
        try:
            if isinstance(request, Exception):
                raise request
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
        answer = to_message(response) if answers_small(response) else await asyncio.to_thread(to_message, response)
        answer.parameters[FINAL].bool_param = final
        await self._responses.put(pb.ModelStreamInferResponse(infer_response=answer))

    async def _refuse(self, message: pb.ModelInferRequest, text: str) -> None:
        about = pb.ModelInferResponse(model_name=message.model_name[:256], id=message.id[:4096])
        await self._responses.put(pb.ModelStreamInferResponse(error_message=text, infer_response=about))

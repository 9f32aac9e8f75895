"""PythonEngine: Triton's python backend inside a Ray replica, for models of task ``tensor``; loaded by Ray replicas.

The one invariant: a ``model.py`` written for Triton runs unchanged; whatever it raises is its request's own error.
"""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog

from serving.backends.base import EngineContext
from serving.backends.ray.engines import tensor_python_types as types
from serving.backends.ray.engines.tensor_config import asks_for_gpu, instance_count, parameter
from serving.backends.ray.engines.tensor_python_calls import ModelCalls
from serving.backends.ray.engines.tensor_python_errors import as_error
from serving.backends.ray.engines.tensor_python_instance import Instance, Place
from serving.backends.ray.engines.tensor_python_sink import ResponseQueue
from serving.errors import BadInput, EngineFailed, ReelmeshError, Unsupported
from serving.protocol.oip import InferRequest, InferResponse, Tensor
from serving.repository.model import Model

log = structlog.get_logger()

CLOSE_S: Final = 30.0
"""How long a model may take to finish and finalize; its thread is left behind after that."""

Answer = InferResponse | ReelmeshError


class PythonEngine:
    """As many instances of the model as ``instance_group`` counts, each in its own thread.

    A sequence stays with one instance, so that what the model keeps of it is at hand.

    Attributes:
        config: config.pbtxt as the model's ``auto_complete_config`` completes it.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        folder, name = model.version_folder(), model.name
        if parameter(model.config, "EXECUTION_ENV_PATH"):
            raise Unsupported(
                "a Ray replica runs models in its own Python",
                field=f"{name}/config.pbtxt:parameters.EXECUTION_ENV_PATH",
                fix="leave it out, or let Triton serve the model",
            )
        file = folder / (model.config.default_model_filename or "model.py")
        if not file.is_file():
            raise BadInput(f"unable to find '{file.name}' in version folder '{folder.name}'", field=name)
        self._name, self._version = name, folder.name
        self._calls = ModelCalls(context.ask) if context.ask is not None else None
        kind = "GPU" if asks_for_gpu(model.config) else "CPU"
        device = int(context.device.partition(":")[2] or 0)
        places = (Place(name, folder, file, kind, device, number) for number in itertools.count())
        first = Instance(next(places), self._calls)
        self._instances = [first]
        try:
            self.config = first.complete(model.config)
            others = [Instance(next(places), self._calls) for _ in range(instance_count(self.config) - 1)]
            self._instances += others
            for instance in self._instances:
                instance.start(self.config)
        except BaseException:
            for instance in self._instances:
                instance.close()
            raise

    async def execute(self, requests: Sequence[InferRequest]) -> Sequence[Answer]:
        """Answer a batch; a model that raises fails the whole batch, as in Triton."""
        loop = asyncio.get_running_loop()
        if self._calls is not None:
            self._calls.loop = loop
        answers: list[Answer] = [EngineFailed("was not run")] * len(requests)
        for instance, places in self._placed(requests):
            chosen = [requests[place] for place in places]
            for place, answer in zip(places, await self._batch(instance, chosen), strict=True):
                answers[place] = answer
        return answers

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer one request of a decoupled model."""
        loop = asyncio.get_running_loop()
        if self._calls is not None:
            self._calls.loop = loop
        queue = ResponseQueue(loop)
        working = asyncio.ensure_future(self._decoupled(request, queue))
        try:
            async for response in queue.items():
                yield self._raised(response, request)
        finally:
            queue.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def close(self) -> None:
        """Finalize every instance."""
        closing = [asyncio.create_task(asyncio.to_thread(instance.close)) for instance in self._instances]
        _, late = await asyncio.wait(closing, timeout=CLOSE_S)
        if late:
            log.warning("model_does_not_end", model=self._name, instances=len(late))

    def _placed(self, requests: Sequence[InferRequest]) -> list[tuple[Instance, list[int]]]:
        """Which instance runs which of the requests."""
        if len(self._instances) == 1 or not self.config.HasField("sequence_batching"):
            return [(min(self._instances, key=_pending), list(range(len(requests))))]
        groups: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            sequence = str(request.parameters.get("sequence_id", 0)).encode()
            groups.setdefault(zlib.crc32(sequence) % len(self._instances), []).append(place)
        return [(self._instances[number], places) for number, places in groups.items()]

    async def _batch(self, instance: Instance, requests: Sequence[InferRequest]) -> list[Answer]:
        loop = asyncio.get_running_loop()
        queues = [ResponseQueue(loop) for _ in requests]
        try:
            responses = await instance.execute(requests, queues)
            answers: list[Answer] = []
            for request, response, queue in zip(requests, responses, queues, strict=True):
                found = response if response is not None else await self._sent(queue)
                answers.append(found if isinstance(found, ReelmeshError) else self._answer(found, request))
            return answers
        except EngineFailed as error:
            return [error] * len(requests)
        finally:
            for queue in queues:
                queue.cancel()

    async def _sent(self, queue: ResponseQueue) -> types.InferenceResponse | ReelmeshError:
        """The one response that a model sent instead of giving it back."""
        sent = [response async for response in queue.items()]
        if len(sent) != 1:
            return EngineFailed(f"model '{self._name}' sent {len(sent)} responses, but is not decoupled")
        return sent[0]

    async def _decoupled(self, request: InferRequest, queue: ResponseQueue) -> None:
        instance = self._placed([request])[0][0]
        try:
            (response,) = await instance.execute([request], [queue])
            if response is not None:
                queue.fail(
                    EngineFailed(
                        f"Python model '{self._name}' is using the decoupled mode and the execute function must "
                        "return None."
                    )
                )
        except ReelmeshError as error:
            queue.fail(error)

    def _raised(self, response: types.InferenceResponse, request: InferRequest) -> InferResponse:
        answer = self._answer(response, request)
        if isinstance(answer, ReelmeshError):
            raise answer
        return answer

    def _answer(self, response: types.InferenceResponse, request: InferRequest) -> Answer:
        """What travels: copies, since a model may use its arrays again."""
        error = response.error()
        if error is not None:
            return as_error(error)
        try:
            outputs = tuple(
                Tensor.from_array(tensor.name(), tensor.as_numpy())
                for tensor in response.output_tensors()
                if request.wants(tensor.name())
            )
        except ReelmeshError as problem:
            return EngineFailed(f"model '{self._name}' answered with what cannot travel: {problem}")
        return InferResponse(self._name, self._version, request.id, response.parameter_values(), outputs)


def _pending(instance: Instance) -> int:
    return instance.pending

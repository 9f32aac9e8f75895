"""ModelCalls: requests that a python-backend model makes to other models of its replica; used by tensor_python.

The one invariant: every call is bounded in time, so that models which wait for each other do not wait for ever.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

from serving.backends.ray.engines import tensor_python_types as types
from serving.backends.ray.engines.tensor_python_errors import TritonModelException, as_triton
from serving.errors import DeadlineExceeded, EngineFailed, ReelmeshError, foreign_text
from serving.protocol.oip import InferRequest, InferResponse, Parameter, RequestedOutput, Tensor
from serving.protocol.oip_parameters import check_parameters

Ask = Callable[[InferRequest], AsyncIterator[InferResponse]]

CALL_S: Final = 300.0
"""Longest call of a model to another, where it gives no timeout of its own."""
MOST_RESPONSES: Final = 1024
"""Most responses of a decoupled model that a call takes."""
_MICROSECONDS: Final = 1e6


class ModelCalls:
    """Calls through the replica's own models.

    Args:
        ask: answers a request; any number of responses.

    Attributes:
        loop: where ``ask`` runs; set before the first request reaches a model.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.loop: asyncio.AbstractEventLoop | None = None

    def call(self, request: types.InferenceRequest, *, decoupled: bool) -> Any:  # noqa: ANN401  see Caller
        """Block a model's thread until the answer is there."""
        return asyncio.run_coroutine_threadsafe(self._answer(request, decoupled), self._running()).result()

    async def acall(self, request: types.InferenceRequest, *, decoupled: bool) -> Any:  # noqa: ANN401  see Caller
        """Wait on the loop of a model's own thread."""
        asked: Coroutine[Any, Any, Any] = self._answer(request, decoupled)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, self._running()))

    def _running(self) -> asyncio.AbstractEventLoop:
        if self.loop is None:
            raise TritonModelException("a model can call others only while it executes a request")
        return self.loop

    async def _answer(self, request: types.InferenceRequest, decoupled: bool) -> Any:  # noqa: ANN401  see Caller
        responses = await self._collected(request)
        if decoupled:
            return iter(responses)
        return responses[0] if responses else _failed(EngineFailed(f"{request.model_name()} gave no response"))

    async def _collected(self, request: types.InferenceRequest) -> list[types.InferenceResponse]:
        found: list[types.InferenceResponse] = []
        limit = request.timeout() / _MICROSECONDS or CALL_S
        try:
            async with asyncio.timeout(limit), aclosing(self._ask(outgoing(request))) as responses:  # type: ignore[type-var]
                async for response in responses:
                    if len(found) >= MOST_RESPONSES:
                        raise EngineFailed(f"{request.model_name()} gave more than {MOST_RESPONSES} responses")
                    found.append(_shown(response))
        except TimeoutError:
            found.append(_failed(DeadlineExceeded(f"{request.model_name()} did not answer within {limit:g} s")))
        except ReelmeshError as error:
            found.append(_failed(error))
        except Exception as error:  # whatever went wrong in the other model is this one's answer
            found.append(_failed(EngineFailed(foreign_text(error))))
        return found


def outgoing(request: types.InferenceRequest) -> InferRequest:
    """A model's request as the mesh knows requests.

    Raises:
        BadInput: a tensor or parameter is none.
    """
    text = request.parameters()
    parameters: dict[str, Parameter] = check_parameters(json.loads(text) if text else {}, "parameters")
    if request.correlation_id():
        parameters["sequence_id"] = request.correlation_id()
        parameters["sequence_start"] = bool(request.flags() & types.FLAG_START)
        parameters["sequence_end"] = bool(request.flags() & types.FLAG_END)
    if request.timeout():
        parameters["timeout"] = request.timeout()
    version = request.model_version()
    return InferRequest(
        request.model_name(),
        str(version) if version > 0 else "",
        request.request_id(),
        parameters,
        tuple(Tensor.from_array(tensor.name(), tensor.as_numpy()) for tensor in request.inputs()),
        tuple(RequestedOutput(name) for name in request.requested_output_names()),
    )


def _shown(response: InferResponse) -> types.InferenceResponse:
    tensors = [types.Tensor(tensor.name, types.writable(tensor)) for tensor in response.outputs]
    return types.InferenceResponse(tensors, parameters=response.parameters)


def _failed(error: ReelmeshError) -> types.InferenceResponse:
    return types.InferenceResponse(error=as_triton(error))

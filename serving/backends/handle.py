"""HandleBackend: a Ray Serve deployment (Triton or engines) as a Backend; given to the router by the composition root.

The one invariant: whatever Ray raises leaves here as an error of serving.errors; a cancelled caller cancels the call.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serving.backends.call import Call
from serving.backends.meter import Served
from serving.errors import Cancelled, DeadlineExceeded, EngineFailed, ReelmeshError, Unavailable, foreign_text
from serving.protocol.tasks import TaskRequest, TaskResult


class HandleBackend:
    """Calls ``serve`` of one deployment, or ``serve_told`` for callers that want to know how far it is.

    Args:
        name: the deployment's name, for messages.
        handle: its Serve handle.
        models: the models its replicas were asked to serve.
        tells: whether its replicas tell progress.
    """

    def __init__(
        self, name: str, handle: "DeploymentHandle[Any]", models: Collection[str], *, tells: bool = False
    ) -> None:
        self.name = name
        self._handle = handle
        self._telling = handle.options(stream=True) if tells else None
        self._models = frozenset(models)

    def serves(self, model: str) -> bool:
        """Whether the deployment was asked to serve the model."""
        return model in self._models

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        """Run one request within the call's deadline; who did it and what it cost is left in the call."""
        telling = self._telling if call.on_progress is not None else None
        response: Any = (
            self._handle.serve.remote(model, request, call)
            if telling is None
            else telling.serve_told.remote(model, request, call)
        )
        try:
            async with asyncio.timeout(call.remaining_s()):
                served: Served = await (response if telling is None else _last(response, call))
        except TimeoutError:
            response.cancel()
            raise DeadlineExceeded(f"{model} did not answer before the deadline", field=call.stage or None) from None
        except asyncio.CancelledError:
            response.cancel()
            raise
        except (RayError, RayServeException) as error:
            raise _translated(error, model) from error
        call.replica = served.replica
        call.cpu_s += served.cpu_s
        call.gpu_s += served.gpu_s
        if isinstance(served.result, ReelmeshError):
            raise served.result
        return served.result


async def _last(pieces: AsyncIterator[float | Served], call: Call) -> Served:
    """The answer at the end of a stream, whose other pieces are told to the call."""
    async for piece in pieces:
        if isinstance(piece, Served):
            return piece
        call.tell(piece)
    raise EngineFailed("the replica ended without an answer")


def _translated(error: Exception, model: str) -> ReelmeshError:
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else None
    if isinstance(cause, ReelmeshError):
        return cause
    if isinstance(error, TaskCancelledError):
        return Cancelled(f"the call to {model} was cancelled")
    if isinstance(error, RayActorError | RayServeException) and not isinstance(error, RayTaskError):
        return Unavailable(f"the replica of {model} went away: {foreign_text(error)}")
    return EngineFailed(f"{model} failed: {foreign_text(cause or error)}")

"""Router: which model and backend serve a typed task, in which order, within which deadline; called by job contexts.

The one invariant: a model gets only requests within its limits and its licence, and only errors whose class says
``retryable`` move a request on to the next candidate.
"""

import asyncio
import random
from collections.abc import Sequence

import structlog

from serving import telemetry
from serving.backends.base import Backend
from serving.backends.call import Call
from serving.backends.limits import check_limits, within_limits
from serving.errors import BadInput, NotFound, ReelmeshError, Unavailable
from serving.protocol.licences import COMMERCIAL, Use
from serving.protocol.tasks import TASKS, TaskRequest, TaskResult, adapter_of
from serving.repository.identity import Identity, identity_of
from serving.repository.licences import Licences
from serving.repository.load import Repository
from serving.repository.model import Model
from serving.settings import LicenceSettings

log = structlog.get_logger()

ROUNDS = 3
"""How often the list of candidates is tried before a retryable error is final."""
BACK_OFF_S = 0.5
"""First pause between rounds; doubles each round, with full jitter."""

_TASK_OF_REQUEST = {spec.request: task for task, spec in TASKS.items()}


def task_of(request: TaskRequest) -> str:
    """The task a request belongs to, by its type."""
    return _TASK_OF_REQUEST[type(request)]


def candidates(repository: Repository, task: str, model: str | None) -> list[Model]:
    """Models to try, in order: the named model (or the task's default), then its fallbacks.

    Raises:
        NotFound: no such model, or none for the task.
        BadInput: the model does another task.
    """
    if model is not None:
        first = repository.get(model)
        if first.card.task != task:
            raise BadInput(f"{model!r} does {first.card.task}, not {task}", field="model")
    else:
        found = repository.for_task(task)
        if not found:
            raise NotFound(f"no model serves the task {task!r}", fix="add one to the model repository")
        first = found[0]
    return [first, *(repository.get(name) for name in first.card.fallback)]


class Router:
    """Sends typed requests to backends.

    Args:
        repository: the checked models.
        backends: tried in order; the first that serves a model gets its requests.
        licences: conditions that the operator accepts.
    """

    def __init__(
        self, repository: Repository, backends: Sequence[Backend], licences: LicenceSettings | None = None
    ) -> None:
        self._repository = repository
        self._backends = list(backends)
        self._licences = Licences(repository.models, licences or LicenceSettings())

    def identity(self, request: TaskRequest, *, model: str | None = None, use: Use = COMMERCIAL) -> Identity:
        """The first candidate for a request: what its result depends on besides the request.

        Raises:
            NotFound: no such model, or none for the task.
            BadInput: the model does another task.
            LicenceForbids: its licence does not allow the use; so no result of it is found in a cache either.
        """
        adapter = adapter_of(request)
        return identity_of(self._allowed(task_of(request), model, use, adapter)[0], adapter)

    def permit(self, task: str, use: Use, *, model: str | None = None) -> None:
        """Raise :class:`LicenceForbids` where the first candidate's licence does not allow the use.

        A task that no model does at the moment is let pass: whether one does is known when it is asked.
        """
        if model is not None or self._repository.for_task(task):
            self._allowed(task, model, use)

    def _allowed(self, task: str, model: str | None, use: Use, adapter: str | None = None) -> list[Model]:
        """The candidates; a fallback whose licence forbids the use is left out, the first model refuses it."""
        first, *others = candidates(self._repository, task, model)
        self._licences.check(first, use, adapter)
        return [first, *(each for each in others if self._licences.refusal(each, use, adapter) is None)]

    async def run(self, request: TaskRequest, call: Call, *, model: str | None = None) -> TaskResult:
        """Run one request to its result.

        Raises:
            BadInput: it is over the first model's limits; fallbacks with narrower ones are left out.
            LicenceForbids: the first model's licence does not allow the call's use; such fallbacks are left out.
            ReelmeshError: the last candidate's error, or :class:`DeadlineExceeded` once the deadline has passed.
        """
        models = self._allowed(task_of(request), model, call.use, adapter_of(request))
        check_limits(models[0].card, request)
        models = [models[0], *(each for each in models[1:] if within_limits(each.card, request))]
        last: ReelmeshError = Unavailable("no replica took the request")
        for turn in range(ROUNDS):
            for candidate in models:
                call.checkpoint()
                try:
                    backend = self._backend(candidate.name)
                    call.tries += 1
                    result = await backend.run(candidate.name, request, call)
                    if candidate is not models[0]:
                        telemetry.FALLBACKS.labels(candidate.card.task, models[0].name, candidate.name).inc()
                    call.served_by = f"{candidate.card.backend}/{candidate.name}"
                    return result
                except ReelmeshError as error:
                    if not error.retryable:
                        raise
                    last = error
                    log.warning("call_failed", model=candidate.name, error=str(error), round=turn + 1)
            if turn + 1 < ROUNDS:
                await asyncio.sleep(BACK_OFF_S * 2**turn * random.random())
        raise last

    def _backend(self, model: str) -> Backend:
        for backend in self._backends:
            if backend.serves(model):
                return backend
        raise Unavailable(f"no backend serves {model!r}", fix="`reelmesh doctor` shows what is missing")

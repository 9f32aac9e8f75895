"""Router: which model and backend serve a typed task, in which order, within which deadline; called by job contexts.

The one invariant: a request is checked against the model's limits before it leaves, and only errors whose class says
``retryable`` move it on to the next candidate.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence

import structlog
from pydantic import BaseModel

from serving.backends.base import Backend
from serving.backends.call import Call
from serving.errors import BadInput, NotFound, ReelmeshError, Unavailable
from serving.protocol.tasks import TASKS, TaskRequest, TaskResult
from serving.repository.model import ModelCard

log = structlog.get_logger()

ROUNDS = 3
"""How often the list of candidates is tried before a retryable error is final."""
BACK_OFF_S = 0.5
"""First pause between rounds; doubles each round, with full jitter."""

_TASK_OF_REQUEST = {spec.request: task for task, spec in TASKS.items()}


def task_of(request: TaskRequest) -> str:
    """The task a request belongs to, by its type."""
    return _TASK_OF_REQUEST[type(request)]


def check_limits(card: ModelCard, request: BaseModel) -> None:
    """Compare number and length fields with the card's ``limits``.

    Raises:
        BadInput: naming the field, its value and the bound.
    """
    for field, bound in card.limits.items():
        value = getattr(request, field, None)
        size = len(value) if isinstance(value, str | list) else value
        if isinstance(size, int | float) and size > bound:
            unit = " characters" if isinstance(value, str) else " items" if isinstance(value, list) else ""
            raise BadInput(f"{size:g}{unit} is over the model's bound", field=field, fix=f"use at most {bound:g}")


def candidates(cards: Mapping[str, ModelCard], task: str, model: str | None) -> list[str]:
    """Models to try, in order: the named model and its fallbacks, or every model of the task in repository order.

    Raises:
        NotFound: no such model, or none for the task.
        BadInput: the model does another task.
    """
    if model is None:
        found = [name for name, card in cards.items() if card.task == task]
        if not found:
            raise NotFound(f"no model serves the task {task!r}", fix="add one to the model repository")
        first = found[0]
        return [first, *[name for name in cards[first].fallback if name in cards]]
    names = {alias: name for name, card in cards.items() for alias in (name, *card.aliases)}
    if model not in names:
        raise NotFound(f"no model is called {model!r}", fix="`reelmesh models list` shows the models")
    card = cards[names[model]]
    if card.task != task:
        raise BadInput(f"model {model!r} does {card.task}, not {task}", field="model")
    return [names[model], *[name for name in card.fallback if name in cards]]


class Router:
    """Sends typed requests to backends.

    Args:
        cards: every model's card by name, default models of a task first.
        backends: tried in order; the first that serves a model gets its requests.
    """

    def __init__(self, cards: Mapping[str, ModelCard], backends: Sequence[Backend]) -> None:
        self._cards = dict(cards)
        self._backends = list(backends)

    async def run(self, request: TaskRequest, call: Call, *, model: str | None = None) -> TaskResult:
        """Run one request to its result.

        Raises:
            ReelmeshError: the last candidate's error, or :class:`DeadlineExceeded` once the deadline has passed.
        """
        names = candidates(self._cards, task_of(request), model)
        last: ReelmeshError = Unavailable("no replica took the request")
        for turn in range(ROUNDS):
            for name in names:
                call.checkpoint()
                check_limits(self._cards[name], request)
                try:
                    return await self._backend(name).run(name, request, call)
                except ReelmeshError as error:
                    if not error.retryable:
                        raise
                    last = error
                    log.warning("call_failed", model=name, error=str(error), round=turn + 1)
            if turn + 1 < ROUNDS:
                await asyncio.sleep(BACK_OFF_S * 2**turn * random.random())  # noqa: S311  jitter, not a secret
        raise last

    def _backend(self, model: str) -> Backend:
        for backend in self._backends:
            if backend.serves(model):
                return backend
        raise Unavailable(f"no backend serves {model!r}", fix="`reelmesh doctor` shows what is missing")

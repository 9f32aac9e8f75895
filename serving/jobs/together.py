"""Together: what many callers ask of the database at the same moment goes into one transaction; used by the store.

The one invariant: while one transaction runs, whatever arrives waits for the next, so a lone caller waits for nobody, a
crowd costs one commit, and each caller still gets an answer or an error of their own.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import sqlalchemy as sa

from serving.jobs.database import Database

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST: Final = 64
"""Items in one transaction: enough to hide the commit, few enough that nobody waits long for the others."""
_AWAY: Final = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
"""Errors of the connection, which no item is to blame for."""


class Together(Generic[Item, Answer]):
    """One kind of work on the database.

    Args:
        database: opened.
        work: answers some items inside a transaction, one answer or error for each, in their order. What it raises
            rolls back; then each item is tried alone, lest one spoils the others.
        most: items at a time.
    """

    def __init__(
        self,
        database: Database,
        work: Callable[[sa.Connection, Sequence[Item]], Sequence[Answer | Exception]],
        *,
        most: int = MOST,
    ) -> None:
        self._database = database
        self._work = work
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Answer:
        """The answer to one item, or its error raised."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="together")
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            wanted = [(item, answer) for item, answer in taken if not answer.done()]
            try:
                found = await self._answers([item for item, _ in wanted])
            except BaseException:  # the loop is closing
                for _, answer in wanted:
                    answer.cancel()
                raise
            for (_, answer), told in zip(wanted, found, strict=True):
                _tell(answer, told)

    async def _answers(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        if not items:
            return []
        try:
            return await self._database.run(lambda connection: self._work(connection, items))
        except Exception as error:
            if len(items) == 1 or isinstance(error, _AWAY):
                return [error] * len(items)
        return [(await self._answers([item]))[0] for item in items]


def _tell(answer: "asyncio.Future[Answer]", told: Answer | Exception) -> None:
    if answer.done():  # the caller went away meanwhile
        return
    if isinstance(told, Exception):
        answer.set_exception(told)
    else:
        answer.set_result(told)

import asyncio
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.together import Together
from tests.serving.jobs.office import Office


class Work:
    """Doubles numbers and notes which came together; what it is told to spoil, spoils the whole transaction."""

    def __init__(self, database: Database, spoil: Sequence[int] = (), error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self._spoil = spoil
        self._error = error or ValueError("spoilt")
        self.together = Together(database, self._work, most=4)

    def _work(self, connection: sa.Connection, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        connection.execute(sa.text("SELECT 1"))
        if any(item in self._spoil for item in items):
            raise self._error
        return [KeyError(item) if item < 0 else 2 * item for item in items]


async def test_a_lone_caller_waits_for_nobody(office: Office) -> None:
    work = Work(office.database)
    assert [await work.together.ask(item) for item in (1, 2)] == [2, 4]
    assert work.batches == [[1], [2]]


async def test_callers_of_one_moment_share_transactions_in_their_order_up_to_the_bound(office: Office) -> None:
    work = Work(office.database)
    assert await asyncio.gather(*(work.together.ask(item) for item in range(10))) == [2 * item for item in range(10)]
    assert work.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_an_error_is_told_to_its_own_caller_alone(office: Office) -> None:
    work = Work(office.database)
    told = await asyncio.gather(*(work.together.ask(item) for item in (1, -2, 3)), return_exceptions=True)
    assert [told[0], told[2]] == [2, 6]
    assert isinstance(told[1], KeyError)


async def test_one_that_spoils_the_transaction_spoils_it_for_nobody_else(office: Office) -> None:
    work = Work(office.database, spoil=[2])
    told = await asyncio.gather(*(work.together.ask(item) for item in (1, 2, 3)), return_exceptions=True)
    assert [told[0], told[2]] == [2, 6]
    assert isinstance(told[1], ValueError)
    assert work.batches == [[1, 2, 3], [1], [2], [3]]


async def test_a_database_that_is_away_is_not_asked_once_for_each(office: Office) -> None:
    away = sa.exc.OperationalError("SELECT 1", {}, ConnectionError("gone"))
    work = Work(office.database, spoil=[2], error=away)
    told = await asyncio.gather(*(work.together.ask(item) for item in (1, 2, 3)), return_exceptions=True)
    assert told == [away] * 3
    assert work.batches == [[1, 2, 3]]


async def test_who_goes_away_takes_nobody_along(office: Office) -> None:
    work = Work(office.database)
    callers = [asyncio.create_task(work.together.ask(item)) for item in (1, 2)]
    await asyncio.sleep(0)
    callers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await callers[0]
    assert await callers[1] == 4
    assert await work.together.ask(3) == 6

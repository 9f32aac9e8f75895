"""What is asked again and again is found by an index: SQLite's plans of the statements, on a fresh database."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from serving.jobs.expiry import expire, read_stakes
from serving.jobs.stage_times import measure
from serving.jobs.store import JobStore
from serving.jobs.tables import jobs
from serving.jobs.types import JobState
from tests.serving.jobs.office import Office

SORT = "TEMP B-TREE"


async def plans_of(office: Office, work: Callable[[], Awaitable[object]]) -> list[str]:
    """Every step of the plan of every statement on jobs that the work sends."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not many and "FROM jobs" in statement:
            sent.append((statement, parameters))

    sa.event.listen(office.database.engine, "before_cursor_execute", note)
    await work()
    sa.event.remove(office.database.engine, "before_cursor_execute", note)
    steps: list[str] = []

    def explain(connection: sa.Connection) -> None:
        for statement, parameters in sent:
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps.extend(str(row[-1]) for row in found)

    await office.database.run(explain)
    assert steps
    return steps


async def test_what_every_read_and_every_submission_asks_sorts_nothing(office: Office) -> None:
    first = await office.submit()
    done = (
        sa.update(jobs).where(jobs.c.id == first.id).values(state=JobState.COMPLETED, started_at=1.0, finished_at=2.0)
    )
    await office.database.run(lambda connection: connection.execute(done))

    async def ask() -> None:
        store = JobStore(office.database, queued_jobs=20)
        await store.get((await office.submit(key="k")).id)
        await store.page(states=[JobState.QUEUED])
        await office.database.run(measure)

    steps = await plans_of(office, ask)
    assert [step for step in steps if SORT in step] == []


@pytest.mark.parametrize("what", ["retention", "dead letters"])
async def test_a_jobs_children_are_found_by_index(office: Office, what: str) -> None:
    async def keep_house() -> None:
        await expire(office.database, [(await office.submit()).id])
        await read_stakes(office.database)

    work: Callable[[], Awaitable[object]] = (
        keep_house if what == "retention" else lambda: office.store.page(dead=True, limit=2)
    )
    steps = [step for step in await plans_of(office, work) if "children" in step]
    assert steps
    assert [step for step in steps if "jobs_by_parent" not in step] == []
    assert [step for step in steps if step.startswith("SCAN")] == []

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
import sqlalchemy as sa

from serving.errors import TooMany, Unprocessable
from serving.jobs.acceptance import Acceptance, NewJob
from serving.jobs.database import Database
from serving.jobs.records import JobRecord
from serving.jobs.store import JobStore
from serving.jobs.tables import deliveries, jobs
from serving.jobs.types import JobState, Lane
from tests.serving.jobs.office import Office

NEW = NewJob(
    type="film",
    input={"title": "A film"},
    lane=Lane.MEDIUM,
    timeout_s=60.0,
    tries=1,
    stages=["shoot", "cut"],
    request_sha256="a" * 64,
)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, office: Office):
    """Fresh, with its tables made."""
    if request.param == "sqlite":
        yield office.database
        return
    opened = Database(request.getfixturevalue("postgres_database"))
    await opened.create()
    yield opened
    await opened.close()


async def accepted(acceptance: Acceptance, *news: NewJob) -> list[tuple[JobRecord, bool] | BaseException]:
    """What each is told, all handed in at the same moment."""
    return await asyncio.gather(*(acceptance.accept(new) for new in news), return_exceptions=True)


async def test_what_is_told_of_a_new_job_is_what_the_database_has(database: Database) -> None:
    full = replace(
        NEW, idempotency_key="t:k", tenant="t", deadline_at=5.0, stop_at="cut", use_cache=False, message_id="m",
        webhook={"url": "https://studio.example/", "events": []}, source="redis:films", edits={"shoot": {}},
        use="non_commercial",
    )  # fmt: skip
    told = await accepted(Acceptance(database, queued_jobs=10), NEW, full)
    store = JobStore(database, queued_jobs=10)
    for answer in told:
        assert isinstance(answer, tuple)
        record, created = answer
        read = (await store.get(record.id)).model_copy(update={"queue_position": None, "estimated_wait_s": None})
        assert (read, created) == (record, True)
        assert [event.state for event in await store.events(record.id)] == [JobState.SUBMITTED, JobState.QUEUED]


async def test_webhooks_hear_that_their_jobs_wait(database: Database) -> None:
    hooks = [[], ["job.queued"], ["job.completed"]]
    news = [replace(NEW, webhook={"url": "https://studio.example/", "events": list(events)}) for events in hooks]
    await accepted(Acceptance(database, queued_jobs=10), NEW, *news)
    found = await database.run(lambda connection: connection.scalars(sa.select(deliveries.c.event)).all())
    assert list(found) == ["job.queued", "job.queued"]


async def test_the_bound_holds_exactly_however_many_come_at_once_by_several_gateways(database: Database) -> None:
    gateways = [Acceptance(database, queued_jobs=25) for _ in range(3)]
    told = await asyncio.gather(*(accepted(gateway, *[NEW] * 20) for gateway in gateways))
    kinds = Counter(type(answer) for answers in told for answer in answers)
    assert kinds == {tuple: 25, TooMany: 35}


async def test_one_key_is_one_job_however_many_come_at_once_by_several_gateways(database: Database) -> None:
    gateways = [Acceptance(database, queued_jobs=100) for _ in range(3)]
    keyed, other = replace(NEW, idempotency_key="t:k"), replace(NEW, idempotency_key="t:k", request_sha256="b" * 64)
    told = [
        answer
        for answers in await asyncio.gather(*(accepted(gateway, *[keyed] * 10, NEW) for gateway in gateways))
        for answer in answers
    ]
    made = [answer for answer in told if isinstance(answer, tuple)]
    assert len(made) == 33
    assert sum(created for _, created in made) == 4, "the key's job, and one without a key at each gateway"
    [refused] = await accepted(gateways[0], other)
    assert isinstance(refused, Unprocessable)
    assert refused.field == "Idempotency-Key"


async def test_one_message_is_one_job_and_sources_do_not_mix(database: Database) -> None:
    first = replace(NEW, source="redis:films", message_id="7")
    told = await accepted(Acceptance(database, queued_jobs=100), first, replace(first, source="redis:songs"), first)
    ids = [answer[0].id for answer in told if isinstance(answer, tuple)]
    assert ids[0] == ids[2] != ids[1]


async def test_a_full_line_still_answers_who_has_a_job_in_it(database: Database) -> None:
    acceptance, keyed = Acceptance(database, queued_jobs=1), replace(NEW, idempotency_key="t:k")
    [first] = await accepted(acceptance, keyed)
    again, refused = await accepted(acceptance, keyed, NEW)
    assert isinstance(first, tuple)
    assert isinstance(again, tuple)
    assert (again[0].id, again[1]) == (first[0].id, False)
    assert isinstance(refused, TooMany)


async def test_a_job_that_no_table_can_hold_spoils_no_other(database: Database) -> None:
    wrong = replace(NEW, timeout_s=object())  # type: ignore[arg-type]
    told = await accepted(Acceptance(database, queued_jobs=10), NEW, wrong, NEW)
    assert isinstance(told[1], sa.exc.SQLAlchemyError | TypeError)
    count = await database.run(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(jobs)))
    assert (isinstance(told[0], tuple), isinstance(told[2], tuple), count) == (True, True, 2)


async def test_jobs_that_come_together_keep_their_order(database: Database) -> None:
    news = [replace(NEW, input={"title": f"{index}"}) for index in range(40)]
    told = await accepted(Acceptance(database, queued_jobs=100), *news)
    records = [answer[0] for answer in told if isinstance(answer, tuple)]
    assert [record.title for record in sorted(records, key=lambda each: each.id)] == [f"{index}" for index in range(40)]

import asyncio

import pytest

from serving.jobs.database import Database
from serving.jobs.intake.base import Delivery
from serving.jobs.intake.replies import MAX_TRIES, HeldReplies, StoredReplies
from tests.serving.jobs.office import Office

MESSAGE = Delivery("1", b"", reply={"to": "answers"})


def replies(database: Database, source: str = "redis:films") -> StoredReplies:
    return StoredReplies(database, source)


async def test_an_answer_is_due_while_its_job_has_news_and_until_it_is_paid(office: Office) -> None:
    job, kept = await office.submit(), replies(office.database)
    await kept.owe(job.id, MESSAGE)
    await kept.owe(job.id, MESSAGE)
    [owed] = await kept.due()
    assert (owed.job_id, owed.address, owed.told) == (job.id, {"to": "answers"}, 0)
    await kept.told(owed, job.last_event)
    assert await kept.due() == []
    await office.store.cancel(job.id)
    [owed] = await kept.due()
    await kept.paid(owed)
    assert await kept.due() == []


async def test_a_message_delivered_many_times_at_once_is_owed_one_answer(office: Office) -> None:
    job, kept = await office.submit(), replies(office.database)
    await asyncio.gather(*(kept.owe(job.id, MESSAGE) for _ in range(20)))
    assert len(await kept.due()) == 1


async def test_an_answer_is_due_in_one_process_at_a_time_and_of_its_own_source(office: Office) -> None:
    job, kept = await office.submit(), replies(office.database)
    await kept.owe(job.id, MESSAGE)
    assert await replies(office.database, "celery:films").due() == []
    assert len(await kept.due()) == 1
    assert await replies(office.database).due() == []


async def test_an_answer_that_no_broker_takes_is_put_off_and_at_last_dropped(office: Office) -> None:
    job, kept = await office.submit(), replies(office.database)
    await kept.owe(job.id, MESSAGE)
    [owed] = await kept.due()
    assert await kept.put_off(owed)
    assert await kept.due() == []
    assert not await kept.put_off(type(owed)(owed.job_id, owed.address, owed.told, tries=MAX_TRIES - 1))


async def test_nobody_waits_for_a_message_without_a_reply(office: Office) -> None:
    job, kept = await office.submit(), replies(office.database)
    await kept.owe(job.id, Delivery("1", b""))
    assert await kept.due() == []


async def test_a_held_message_is_due_with_its_delivery_and_forgotten_at_the_end(office: Office) -> None:
    job, kept = await office.submit(), HeldReplies(office.store)
    await kept.owe(job.id, MESSAGE)
    [owed] = await kept.due()
    assert owed.delivery is MESSAGE
    await kept.told(owed, job.last_event)
    assert await kept.due() == []
    await office.store.cancel(job.id)
    [owed] = await kept.due()
    await kept.paid(owed)
    assert kept.clear() == []


@pytest.mark.parametrize("tries", [5])
async def test_a_held_message_that_cannot_be_told_is_let_go(office: Office, tries: int) -> None:
    job, kept = await office.submit(), HeldReplies(office.store)
    await kept.owe(job.id, MESSAGE)
    kept_on = []
    for _ in range(tries):
        [owed] = await kept.due()
        kept_on.append(await kept.put_off(owed))
    assert kept_on == [True] * (tries - 1) + [False]
    assert await kept.due() == []

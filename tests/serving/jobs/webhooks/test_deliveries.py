"""The rows of deliveries: when they are written, and what people see of them."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.errors import Conflict, NotFound
from serving.jobs.tables import change_job, deliveries, jobs
from serving.jobs.types import JobState
from serving.jobs.webhooks.policy import DeliveryState, Verdict
from tests.serving.jobs.office import open_office
from tests.serving.jobs.webhooks.conftest import Post

URL = "http://127.0.0.1:1/"


async def test_a_delivery_is_written_with_its_event_or_not_at_all(post: Post) -> None:
    job = await post.job(URL)

    def fail(connection: sa.Connection) -> None:
        change_job(connection, job.id, kind="state", among=[JobState.QUEUED], values={"state": JobState.PROCESSING})
        assert connection.scalar(sa.select(sa.func.count()).select_from(deliveries)) == 1
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await post.office.database.run(fail)
    assert (await post.deliveries.page(job_id=job.id))[0] == []
    assert (await post.office.store.get(job.id)).state == "queued"


async def test_progress_and_requests_to_cancel_are_no_news(post: Post) -> None:
    job = await post.job(URL)

    def work(connection: sa.Connection) -> None:
        for kind, values in (("progress", {"progress": 0.5}), ("state", {"cancel_requested": True})):
            assert change_job(connection, job.id, kind=kind, among=[JobState.QUEUED], values=values)

    await post.office.database.run(work)
    assert (await post.deliveries.page(job_id=job.id))[0] == []


async def test_gateways_that_claim_at_once_claim_different_deliveries(post: Post) -> None:
    found = [await post.job(URL) for _ in range(10)]
    await asyncio.gather(*(post.office.store.cancel(job.id) for job in found))
    batches = await asyncio.gather(*(post.deliveries.claim(lease_s=9, limit=4) for _ in range(4)))
    ids = [claimed.id for batch in batches for claimed in batch]
    assert len(ids) == len(set(ids)) == 10
    assert max(len(batch) for batch in batches) <= 4


async def test_what_is_due_beyond_a_hosts_bound_stays_as_it_is(post: Post) -> None:
    slow = [await post.job("http://slow.example/x") for _ in range(5)]
    for job in slow:
        await post.office.store.cancel(job.id)
    await post.office.store.cancel((other := await post.job("http://Other.example:8080/x")).id)
    first = await post.deliveries.claim(lease_s=9, limit=3, busy={"slow.example": 1}, per_host=2)
    assert [(each.host, each.job_id) for each in first] == [("slow.example", slow[0].id)]
    [second] = await post.deliveries.claim(lease_s=9, limit=3, busy={"slow.example": 2}, per_host=2)
    assert (second.host, second.job_id) == ("other.example", other.id)
    assert await post.deliveries.claim(lease_s=9, limit=3, busy={"slow.example": 2}, per_host=2) == []
    rest = await post.deliveries.claim(lease_s=9, limit=9)
    assert [each.tries for each in rest] == [1, 1, 1, 1], "those left alone had no try"


async def move(post: Post, job_id: str, state: JobState) -> None:
    def work(connection: sa.Connection) -> bool:
        return change_job(connection, job_id, kind="state", among=list(JobState), values={"state": state})

    await post.office.database.run(work)


async def test_gone_reaches_what_waits_and_what_comes(post: Post) -> None:
    job = await post.job(URL)

    for state in (JobState.PROCESSING, JobState.RENDERING):
        await move(post, job.id, state)
    first, _ = await post.deliveries.claim(lease_s=9, limit=2)
    assert await post.deliveries.settle(first, Verdict(DeliveryState.GONE), "answered 410")
    assert {found.state for found in (await post.deliveries.page(job_id=job.id))[0]} == {"gone"}
    await move(post, job.id, JobState.FAILED)
    assert len((await post.deliveries.page(job_id=job.id))[0]) == 2


async def test_deliveries_are_paged_and_resent_once_they_have_ended(post: Post) -> None:
    for _ in range(5):
        job = await post.job(URL)
        await post.office.store.cancel(job.id)
    first, cursor = await post.deliveries.page(limit=3)
    rest, end = await post.deliveries.page(limit=3, cursor=cursor)
    assert (len(first), len(rest), end) == (3, 2, None)
    assert len({found.id for found in first + rest}) == 5
    assert (await post.deliveries.page(states=[DeliveryState.DEAD]))[0] == []
    with pytest.raises(Conflict, match="waits"):
        await post.deliveries.resend(first[0].id)
    with pytest.raises(NotFound):
        await post.deliveries.resend("msg_none_1")


async def test_deliveries_go_with_their_job(post: Post) -> None:
    job = await post.job(URL)
    await post.office.store.cancel(job.id)
    await post.office.database.run(lambda connection: connection.execute(sa.delete(jobs).where(jobs.c.id == job.id)))
    assert (await post.deliveries.page())[0] == []


async def test_a_fork_tells_the_webhook_of_its_parent(post: Post) -> None:
    job = await post.job(URL, "job.completed")
    await post.office.store.cancel(job.id)
    fork = await post.office.desk.retry(job.id, from_stage="clips")
    assert await post.deliveries.webhook_of(fork.id) == {"url": URL, "events": ["job.completed"]}


async def test_postgresql_hands_every_delivery_to_one_gateway(
    postgres_database: str, tmp_path: Path, secrets_file: Path
) -> None:
    async with open_office(tmp_path / "home", jobs_database_url=postgres_database) as office:
        post = Post(office, secrets_file)
        for _ in range(6):
            await office.store.cancel((await post.job(URL)).id)
        batches = await asyncio.gather(*(post.deliveries.claim(lease_s=9, limit=4) for _ in range(3)))
        claimed = [each for batch in batches for each in batch]
        ids = {each.id for each in claimed} | {each.id for each in await post.deliveries.claim(lease_s=9, limit=9)}
        assert len(claimed) <= len(ids) == 6
        assert await post.deliveries.settle(claimed[0], Verdict(DeliveryState.GONE), "answered 410")
        assert not await post.deliveries.settle(claimed[0], Verdict(DeliveryState.SENT), None)
        assert len((await post.deliveries.page(states=[DeliveryState.GONE], limit=3))[0]) == 1

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError

from serving.errors import BadInput
from serving.jobs.intake.base import Delivery
from serving.jobs.intake.celery_queue import CeleryQueue
from serving.jobs.records import JobError
from serving.jobs.types import Lane
from tests.servers.process import own_folder
from tests.servers.wire import wire_to
from tests.serving.jobs.intake.celery_studio import Studio, studio, worker
from tests.serving.jobs.intake.site import finish, intake_settings, job_of, running, titles, until, work
from tests.serving.jobs.office import Office


@pytest.fixture(params=["redis", "rabbitmq"])
def line(request: pytest.FixtureRequest) -> Iterator[Studio]:
    url = request.getfixturevalue(f"{request.param}_url")
    with studio(url, url if request.param == "redis" else "rpc://") as opened:
        yield opened


@pytest.fixture
def redis_line(redis_url: str) -> Iterator[Studio]:
    with studio(redis_url, redis_url) as opened:
        yield opened


async def ready(office: Office, title: str) -> str:
    return await until(lambda: job_of(office, title)) or ""


async def test_a_client_sees_progress_and_then_the_answer(office: Office, line: Studio) -> None:
    result = await line.send("mine")
    async with running(office, line.settings, CeleryQueue(line.settings)):
        job = await ready(office, "mine")
        await work(office, job, 0.5)

        async def halfway() -> bool:
            state, info = await line.state(result)
            return state == "PROGRESS" and info["progress"] == 0.5

        await until(halfway)
        await finish(office, job)
        answer = await line.get(result)
    assert (answer["job_id"], answer["state"]) == (job, "completed")
    assert answer["output"]["facts"] == {"clips": 1}


async def test_a_job_that_fails_raises_at_the_client_and_a_cancelled_one_is_revoked(
    office: Office, line: Studio
) -> None:
    failing, cancelled = await line.send("bad"), await line.send("unwanted")
    async with running(office, line.settings, CeleryQueue(line.settings)):
        error = JobError(code="engine_failed", message="no strings", stage="score")
        await finish(office, await ready(office, "bad"), error)
        await office.store.cancel(await ready(office, "unwanted"))
        with pytest.raises(RuntimeError, match="score: no strings"):
            await line.get(failing)
        with pytest.raises(TaskRevokedError, match="cancelled"):
            await line.get(cancelled)


class DiesBeforeAck(CeleryQueue):
    """A consumer that loses its connections after the row is written and before it acknowledges."""

    deaths = acks = 0

    async def ack(self, delivery: Delivery) -> None:
        if self.deaths < 2:
            self.deaths += 1
            await self.close()
        await super().ack(delivery)
        self.acks += 1


async def test_a_task_that_is_delivered_again_or_sent_twice_is_one_job(office: Office, line: Studio) -> None:
    result = await line.send("once", task_id="order-7")
    await line.send("once", task_id="order-7")
    settings = line.settings.model_copy(update={"prefetch": 1})
    source = DiesBeforeAck(settings)
    async with running(office, settings, source):
        await until(lambda: _settled(source))
        await finish(office, await ready(office, "once"))
        assert (await line.get(result))["state"] == "completed"
    assert await titles(office) == ["once"]


async def _settled(source: DiesBeforeAck) -> bool:
    return source.acks == 2


MALFORMED = {
    "another_task": ({"name": "studio.opera"}, "no job type 'opera'"),
    "a_wrong_field": ({"kwargs": {"title": "x", "clips": -1}}, "input.clips"),
    "many_arguments": ({"args": ("x", 1), "kwargs": {}}, "as keyword arguments"),
    "too_large": ({"kwargs": {"title": "x" * 20_000}}, "more than 10000"),
    "pickled": ({"serializer": "pickle"}, "only JSON is read"),
    "packed_by_a_stranger": ({"headers": {"compression": "application/zstd"}}, "packed by"),
}


async def test_what_is_no_job_fails_at_the_client_and_lies_in_the_dead_letter_queue(
    office: Office, line: Studio
) -> None:
    results = [await line.send("bad", **{"name": "film"} | options) for options, _ in MALFORMED.values()]
    dead: list[Any] = []

    async def all_dead() -> bool:
        dead.extend(await line.take(f"{line.settings.queue}.dead"))
        return len(dead) == len(MALFORMED)

    async with running(office, line.settings, CeleryQueue(line.settings)):
        for result, (_, reason) in zip(results, MALFORMED.values(), strict=True):
            with pytest.raises(ValueError, match=reason):
                await line.get(result)
        await until(all_dead)
    reasons = {message.headers["id"]: message.headers["x-reelmesh-reason"] for message in dead}
    assert all(want in reasons[result.id] for result, (_, want) in zip(results, MALFORMED.values(), strict=True))
    assert await titles(office) == []


async def test_a_message_that_is_packed_in_celerys_own_way_is_read(office: Office, line: Studio) -> None:
    for method in ("gzip", "bzip2", "lzma"):
        await line.send(method, compression=method)
    async with running(office, line.settings, CeleryQueue(line.settings)):
        await until(lambda: _all(office, {"gzip", "bzip2", "lzma"}))


async def _all(office: Office, wanted: set[str]) -> bool:
    return set(await titles(office)) == wanted


async def test_tasks_wait_for_their_time_and_others_pass_them_until_they_expire(office: Office, line: Studio) -> None:
    late = await line.send("late", countdown=0.6, expires=0.3)
    for number in range(3):
        await line.send(f"later {number}", countdown=1.2)
    await line.send("now")
    settings = line.settings.model_copy(update={"prefetch": 1})
    async with running(office, settings, CeleryQueue(settings)):
        await until(lambda: _all(office, {"now"}))
        with pytest.raises(TaskRevokedError, match="expired"):
            await line.get(late)
        assert await titles(office) == ["now"]
        await until(lambda: _all(office, {"now", "later 0", "later 1", "later 2"}))


async def test_priorities_choose_the_lane(office: Office, line: Studio) -> None:
    reversed_ = line.settings.url.startswith("redis")
    lanes = (
        {0: Lane.MEDIUM, 3: Lane.MEDIUM, 9: Lane.LOW} if reversed_ else {0: Lane.MEDIUM, 3: Lane.LOW, 9: Lane.CRITICAL}
    )
    for priority in lanes:
        await line.send(f"{priority}", priority=priority)
    await line.send("named", args=({"input": {"title": "named"}, "lane": "high"},), kwargs={}, priority=9)
    async with running(office, line.settings, CeleryQueue(line.settings)):
        await until(lambda: _all(office, {"named", *(str(priority) for priority in lanes)}))
    jobs = {job.title: job.lane for job in (await office.store.page()).jobs}
    assert jobs == {"named": Lane.HIGH} | {str(priority): lane for priority, lane in lanes.items()}


async def test_a_result_that_is_not_wanted_is_not_told(office: Office, line: Studio) -> None:
    result = await line.send("quiet", ignore_result=True)
    async with running(office, line.settings, CeleryQueue(line.settings)):
        await finish(office, await ready(office, "quiet"))
        loud = await line.send("loud")
        await finish(office, await ready(office, "loud"))
        await line.get(loud)
        assert await line.state(result.id) == ("PENDING", None)


async def test_another_process_tells_the_result_and_goes_on_with_the_chain(office: Office, line: Studio) -> None:
    last = await line.ask(chain(line.film("one"), line.film("two")).apply_async)
    async with running(office, line.settings, CeleryQueue(line.settings)):
        first = await ready(office, "one")
    await finish(office, first)
    async with running(office, line.settings, CeleryQueue(line.settings)):
        second = await ready(office, "two")
        await finish(office, second)
        assert (await line.get(last))["job_id"] == second
        assert (await line.get(last.parent))["job_id"] == first


async def test_links_errbacks_chains_and_chords_go_on_at_a_celery_worker(office: Office, redis_line: Studio) -> None:
    line, queue = redis_line, f"{redis_line.settings.queue}-notes"
    note = line.app.signature("studio.note", queue=queue)
    linked, errback = note.clone(task_id="linked"), note.clone(task_id="errback")
    await line.send("good", link=linked)
    bad = await line.send("bad", link_error=errback)
    chained = await line.ask((line.film("first") | note.clone()).apply_async)
    together = chord([line.film("left"), line.film("right")], note.clone())
    joined = await line.ask(together.apply_async)
    with own_folder() as folder, worker(line.settings.url, line.settings.url, queue, folder):
        async with running(office, line.settings, CeleryQueue(line.settings)):
            for title in ("good", "first", "left", "right"):
                await finish(office, await ready(office, title))
            await finish(office, await ready(office, "bad"), JobError(code="engine_failed", message="no strings"))
            assert (await line.get("linked"))[0]["job_id"] == await job_of(office, "good")
            assert await line.get("errback") == [bad.id]
            assert (await line.get(chained))[0]["job_id"] == await job_of(office, "first")
            answers = (await line.get(joined))[0]
    assert [answer["job_id"] for answer in answers] == [await job_of(office, "left"), await job_of(office, "right")]


async def test_a_connection_that_is_cut_is_made_anew(office: Office, line: Studio) -> None:
    parts = urlsplit(line.settings.url)
    async with wire_to(parts.port or 0) as wire:
        url = parts._replace(netloc=parts.netloc.replace(str(parts.port), str(wire.port))).geturl()
        through = line.settings.model_copy(update={"url": url})
        async with running(office, through, CeleryQueue(through)):
            for title in ("before", "after"):
                result = await line.send(title)
                await finish(office, await ready(office, title))
                assert (await line.get(result))["state"] == "completed"
                await wire.cut()


async def test_what_waits_is_told_and_what_is_given_back_stays(line: Studio) -> None:
    await line.send("a")
    source = CeleryQueue(line.settings)
    await source.open()
    assert await until(source.waiting) == 1
    delivery = await anext(source.deliveries())
    await source.extend(delivery)
    await source.release(delivery)
    for _ in range(2):
        await source.close()
    await source.open()
    assert (await anext(source.deliveries())).id == delivery.id
    await source.close()


async def test_a_close_ends_every_thread_and_connection(office: Office, line: Studio) -> None:
    def held() -> int:
        port = urlsplit(line.settings.url).port
        return sum(1 for one in psutil.Process().net_connections() if one.raddr and one.raddr.port == port)

    result = await line.send("a")
    before = held()
    async with running(office, line.settings, CeleryQueue(line.settings)):
        await finish(office, await ready(office, "a"))
        await line.get(result)
        assert held() > before
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("celery-results")] == []
    assert held() <= before + 1  # the client began to wait for its result


async def test_results_that_cannot_be_told_keep_no_message_in_the_queue(
    office: Office, redis_line: Studio, free_port: int
) -> None:
    settings = redis_line.settings.model_copy(update={"results_url": f"redis://:secret@127.0.0.1:{free_port}/0"})
    await redis_line.send("bad", name="opera")
    await redis_line.send("good")
    async with running(office, settings, CeleryQueue(settings)):
        await ready(office, "good")
        assert len(await until(lambda: redis_line.take(f"{settings.queue}.dead"))) == 1


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
async def test_a_broker_that_is_not_there_is_told_without_its_password(scheme: str, free_port: int) -> None:
    source = CeleryQueue(intake_settings("celery", f"{scheme}://me:secret@127.0.0.1:{free_port}/0"))
    with pytest.raises(Exception, match=str(free_port)) as caught:
        await source.open()
    assert not isinstance(caught.value, BadInput | asyncio.CancelledError)
    assert "secret" not in f"{caught.value!r} {source!r} {vars(source)!r}"
    await source.close()


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"url": "sqs://key:secret@"}, "intakes.url"), ({"results_url": "cassette://:secret@h"}, "intakes.results_url")],
)
def test_addresses_that_are_of_no_use_are_refused_without_their_password(settings: dict[str, str], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        CeleryQueue(intake_settings("celery", **{"url": "redis://h/0"} | settings))
    assert caught.value.field == field
    assert "secret" not in str(caught.value)

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis

from serving.jobs.intake.redis_stream import RedisStream
from serving.jobs.types import JobState
from serving.settings import IntakeSettings
from tests.servers.redis import redis_server
from tests.serving.jobs.intake.site import film_body, finish, intake_settings, job_of, running, titles, until
from tests.serving.jobs.office import Office


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        yield opened


@pytest.fixture
def settings(redis_url: str) -> IntakeSettings:
    return intake_settings("redis", redis_url)


async def pending(client: redis.Redis, settings: IntakeSettings) -> int:
    return int((await client.xpending(settings.queue, settings.group))["pending"])


async def settled(client: redis.Redis, settings: IntakeSettings) -> bool:
    return await pending(client, settings) == 0


async def test_entries_become_jobs_once_and_their_results_lie_in_the_reply_stream(
    office: Office, client: redis.Redis, settings: IntakeSettings
) -> None:
    await client.xadd(settings.queue, {"body": film_body("early")})
    async with running(office, settings, RedisStream(settings)):
        for _ in range(2):
            await client.xadd(
                settings.queue, {"body": film_body("mine"), "id": "order-7", "reply": f"{settings.queue}.me"}
            )

        async def results() -> list[dict[str, str]] | None:
            mine = [fields for _, fields in await client.xrange(f"{settings.queue}.me")]
            return mine if any(fields["kind"] == "result" for fields in mine) else None

        for title in ("early", "mine"):
            await finish(office, await until(lambda title=title: job_of(office, title)))  # type: ignore[misc]
        answers = await until(results)
        await until(lambda: client.exists(f"{settings.queue}.results"))
    assert {fields["id"] for fields in answers} == {"order-7"}
    result = json.loads(next(fields["body"] for fields in answers if fields["kind"] == "result"))
    assert result["state"] == "completed"
    assert result["output"]["facts"] == {"clips": 1}
    assert sorted(map(str, await titles(office))) == ["early", "mine"]


async def test_malformed_entries_lie_in_the_dead_letter_stream_with_the_reason(
    office: Office, client: redis.Redis, settings: IntakeSettings
) -> None:
    for fields in ({"colour": "red"}, {"body": b"\xff"}, {"body": film_body("x", clips=-1)}):
        await client.xadd(settings.queue, fields)  # type: ignore[arg-type]

    async def three() -> list[str] | None:
        found = await client.execute_command("XRANGE", f"{settings.queue}.dead", "-", "+", NEVER_DECODE=True)
        return [str(entry) for entry in found] if len(found) == 3 else None

    async with running(office, settings, RedisStream(settings)):
        dead = await until(three)
        await until(lambda: settled(client, settings))
    assert "input.clips" in "".join(dead)
    assert await titles(office) == []


async def test_a_dead_consumers_entries_are_taken_over(
    office: Office, client: redis.Redis, settings: IntakeSettings
) -> None:
    await client.xgroup_create(settings.queue, settings.group, id="0", mkstream=True)
    await client.xadd(settings.queue, {"body": film_body("orphan")})
    await client.xreadgroup(settings.group, "somebody-who-died", {settings.queue: ">"})
    async with running(office, settings, RedisStream(settings, idle_s=0.2)):
        await until(lambda: titles(office))
        await until(lambda: settled(client, settings))


async def test_what_is_no_job_yet_is_left_to_others_on_a_stop(
    office: Office, client: redis.Redis, settings: IntakeSettings
) -> None:
    for number in range(45):
        await client.xadd(settings.queue, {"body": film_body(str(number))})

    async def waits() -> bool:
        return len(await titles(office)) >= 20 and await pending(client, settings) > 0

    async with running(office, settings, RedisStream(settings)):
        await until(waits)
    async with running(office, settings, RedisStream(settings)):
        await until(lambda: _all_taken(office, 45))
    assert sorted(await titles(office), key=lambda title: int(title or 0)) == [str(number) for number in range(45)]


async def _all_taken(office: Office, count: int) -> bool:
    """Makes room meanwhile."""
    for job in (await office.store.page(states=[JobState.QUEUED])).jobs:
        await office.store.cancel(job.id)
    return await _all(office, count)


async def _all(office: Office, count: int) -> bool:
    return len(await titles(office)) == count


async def test_a_server_that_restarts_is_met_again(office: Office) -> None:
    with redis_server() as (url, server):
        settings = intake_settings("redis", url)
        async with running(office, settings, RedisStream(settings)):
            async with redis.Redis.from_url(url) as client:
                await client.xadd(settings.queue, {"body": film_body("before")})
            await until(lambda: titles(office))
            server.stop()
            await asyncio.sleep(0.3)
            server.start()
            async with redis.Redis.from_url(url) as client:
                await client.xadd(settings.queue, {"body": film_body("after")})
            await until(lambda: _all(office, 2))


async def test_what_waits_in_the_stream_is_told(client: redis.Redis, settings: IntakeSettings) -> None:
    source = RedisStream(settings)
    await source.open()
    await client.xadd(settings.queue, {"body": film_body("a")})
    assert await source.waiting() in {1, None}
    for _ in range(2):
        await source.close()

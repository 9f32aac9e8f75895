import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest
import redis.asyncio as redis

from serving.errors import BadInput
from serving.jobs.intake.celery_results import CeleryResults, tls_of, verified
from tests.serving.jobs.intake.celery_studio import Studio, studio


@pytest.fixture
def line(redis_url: str) -> Iterator[Studio]:
    with studio(redis_url, redis_url) as opened:
        yield opened


@asynccontextmanager
async def opened(broker: str, results: str) -> AsyncIterator[CeleryResults]:
    made = CeleryResults(broker, results)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def reply(line: Studio, **changes: Any) -> dict[str, Any]:
    own = {"id": f"{line.settings.queue}-1", "task": "film", "ignore_result": False, "group_index": None}
    return own | {"callbacks": [], "errbacks": [], "chain": [], "chord": None, "reply_to": None} | changes


def note(queue: str, **options: Any) -> dict[str, Any]:
    """A signature, as a client writes it into a message."""
    options = {"queue": queue} | options
    return {"task": "studio.note", "args": [], "kwargs": {}, "options": options, "immutable": False}


async def test_what_follows_is_sent_once_though_the_result_is_told_twice(line: Studio, redis_url: str) -> None:
    queue = f"{line.settings.queue}-notes"
    wanted = reply(line, callbacks=[note(queue)], chain=[note(queue, task_id="last"), note(queue, task_id="next")])
    async with opened(redis_url, redis_url) as results:
        for _ in range(2):
            await results.done(wanted, {"state": "completed"})
    sent = await line.take(queue)
    assert [message.headers["task"] for message in sent] == ["studio.note"] * 2
    assert {message.headers["root_id"] for message in sent} == {wanted["id"]}
    assert [message.payload[0] for message in sent] == [[{"state": "completed"}]] * 2
    chain = next(message for message in sent if message.headers["id"] == "next")
    assert [signature["options"]["task_id"] for signature in chain.payload[2]["chain"]] == ["last"]
    assert await line.get(wanted["id"]) == {"state": "completed"}
    children = await line.ask(lambda: line.app.AsyncResult(wanted["id"]).children)
    assert {child.id for child in children} == {message.headers["id"] for message in sent}


async def test_a_failure_is_told_to_the_rest_of_the_chain_and_may_become_a_success(
    line: Studio, redis_url: str
) -> None:
    wanted = reply(line, chain=[note("nowhere", task_id=f"{line.settings.queue}-2")])
    async with opened(redis_url, redis_url) as results:
        await results.failed(wanted, ValueError("no such field"))
        assert await line.state(f"{line.settings.queue}-2") == ("FAILURE", await _raised(line, wanted["id"]))
        await results.done(wanted | {"chain": []}, {"state": "completed"})
        await results.progress(wanted, {"progress": 0.5})
    assert await line.state(wanted["id"]) == ("SUCCESS", {"state": "completed"})


async def _raised(line: Studio, id_: str) -> Any:
    with pytest.raises(ValueError, match="no such field") as caught:
        await line.get(id_)

    class Same:
        def __eq__(self, other: object) -> bool:
            return repr(other) == repr(caught.value)

        __hash__ = None  # type: ignore[assignment]

    return Same()


async def test_times_in_a_signature_are_read_as_celery_wrote_them(line: Studio, redis_url: str) -> None:
    queue = f"{line.settings.queue}-notes"
    eta = {"__type__": "datetime", "__value__": "2040-01-02T03:04:05+00:00"}
    async with opened(redis_url, redis_url) as results:
        await results.done(reply(line, callbacks=[note(queue, eta=eta)]), {})
    assert (await line.take(queue))[0].headers["eta"] == "2040-01-02T03:04:05+00:00"


async def test_results_that_are_ignored_are_not_kept_and_yet_what_follows_goes_on(line: Studio, redis_url: str) -> None:
    queue = f"{line.settings.queue}-notes"
    wanted = reply(line, ignore_result=True, callbacks=[note(queue)], errbacks=[note(queue)])
    async with opened(redis_url, redis_url) as results:
        await results.progress(wanted, {})
        await results.done(wanted, {})
        await results.failed(wanted, RuntimeError("no"))
        await results.revoked(wanted, "cancelled")
    assert [message.payload[0] for message in await line.take(queue)] == [[{}], [wanted["id"]]]
    assert await line.state(wanted["id"]) == ("PENDING", None)


async def test_what_follows_goes_to_queues_as_they_are(rabbitmq_url: str) -> None:
    with studio(rabbitmq_url, "rpc://") as line:
        queues = [f"{line.settings.queue}-{number}" for number in range(2)]
        async with await aio_pika.connect(rabbitmq_url) as connection, connection.channel() as channel:
            await channel.declare_queue(queues[0], durable=True, arguments={"x-max-priority": 9})
            async with opened(rabbitmq_url, "rpc://") as results:
                await results.done(reply(line, callbacks=[note(queue) for queue in queues]), {"a": 1})
            for queue in queues:
                found = await (await channel.get_queue(queue)).get(no_ack=True)
                assert found is not None
                assert b'[{"a": 1}]' in found.body


async def test_the_broker_of_the_settings_is_meant_whatever_the_environment_says(
    line: Studio, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = f"{line.settings.queue}-notes"
    with monkeypatch.context() as environment:
        for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
            environment.setenv(name, "redis://127.0.0.1:1/0")
        environment.setenv("CELERY_CONFIG_MODULE", "no_such_module")
        async with opened(redis_url, redis_url) as results:
            await results.done(reply(line, callbacks=[note(queue)]), {})
    async with redis.Redis.from_url(redis_url) as client:
        assert await client.llen(queue) == 1


async def test_a_backend_that_is_away_is_told_and_closing_does_not_wait_for_it(line: Studio, free_port: int) -> None:
    results = CeleryResults(line.settings.url, f"redis://:secret@127.0.0.1:{free_port}/0")
    with pytest.raises(ConnectionError, match="not connected"):
        await results.done(reply(line), {})
    await results.open()
    with pytest.raises(Exception, match=str(free_port)) as caught:
        await results.progress(reply(line), {})
    assert "secret" not in f"{caught.value!r} {results!r} {vars(results)!r}"
    for _ in range(2):
        await asyncio.wait_for(results.close(), 5)


@pytest.mark.parametrize(
    ("url", "results"),
    [
        ("rediss://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_ca_certs=ca.pem", "rediss://h/0?ssl_ca_certs=ca.pem&ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis://h/0", "redis://h/0"),
        ("rpc://", "rpc://"),
    ],
)
def test_a_certificate_of_redis_is_verified_unless_the_address_says_otherwise(url: str, results: str) -> None:
    assert verified(url) == results
    assert CeleryResults("redis://h/0", url)


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("amqp://h/", None),
        ("amqps://h/", {"server_hostname": None}),
        ("amqps://h/?cafile=ca.pem&heartbeat=9", {"server_hostname": None, "ca_certs": "ca.pem"}),
        ("amqps://h/?certfile=c&keyfile=k", {"server_hostname": None, "certfile": "c", "keyfile": "k"}),
        ("amqps://h/?no_verify_ssl=1&cafile=ca.pem", {"cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_an_address_says_which_certificates_of_a_broker_are_good(url: str, tls: dict[str, Any] | None) -> None:
    assert tls_of(url) == tls


@pytest.mark.parametrize("url", ["cassette://me:secret@h", "nothing", "mongodb://me:secret@h"])
def test_a_backend_that_celery_does_not_know_or_cannot_load_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="no result backend") as caught:
        CeleryResults("redis://h/0", url)
    assert "secret" not in str(caught.value)

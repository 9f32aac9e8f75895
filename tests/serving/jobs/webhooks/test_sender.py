"""Deliveries over the wire, to a server that verifies them with the library that receivers use."""

import asyncio
import time
from typing import Any

import pytest
import sqlalchemy as sa

from serving.jobs.webhooks.policy import DeliveryState, Verdict
from serving.telemetry import WEBHOOK_TRIES
from tests.serving.jobs.webhooks.conftest import SECRET, Post, Receiver


async def test_a_job_that_ends_is_told_once_and_signed(post: Post, receiver: Receiver) -> None:
    job = await post.job(receiver.url, "job.cancelled")
    await post.sender()
    await post.office.store.cancel(job.id)
    sent = await post.until(job.id, "sent")
    [told] = receiver.heard
    assert (told["type"], told["timestamp"][-1]) == ("job.cancelled", "Z")
    wanted = {"id": job.id, "type": "film", "title": "A film", "state": "cancelled", "seq": sent.seq}
    assert wanted.items() <= told["data"].items()
    assert receiver.ids == [sent.id] == [f"msg_{job.id}_{sent.seq}"]
    assert (sent.tries, sent.last_problem) == (1, None)


async def test_a_failing_receiver_is_asked_again_with_the_same_id_and_body(post: Post, receiver: Receiver) -> None:
    receiver.script = [b"500 Oops\r\n\r\nno room", b"302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"]
    job = await post.job(receiver.url)
    await post.sender()
    await post.office.store.cancel(job.id)
    sent = await post.until(job.id, "sent")
    assert sent.tries == receiver.asked == 3
    assert len(set(receiver.ids)) == 1
    assert receiver.heard[0] == receiver.heard[1] == receiver.heard[2]


async def test_a_receiver_that_never_works_makes_a_dead_delivery_that_can_be_sent_again(
    post: Post, receiver: Receiver
) -> None:
    receiver.script = [b"500 Oops\r\n\r\nno \x00room"] * 3
    job = await post.job(receiver.url)
    await post.sender(tries=3, retry_s=0.01)
    await post.office.store.cancel(job.id)
    dead = await post.until(job.id, "dead")
    assert (dead.tries, dead.last_problem) == (3, "answered 500: no room")
    assert (await post.deliveries.page(states=[DeliveryState.DEAD]))[0] == [dead]
    assert (await post.deliveries.resend(dead.id)).state == "waiting"
    assert (await post.until(job.id, "sent")).tries == 1


async def test_gone_ends_everything_of_the_job(post: Post, receiver: Receiver) -> None:
    receiver.script = [b"410 Gone\r\n\r\n"]
    job = await post.job(receiver.url)
    await post.sender()
    before = WEBHOOK_TRIES.labels("gone")._value.get()
    await post.office.store.cancel(job.id)
    assert (await post.until(job.id, "gone")).last_problem == "answered 410"
    assert WEBHOOK_TRIES.labels("gone")._value.get() == before + 1
    await asyncio.sleep(0.1)
    assert receiver.asked == 1


async def test_a_receiver_that_does_not_answer_in_time_is_left(post: Post, receiver: Receiver) -> None:
    receiver.slow_s = 5
    job = await post.job(receiver.url)
    await post.sender(timeout_s=0.2, tries=1)
    await post.office.store.cancel(job.id)
    began = time.monotonic()
    assert (await post.until(job.id, "dead")).last_problem == "no answer within 0.2 s"
    assert time.monotonic() - began < 2


async def test_nobody_there_is_a_problem_that_is_told(post: Post) -> None:
    job = await post.job("http://127.0.0.1:1/hook")
    await post.sender(tries=1)
    await post.office.store.cancel(job.id)
    assert "ConnectError" in ((await post.until(job.id, "dead")).last_problem or "")


async def test_a_private_address_is_not_connected_to_unless_it_is_allowed(post: Post, receiver: Receiver) -> None:
    job = await post.job(receiver.url)
    await post.sender(allow_private=False)
    await post.office.store.cancel(job.id)
    dead = await post.until(job.id, "dead")
    assert (dead.tries, receiver.asked) == (1, 0)
    assert "not public" in (dead.last_problem or "")


async def test_what_was_claimed_by_a_gateway_that_died_is_sent_by_another(post: Post, receiver: Receiver) -> None:
    job = await post.job(receiver.url)
    await post.office.store.cancel(job.id)
    [lost] = await post.deliveries.claim(lease_s=0.3, limit=10)
    assert await post.deliveries.claim(lease_s=0.3, limit=10) == []
    await post.sender()
    assert (await post.until(job.id, "sent")).tries == 2
    assert receiver.asked == 1
    # The dead gateway's outcome arrives after all.
    assert not await post.deliveries.settle(lost, Verdict(DeliveryState.DEAD), "late")
    assert (await post.until(job.id, "sent")).last_problem is None


async def test_several_senders_share_the_deliveries_and_send_each_once(post: Post, receiver: Receiver) -> None:
    found = [await post.job(receiver.url) for _ in range(12)]
    for _ in range(3):
        await post.sender()
    await asyncio.gather(*(post.office.store.cancel(job.id) for job in found))
    for job in found:
        await post.until(job.id, "sent")
    assert sorted(receiver.ids) == sorted(set(receiver.ids))
    assert receiver.asked == 12


async def test_a_slow_host_gets_its_share_of_the_senders_and_no_more(post: Post, receiver: Receiver) -> None:
    receiver.slow_s = 1.0
    found = [await post.job(f"http://localhost:{receiver.port}/hook?of=films") for _ in range(6)]
    quick = await post.job("http://127.0.0.1:1/hook")
    await asyncio.gather(*(post.office.store.cancel(job.id) for job in (*found, quick)))
    await post.sender(parallel=4, parallel_per_host=2, tries=1)
    began = time.monotonic()
    await post.until(quick.id, "dead")
    assert time.monotonic() - began < 0.9
    assert receiver.asked <= 2


async def test_a_crowd_for_a_slow_host_is_left_alone_until_the_host_has_room(post: Post, receiver: Receiver) -> None:
    receiver.slow_s = 3.0
    found = [await post.job(f"http://localhost:{receiver.port}/hook?of=films") for _ in range(15)]
    await asyncio.gather(*(post.office.store.cancel(job.id) for job in found))
    found += [await post.job(f"http://localhost:{receiver.port}/hook?of=films") for _ in range(15)]
    await asyncio.gather(*(post.office.store.cancel(job.id) for job in found[15:]))
    written = 0

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal written
        written += statement.startswith("UPDATE deliveries")

    sa.event.listen(post.office.database.engine, "before_cursor_execute", count)
    await post.sender(parallel=8, parallel_per_host=2, timeout_s=5)
    await asyncio.sleep(1.5)
    quick = await post.job("http://127.0.0.1:1/hook")
    await post.office.store.cancel(quick.id)
    await asyncio.sleep(0.8)
    assert written <= 12
    assert receiver.asked == 2
    assert (await post.until(quick.id, "waiting")).tries > 0, "others are not held up"


async def test_without_a_secret_nothing_is_sent(post: Post, receiver: Receiver) -> None:
    post.secrets_file.write_text(f"studio: {SECRET}\n")
    job = await post.job(receiver.url)
    await post.sender(tries=1)
    await post.office.store.cancel(job.id)
    assert (await post.until(job.id, "dead")).last_problem == "no secret is kept for the tenant"
    assert receiver.asked == 0


async def test_closing_ends_the_senders_tries_at_once(post: Post, receiver: Receiver) -> None:
    receiver.slow_s = 5
    job = await post.job(receiver.url)
    sender = await post.sender()
    await post.office.store.cancel(job.id)
    await receiver.came.wait()
    began = time.monotonic()
    await sender.close()
    assert time.monotonic() - began < 1
    assert (await post.until(job.id, "waiting")).tries == 1


@pytest.mark.parametrize("events", [["job.completed"], ["job.failed", "job.queued"]], ids=",".join)
async def test_events_that_nobody_asked_for_make_no_delivery(post: Post, receiver: Receiver, events: list[str]) -> None:
    job = await post.job(receiver.url, *events)
    await post.office.store.cancel(job.id)
    assert (await post.deliveries.page(job_id=job.id))[0] == []

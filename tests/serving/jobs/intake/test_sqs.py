import asyncio
import json
from typing import Any

import boto3
import pytest

from serving.errors import BadInput
from serving.jobs.intake.base import Delivery
from serving.jobs.intake.sqs import MAX_ANSWER_BYTES, REASON, Sqs, answer_body, endpoint_of
from serving.settings import IntakeSettings
from tests.serving.jobs.intake.site import film_body, finish, intake_settings, job_of, running, titles, until
from tests.serving.jobs.office import Office


class Studio:
    """What a studio does with its queues, by AWS' own client."""

    def __init__(self, url: str) -> None:
        self.client = boto3.client("sqs", endpoint_url=url, region_name="eu-west-1")

    def make(self, name: str, **attributes: str) -> str:
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        return str(self.client.create_queue(QueueName=name, Attributes={**fifo, **attributes})["QueueUrl"])

    async def counts(self, queue: str) -> tuple[int, int]:
        """Messages that wait, and that somebody has received."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await asyncio.to_thread(self.client.get_queue_attributes, QueueUrl=queue, AttributeNames=names)
        return int(answer["Attributes"][names[0]]), int(answer["Attributes"][names[1]])

    async def empty(self, queue: str) -> bool:
        return await self.counts(queue) == (0, 0)

    async def take(self, queue: str) -> dict[str, Any]:
        """The next message of a queue, which may not be there yet."""
        return (await until(lambda: asyncio.to_thread(self._take, queue)))[0]

    def _take(self, queue: str) -> list[dict[str, Any]]:
        try:
            url = queue if "://" in queue else self.client.get_queue_url(QueueName=queue)["QueueUrl"]
        except self.client.exceptions.QueueDoesNotExist:
            return []
        found = self.client.receive_message(
            QueueUrl=url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
        )
        return list(found.get("Messages", []))


@pytest.fixture
def studio(sqs_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    made = Studio(sqs_url)
    yield made
    made.client.close()


def sqs_settings(sqs_url: str, fifo: bool = False, **changes: Any) -> IntakeSettings:
    settings = intake_settings("sqs", f"{sqs_url}?region=eu-west-1", **changes)
    return settings.model_copy(update={"queue": f"{settings.queue}.fifo"}) if fifo else settings


def quick(settings: IntakeSettings, kind: type[Sqs] = Sqs, visible_after_s: int = 30) -> Sqs:
    return kind(settings, long_poll_s=1, visible_after_s=visible_after_s)


async def test_messages_become_jobs_and_results_come_to_the_queue_of_results(
    office: Office, studio: Studio, sqs_url: str
) -> None:
    settings = sqs_settings(sqs_url)
    settings = settings.model_copy(update={"results_url": f"{settings.queue}-results.fifo"})
    queue, results = studio.make(settings.queue), studio.make(settings.results_url)
    sent = studio.client.send_message(QueueUrl=queue, MessageBody=film_body("mine"))["MessageId"]
    async with running(office, settings, quick(settings)):
        await finish(office, await until(lambda: job_of(office, "mine")) or "")
        result = json.loads((await studio.take(results))["Body"])
        await until(lambda: studio.empty(queue))
    assert (result["message_id"], result["state"]) == (sent, "completed")
    assert result["output"]["facts"] == {"clips": 1}


class DiesBeforeDelete(Sqs):
    """A consumer that ends after the row is written and before it deletes the message."""

    deaths = 0

    async def ack(self, delivery: Delivery) -> None:
        if self.deaths < 1:
            self.deaths += 1
            raise ConnectionError("killed")
        await super().ack(delivery)


async def test_a_message_whose_consumer_died_before_deleting_it_comes_again_and_is_one_job(
    office: Office, studio: Studio, sqs_url: str
) -> None:
    settings = sqs_settings(sqs_url)
    queue = studio.make(settings.queue)
    studio.client.send_message(QueueUrl=queue, MessageBody=film_body("once"))
    source = quick(settings, DiesBeforeDelete, visible_after_s=1)
    async with running(office, settings, source):
        await until(lambda: studio.empty(queue))
    assert (source.deaths, await titles(office)) == (1, ["once"])


async def test_malformed_messages_go_to_the_redrive_policys_queue_with_the_reason(
    office: Office, studio: Studio, sqs_url: str
) -> None:
    settings = sqs_settings(sqs_url)
    dead = studio.make(f"{settings.queue}-graveyard")
    arn = studio.client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"})
    queue = studio.make(settings.queue, RedrivePolicy=policy)
    own = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(10)}
    studio.client.send_message(QueueUrl=queue, MessageBody=film_body("x", clips=-1), MessageAttributes=own)
    async with running(office, settings, quick(settings)):
        message = await studio.take(dead)
        await until(lambda: studio.empty(queue))
    assert "input.clips" in message["MessageAttributes"][REASON]["StringValue"]
    assert message["Body"] == film_body("x", clips=-1)
    assert await titles(office) == []


async def test_a_fifo_queues_messages_become_jobs_in_order_and_its_dead_letter_queue_is_made(
    office: Office, studio: Studio, sqs_url: str
) -> None:
    settings = sqs_settings(sqs_url, fifo=True)
    queue = studio.make(settings.queue)
    for title in ("1", "2", "not a job", "3"):
        body = "nonsense" if title == "not a job" else film_body(title)
        studio.client.send_message(
            QueueUrl=queue, MessageBody=body, MessageGroupId="film-7", MessageDeduplicationId=title
        )
    async with running(office, settings, quick(settings)):
        message = await studio.take(settings.queue.replace(".fifo", "-dead.fifo"))
        await until(lambda: studio.empty(queue))
    assert await titles(office) == ["1", "2", "3"]
    assert (message["Body"], message["Attributes"]["MessageGroupId"]) == ("nonsense", "film-7")


async def test_a_message_that_waits_for_room_is_hidden_from_others_by_a_heartbeat(
    office: Office, studio: Studio, sqs_url: str
) -> None:
    settings = sqs_settings(sqs_url)
    queue = studio.make(settings.queue)
    studio.client.send_message(QueueUrl=queue, MessageBody=film_body("held"))
    source = quick(settings, visible_after_s=2)
    await source.open()
    delivery = await anext(source.deliveries())
    for _ in range(6):
        await asyncio.sleep(0.4)
        await source.extend(delivery)
    assert await studio.counts(queue) == (0, 1)
    await source.release(delivery)
    assert await source.waiting() == 1
    for _ in range(2):
        await source.close()


async def test_what_was_received_ahead_is_given_back_on_a_stop(studio: Studio, sqs_url: str) -> None:
    settings = sqs_settings(sqs_url)
    queue = studio.make(settings.queue)
    for number in range(5):
        studio.client.send_message(QueueUrl=queue, MessageBody=film_body(str(number)))
    source = quick(settings)
    await source.open()
    delivery = await anext(source.deliveries())
    await source.release(delivery)
    await source.close()
    assert await studio.counts(queue) == (5, 0)


async def test_a_queue_that_appears_later_is_met(office: Office, studio: Studio, sqs_url: str) -> None:
    settings = sqs_settings(sqs_url)
    async with running(office, settings, quick(settings)):
        await asyncio.sleep(0.2)
        queue = studio.make(settings.queue)
        studio.client.send_message(QueueUrl=queue, MessageBody=film_body("late"))
        await until(lambda: titles(office))


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("http://localhost:9324?region=elasticmq", "elasticmq"),
        ("http://localhost:9324", None),
    ],
)
def test_the_address_tells_the_region(url: str, region: str | None) -> None:
    assert endpoint_of(url) == (url.partition("?")[0], region)


@pytest.mark.parametrize("url", ["sqs://queue", "films", "https://"])
def test_other_addresses_are_refused_with_the_fix(url: str) -> None:
    with pytest.raises(BadInput, match=r"https://sqs\.eu-west-1"):
        endpoint_of(url)


def test_an_answer_that_is_too_large_goes_without_its_output() -> None:
    answer = json.loads(answer_body({"job_id": "a", "output": "x" * MAX_ANSWER_BYTES, "files": {"film": "/v1"}}))
    assert answer == {"job_id": "a", "output": None, "files": {}}

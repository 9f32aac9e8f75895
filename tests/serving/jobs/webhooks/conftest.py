import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from serving.jobs.records import JobRecord
from serving.jobs.tables import jobs
from serving.jobs.webhooks.deliveries import Deliveries, DeliveryRecord
from serving.jobs.webhooks.secrets import Secrets
from serving.jobs.webhooks.sender import WebhookSender
from serving.settings import WebhookSettings
from tests.serving.jobs.office import Office

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMgZXhhY3RseQ=="


@dataclass
class Receiver:
    """A web server that verifies what it is told, and answers as scripted; 204 once the script is over."""

    port: int = 0
    script: list[bytes] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    asked: int = 0
    slow_s: float = 0.0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    busy: set[asyncio.Task[None] | None] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?of=films"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy.add(task := asyncio.current_task())
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            self.busy.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("POST /hook?of=films HTTP/1.1\r\n")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value for name, value in headers.items()}
        body = await reader.readexactly(int(headers["content-length"]))
        self.asked += 1
        self.heard.append(Webhook(SECRET).verify(body, headers))
        self.ids.append(headers["webhook-id"])
        self.came.set()
        if self.slow_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closing.wait(), self.slow_s)
        answer = self.script.pop(0) if self.script else b"204 No Content\r\n\r\n"
        writer.write(b"HTTP/1.1 " + answer)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    opened = Receiver()
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.port = server.sockets[0].getsockname()[1]
    yield opened
    opened.closing.set()
    server.close()
    await asyncio.gather(*(task for task in opened.busy if task is not None), return_exceptions=True)


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.yaml"
    path.write_text(f"'*': {SECRET}\n")
    return path


@dataclass
class Post:
    """The webhooks of one office: a job with one, and a sender with settings that tests change."""

    office: Office
    secrets_file: Path
    senders: list[WebhookSender] = field(default_factory=list)

    @property
    def deliveries(self) -> Deliveries:
        return Deliveries(self.office.database)

    async def job(self, url: str, *events: str) -> JobRecord:
        """A waiting job with a webhook; what it was told of its queueing is not among its deliveries."""
        record = await self.office.submit()
        webhook = sa.update(jobs).where(jobs.c.id == record.id).values(webhook={"url": url, "events": list(events)})
        await self.office.database.run(lambda connection: connection.execute(webhook))
        return record

    async def sender(self, grace_s: float = 10.0, **changes: Any) -> WebhookSender:
        values = {"allow_private": True, "retry_s": 0.05, "poll_s": 0.02, "timeout_s": 2, **changes}
        secrets = Secrets(self.secrets_file)
        await secrets.open()
        sender = WebhookSender(self.office.database, WebhookSettings.model_validate(values), secrets, grace_s=grace_s)
        sender.start()
        self.senders.append(sender)
        return sender

    async def until(self, job_id: str, state: str) -> DeliveryRecord:
        async with asyncio.timeout(10):
            while True:
                [found], _ = await self.deliveries.page(job_id=job_id)
                if found.state == state:
                    return found
                await asyncio.sleep(0.02)


@pytest.fixture
async def post(office: Office, secrets_file: Path) -> AsyncIterator[Post]:
    opened = Post(office, secrets_file)
    yield opened
    for sender in opened.senders:
        await sender.close()

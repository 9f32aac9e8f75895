"""What a gateway with jobs opens, by what it does from outside."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import redis.asyncio as redis
from standardwebhooks import Webhook

from serving.errors import BadInput
from serving.gateway.jobs_part import JobsPart
from serving.settings import Settings
from serving.telemetry import exposition
from tests.serving.jobs.film import CATALOG
from tests.serving.jobs.intake.site import film_body, intake_settings, titles, until
from tests.serving.jobs.office import open_office

SECRET = "whsec_c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMgZXhhY3RseQ=="


@pytest.fixture
async def told() -> AsyncIterator[tuple[int, asyncio.Queue[tuple[dict[str, str], bytes]]]]:
    queue: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[1:-1]
        headers = dict(line.lower().split(": ", 1) if "ignature" not in line else line.split(": ", 1) for line in head)
        queue.put_nowait((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], queue


async def test_a_job_submitted_by_http_tells_its_webhook(
    tmp_path: Path, told: tuple[int, asyncio.Queue[tuple[dict[str, str], bytes]]]
) -> None:
    port, queue = told
    (tmp_path / "secrets.yaml").write_text(f"'*': {SECRET}\n")
    webhooks = {"secrets_file": tmp_path / "secrets.yaml", "allow_private": True, "poll_s": 0.05}
    settings = Settings.model_validate({"home": tmp_path / "home", "webhooks": webhooks}).resolved()
    part = JobsPart(settings, CATALOG)
    await part.open()

    async def parts() -> list[object]:
        return [exposition()]

    app = part.app([], parts)  # type: ignore[arg-type]
    hook = {"url": f"http://127.0.0.1:{port}/", "events": ["job.cancelled"]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mesh") as http:
        made = await http.post("/v1/jobs", json={"type": "film", "input": {"title": "x"}, "webhook": hook})
        assert made.status_code == 202
        await http.post(f"/v1/jobs/{made.json()['id']}/cancel")
        headers, body = await asyncio.wait_for(queue.get(), 10)
        assert Webhook(SECRET).verify(body, headers)["data"]["id"] == made.json()["id"]
        assert SECRET[6:] not in made.text + repr(settings)
    await part.end_watches()
    await part.close()


async def test_secrets_that_cannot_be_read_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    webhooks = {"secrets_file": tmp_path / "none.yaml"}
    part = JobsPart(Settings.model_validate({"home": tmp_path / "home", "webhooks": webhooks}).resolved(), CATALOG)
    with pytest.raises(BadInput, match=r"webhooks\.secrets_file"):
        await part.open()
    await part._database.close()


async def test_a_gateway_takes_jobs_from_the_queues_of_its_settings(tmp_path: Path, redis_url: str) -> None:
    intake = intake_settings("redis", redis_url)
    async with open_office(tmp_path / "home") as office:
        part = JobsPart(Settings(home=tmp_path / "home", intakes=[intake]).resolved(), CATALOG)
        await part.open()
        try:
            async with redis.Redis.from_url(redis_url) as client:
                await client.xadd(intake.queue, {"body": film_body("from a stream")})
                assert await until(lambda: titles(office)) == ["from a stream"]
            await part.check()
        finally:
            await part.end_watches()
            await part.close()

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.backends.http_server import HttpServer
from serving.cli.client import JobsClient, error_of
from serving.cli.sse import Message, messages
from serving.errors import BadInput, Conflict, EngineFailed, NotFound, TooLarge, Unavailable
from serving.gateway.errors import error_body
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def client(site: Site) -> AsyncIterator[JobsClient]:
    async with JobsClient(site.url) as opened:
        yield opened


async def test_a_job_goes_from_upload_to_download(site: Site, client: JobsClient, tmp_path: Path) -> None:
    poster = tmp_path / "poster.png"
    poster.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 600_000)
    sent: list[int] = []
    ref = await client.upload(poster, moved=sent.append)
    assert (ref.media_type, ref.name, sum(sent)) == ("image/png", "poster.png", poster.stat().st_size)
    async with open_worker(site.office):
        job = await client.submit("film", {"title": "x", "poster": ref.model_dump(mode="json")}, key="k")
        again = await client.submit("film", {"title": "x", "poster": ref.model_dump(mode="json")}, key="k")
        assert again.id == job.id
        events = [event async for event in client.events(job.id)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    done = await client.job(job.id)
    assert done.state == "completed"
    got: list[int] = []
    path = await client.download(done.artifacts["poster"], tmp_path / "out" / "poster.png", moved=got.append)
    assert path.read_bytes() == poster.read_bytes()
    assert sum(got) == poster.stat().st_size
    assert [file.name for file in path.parent.iterdir()] == ["poster.png"]
    assert [listed.id for listed in (await client.jobs()).data] == [job.id]


async def test_a_file_the_mesh_has_is_not_sent_again(site: Site, client: JobsClient, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"once")
    first = await client.upload(path)
    uploads = site.office.settings.home / "uploads"
    uploads.rmdir()
    assert await client.upload(path) == first
    assert not uploads.exists()


async def test_events_are_taken_up_where_the_connection_broke(site: Site, client: JobsClient) -> None:
    job = await client.submit("film", {"title": "x"})
    seen: list[int] = []

    async def listen() -> None:
        async for event in client.events(job.id):
            seen.append(event.seq)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.3)
    # The hub lets its watchers go as a gateway does that drains; the next connection meets a hub that works.
    await site.hub.close()
    site.hub._closed = False
    await site.office.store.cancel(job.id)
    await asyncio.wait_for(listening, 10)
    assert seen == [1, 2, 3]


async def test_a_damaged_download_is_refused_and_leaves_nothing(site: Site, client: JobsClient, tmp_path: Path) -> None:
    async with open_worker(site.office):
        job = await client.submit("film", {"title": "x", "clips": 1})
        [_ async for _ in client.events(job.id)]
    file = (await client.job(job.id)).artifacts["score"].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(EngineFailed, match="damaged"):
        await client.download(file, tmp_path / "out" / "score.wav")
    assert list((tmp_path / "out").iterdir()) == []


async def test_errors_arrive_as_the_mesh_raised_them(client: JobsClient) -> None:
    with pytest.raises(NotFound, match="no job is called"):
        await client.job("nope")
    with pytest.raises(NotFound):
        [_ async for _ in client.events("nope")]
    with pytest.raises(BadInput) as caught:
        await client.submit("film", {"title": "x", "actors": ["nobody"]})
    assert (caught.value.field, caught.value.problem) == ("input.actors[0]", "nobody cannot act: name somebody")


async def test_a_mesh_that_is_not_there_is_told_with_the_fix() -> None:
    server = HttpServer(lambda *_: None)  # type: ignore[arg-type,return-value]
    port = server.port
    server._listener.close()
    async with JobsClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unavailable, match="reelmesh up"):
            await client.job_types()
    with pytest.raises(BadInput, match="is no address"):
        JobsClient("http://[::bad")


async def test_another_server_on_the_mesh_s_port_is_no_traceback() -> None:
    async def page(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<html>hello\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with JobsClient(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(EngineFailed, match=r"is no mesh of this version: <html>hello.*--host"):
                await client.jobs()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        pytest.param(413, b'{"error": "too long"}', TooLarge, "too long", id="the edge's shape"),
        pytest.param(409, b'{"error": {"message": "m", "code": "conflict"}}', Conflict, "m", id="OpenAI's shape"),
        pytest.param(502, b"<html>Bad gateway</html>", EngineFailed, "Bad gateway", id="a proxy's page"),
        pytest.param(503, b"", Unavailable, "no reason", id="nothing"),
        pytest.param(400, b"[1]", BadInput, "1", id="other JSON"),
    ],
)
def test_every_answer_becomes_an_error_of_the_tree(status: int, body: bytes, kind: type, words: str) -> None:
    error = error_of(status, body)
    assert type(error) is kind
    assert words in str(error)


def test_an_error_survives_the_wire() -> None:
    import json

    told = error_of(400, json.dumps(error_body(BadInput("is wrong", field="a.b", fix="mend it"))).encode())
    assert (told.field, str(told)) == ("a.b", "a.b: is wrong: mend it")


async def test_server_sent_events_are_read_as_the_standard_says() -> None:
    async def lines() -> AsyncIterator[str]:
        for line in [
            "retry: 10",
            "",
            ": hello",
            "",
            "id: 3",
            "event: state",
            "data: a",
            "data:b",
            "other: x",
            "",
            "data: c",
        ]:
            yield line

    found = [message async for message in messages(lines())]
    assert found == [Message("message", "", ""), Message("message", "", ""), Message("state", "a\nb", "3")]

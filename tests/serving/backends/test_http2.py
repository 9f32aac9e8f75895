"""HTTP/2 with peers that do not read, spoken by hand."""

import asyncio

import pytest
import zttp

from serving.backends import http2 as module
from serving.backends.http_server import HttpServer

PIECE = bytes(256 << 10)


class App:
    """Sends pieces for as long as it may, and counts them."""

    def __init__(self):
        self.sent, self.ended = 0, asyncio.Event()

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        pieces = int(scope["path"][1:])
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b""})
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})
        self.ended.set()


class Peer:
    """A client that gives credit only when it reads."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.connection = zttp.Connection(zttp.CLIENT, protocol=zttp.HTTP2)
        self.connection.initiate_connection()

    def ask(self, path):
        headers = [(b"host", b"a"), (b"te", b"trailers")]
        self.connection.send_request(b"GET", path, b"2", headers).end_message()
        self.flush()

    def flush(self):
        self.writer.write(self.connection.data_to_send())

    async def body(self):
        """Bytes of the body, up to the end of the message."""
        size = 0
        while True:
            self.connection.receive_data(await self.reader.read(1 << 16))
            while (event := self.connection.next_event()) is not zttp.NEED_DATA:
                size += len(getattr(event, "data", b""))
                if isinstance(event, zttp.EndOfMessage | zttp.RstStream):
                    return size, type(event).__name__
            self.flush()


@pytest.fixture
def app():
    return App()


@pytest.fixture
async def peer(app):
    server = HttpServer(app, http2=True, drain_s=1)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 16)
    yield Peer(reader, writer)
    writer.transport.abort()
    await server.stop()


async def test_what_a_peer_does_not_take_is_not_produced(app, peer):
    peer.ask(b"/64")
    await asyncio.sleep(0.3)
    assert app.sent <= 2 + module.UNREAD_BYTES // len(PIECE)
    assert await peer.body() == (64 * len(PIECE), "EndOfMessage")
    assert app.sent == 64


async def test_a_message_has_ended_when_all_of_it_was_taken(app, peer):
    peer.ask(b"/1")
    await asyncio.sleep(0.1)
    assert not app.ended.is_set()
    assert await peer.body() == (len(PIECE), "EndOfMessage")
    await asyncio.wait_for(app.ended.wait(), 1)


async def test_a_stream_of_which_nothing_is_taken_is_reset(app, peer, monkeypatch):
    monkeypatch.setattr(module, "STALLED_S", 0.1)
    peer.ask(b"/64")
    await asyncio.wait_for(app.ended.wait(), 2)
    assert (await peer.body())[1] == "RstStream"


async def test_a_peer_that_goes_away_ends_the_wait(app, peer):
    peer.ask(b"/64")
    await asyncio.sleep(0.1)
    peer.writer.close()
    await asyncio.wait_for(app.ended.wait(), 2)


async def test_a_connection_on_which_nothing_comes_is_closed(app, monkeypatch):
    monkeypatch.setattr("serving.backends.http_server._KEEP_ALIVE_S", 0.1)
    server = HttpServer(app, http2=True)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(2):
        while await reader.read(1024):
            continue
    writer.close()
    await server.stop()


async def test_pings_that_nobody_reads_the_answers_of_do_not_pile_up(app, peer):
    peer.flush()
    peer.writer.transport.pause_reading()
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            while True:  # until the server reads no more
                peer.writer.write(ping * 10_000)
                await peer.writer.drain()

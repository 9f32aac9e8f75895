"""A port leads to a Unix socket, byte for byte."""

import asyncio
import os

import pytest

from serving.backends.relay import Relay


@pytest.fixture
async def echo(tmp_path, monkeypatch):
    """A Unix socket that sends back what it gets; the path is relative, since a socket's is short."""
    monkeypatch.chdir(tmp_path)

    async def answer(reader, writer):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, "echo")
    yield "echo"
    server.close()


@pytest.fixture
async def port(echo):
    relay = Relay("127.0.0.1", echo)
    yield await relay.start()
    await relay.stop()


async def test_what_goes_in_comes_back(port):
    sent = os.urandom(3 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert await asyncio.wait_for(reader.readexactly(len(sent)), 5) == sent
    writer.close()


async def test_connections_do_not_mix(port):
    async def talk(text):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        answer = await asyncio.wait_for(reader.readexactly(len(text)), 5)
        writer.close()
        return answer

    texts = [str(index).encode() * 1000 for index in range(50)]
    assert await asyncio.gather(*map(talk, texts)) == texts


async def test_a_socket_that_is_not_there_closes_the_connection(tmp_path):
    relay = Relay("127.0.0.1", str(tmp_path / "absent"))
    reader, writer = await asyncio.open_connection("127.0.0.1", await relay.start())
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await relay.stop()


async def test_stopping_cuts_what_is_open(echo):
    relay = Relay("127.0.0.1", echo)
    port = await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x")
    assert await asyncio.wait_for(reader.readexactly(1), 5) == b"x"
    await relay.stop()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)

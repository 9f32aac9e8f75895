import asyncio
import socket

import grpc
import pytest

from serving.client.channel import CallFailed, Channel, is_local, parse_address
from serving.errors import BadInput, Unavailable
from tests.serving.client.conftest import Scripted


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:8001", ("127.0.0.1:8001", False)),
        ("grpc://mesh.local:8001", ("mesh.local:8001", False)),
        ("grpcs://mesh.example/", None),
        ("grpcs://mesh.example:443/", ("mesh.example:443", True)),
        ("[::1]:8001", ("[::1]:8001", False)),
        ("http://127.0.0.1:8000", None),
        (":8001", None),
        ("mesh", None),
    ],
)
def test_an_address_is_host_and_port_with_or_without_grpcs_scheme(
    address: str, parsed: tuple[str, bool] | None
) -> None:
    if parsed is not None:
        assert parse_address(address) == parsed
        return
    with pytest.raises(BadInput, match=r"use host:port .*, grpc://host:port, grpcs://host:port .* or unix:/path"):
        parse_address(address)


def test_an_http_address_is_called_one() -> None:
    with pytest.raises(BadInput, match=r"'http://127.0.0.1:8000' is an HTTP address: use host:port of the gRPC port"):
        parse_address("http://127.0.0.1:8000")


async def test_a_call_to_nobody_says_that_it_was_not_sent(free_port: int) -> None:
    channel = Channel(f"127.0.0.1:{free_port}", {})
    with pytest.raises(CallFailed) as caught:
        await channel.unary("ServerLive", b"", 5)
    assert type(caught.value.how.error) is Unavailable
    assert not caught.value.how.ran
    await channel.close()


async def test_only_servers_on_this_machine_are_local() -> None:
    for address, local in (("localhost:1", True), ("127.8.0.1:1", True), ("unix:/x", True), ("10.0.0.1:1", False)):
        channel = Channel(address, {})
        assert channel.local is local
        await channel.close()


@pytest.mark.parametrize("target", ["127.example.com:1", "localhost.example.com:1", "0.0.0.0:1", "192.0.2.1:1", "x:1"])
def test_what_only_looks_like_this_machine_is_not_it(target: str) -> None:
    assert not is_local(target)


async def test_an_address_of_this_machine_is_local() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        assert is_local(f"{probe.getsockname()[0]}:1")


async def test_closing_fails_the_calls_under_way_without_cancelling_their_callers(
    scripted: tuple[str, Scripted],
) -> None:
    address, server = scripted
    reached = asyncio.Event()

    async def hang(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        reached.set()
        await asyncio.sleep(30)
        return b""

    server.answers = {"ModelInfer": hang}
    channel = Channel(address, {})
    waiting = asyncio.create_task(channel.unary("ModelInfer", b"", 20))
    await reached.wait()
    await channel.close()
    with pytest.raises(CallFailed, match="the client was closed"):
        await waiting
    with pytest.raises(CallFailed, match="the client was closed"):
        await channel.unary("ModelInfer", b"", 20)


async def test_time_spent_on_connecting_is_part_of_the_calls_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slowly(channel: grpc.aio.Channel, timeout_s: float) -> bool:
        await asyncio.sleep(0.2)
        return True

    monkeypatch.setattr("serving.client.channel.connected", slowly)
    channel = Channel("127.0.0.1:1", {})
    assert 0 < await channel._connect(0.3, "") <= 0.1
    await channel.close()

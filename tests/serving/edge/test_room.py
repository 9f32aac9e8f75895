"""What clients are told when there is no room: too many wait, too many on one connection, a rate used up."""

import asyncio

import httpx
import numpy as np
import pytest

from serving.client import NEVER
from serving.client import Mesh as Client
from serving.errors import QueueFull, RateLimited
from serving.protocol.oip_http import HEADER_LENGTH
from serving.settings import LimitSettings
from tests.serving.edge.conftest import HOST
from tests.serving.edge.guarded import Guarded

ONES = np.ones(1, np.float32)
STREAMS = 7


@pytest.fixture
def settings(settings):
    limits = LimitSettings(open_per_replica=1, waiting_per_model=2, grpc_streams=STREAMS)
    return settings.model_copy(update={"limits": limits})


async def _held(ask):
    """As many requests as there is room for: one runs, two wait."""
    held = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.sleep(0.7)
    return held


async def _dropped(held):
    for each in held:
        each.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_over_http_a_full_queue_says_when_to_come_again(mesh, gateway, replica):
    document = (
        b'{"parameters":{"sleep_s":2.0},"inputs":[{"name":"X","datatype":"FP32","shape":[1],'
        b'"parameters":{"binary_data_size":4}}]}'
    )
    url, headers = f"http://{mesh.http}/v2/models/echo/infer", {HEADER_LENGTH: str(len(document))}
    async with httpx.AsyncClient(timeout=10) as client:
        held = await _held(lambda: client.post(url, content=document + bytes(4), headers=headers))
        answer = await client.post(url, content=document + bytes(4), headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "2 requests for the model wait already (limits.waiting_per_model)"}
        await _dropped(held)
    assert gateway.calls == 0


async def test_over_grpc_a_full_queue_says_when_to_come_again(mesh, gateway, replica):
    async with Client(mesh.grpc, retries=NEVER) as client:
        held = await _held(lambda: client.infer("echo", X=ONES, parameters={"sleep_s": 2.0}))
        with pytest.raises(QueueFull, match=r"limits\.waiting_per_model") as caught:
            await client.infer("echo", X=ONES)
        assert caught.value.retry_after_s == 1
        await _dropped(held)


async def test_an_http2_connection_is_told_how_many_requests_it_may_hold(mesh):
    reader, writer = await asyncio.open_connection(HOST, mesh.ports.grpc)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
    head = await asyncio.wait_for(reader.readexactly(9), 5)
    assert head[3] == 4, "SETTINGS come first"
    settings = await reader.readexactly(int.from_bytes(head[:3], "big"))
    told = {settings[at + 1]: int.from_bytes(settings[at + 2 : at + 6], "big") for at in range(0, len(settings), 6)}
    assert told[3] == STREAMS
    writer.close()


async def test_a_key_over_its_rate_waits_and_is_served(settings, tmp_path):
    mesh = Guarded(settings, tmp_path / "keys.yaml")
    key = mesh.add("slow", rate=2)
    async with mesh.running():
        address = f"{HOST}:{mesh.ports.grpc}"
        async with Client(address, key=key, retries=NEVER) as client:
            with pytest.raises(RateLimited, match="may make 2 requests a second"):
                for _ in range(4):
                    await client.infer("echo", X=ONES)
        async with Client(address, key=key) as client:
            for _ in range(4):
                await client.infer("echo", X=ONES)

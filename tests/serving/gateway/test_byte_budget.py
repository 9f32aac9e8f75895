"""How much the gateway holds of clients' requests at a time."""

import asyncio

import grpc
import pytest

from serving.errors import QueueFull
from serving.gateway.byte_budget import ByteBudget
from tests.serving.gateway.oip_site import open_oip
from tests.serving.gateway.replica import request


def test_what_was_taken_is_given_back_however_the_request_ends():
    budget = ByteBudget(10)
    with pytest.raises(ZeroDivisionError), budget.holding() as held:
        held.take(10)
        raise ZeroDivisionError
    with budget.holding() as held:
        held.take(6)
        with pytest.raises(QueueFull, match=r"limits\.gateway_bytes"), budget.holding() as other:
            other.take(5)
        held.take(4)
    with budget.holding() as held:
        held.take(10)


async def test_a_gateway_that_holds_too_much_refuses_until_there_is_room():
    async with open_oip(["one"], gateway_bytes=10_000) as oip:
        waiting = asyncio.create_task(oip.http.post("/v2/models/silent/infer", content=b" " * 8000))
        async with asyncio.timeout(5):
            while not oip.replicas[0].bodies:  # noqa: ASYNC110 - it happens in a replica
                await asyncio.sleep(0.01)
        for path in ("/v2/models/echo/infer", "/v2/repository/models/echo/load"):
            answer = await oip.http.post(path, content=b" " * 4000)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oip.stub.ModelInfer(request("echo", "x" * 4000))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["retry-after"] == "1"
        assert (await oip.http.post("/v2/models/echo/infer", content=b" " * 1000)).status_code == 200
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5):
            while (await oip.http.post("/v2/models/echo/infer", content=b" " * 9000)).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

"""uvicorn on a port of its own."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serving.backends.http_server import HttpServer
from serving.errors import Unavailable


async def slow(request: Request) -> PlainTextResponse:
    await asyncio.sleep(0.2)
    return PlainTextResponse("done")


APP = Starlette(routes=[Route("/slow", slow)])


async def test_what_is_in_flight_is_finished_on_stop_and_then_the_port_is_closed() -> None:
    server = HttpServer(APP)
    await server.start()
    server.check()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        asked = asyncio.create_task(client.get("/slow"))
        await asyncio.sleep(0.1)
        await server.stop()
        assert (await asked).text == "done"
        with pytest.raises(httpx.ConnectError):
            await client.get("/slow")
    with pytest.raises(Unavailable, match="has ended"):
        server.check()


async def test_a_server_that_was_never_started_gives_its_port_back() -> None:
    server = HttpServer(APP, name="the test server")
    port = server.port
    await server.stop()
    with pytest.raises(Unavailable, match="the test server has ended"):
        server.check()
    again = HttpServer(APP, port=port)
    await again.stop()

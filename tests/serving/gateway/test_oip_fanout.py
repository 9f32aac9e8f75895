"""One call to every control port: who did it, whom it does not concern, who failed."""

import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.backends.http_server import HttpServer
from serving.errors import BadInput, EngineFailed, NotFound, Unavailable
from serving.gateway.oip_fanout import Answer, Fanout, sorted_answers
from serving.protocol.control import TOKEN_HEADER, Control
from serving.protocol.endpoint import Heartbeat


def beat(name, address="127.0.0.1:9"):
    return Heartbeat(replica_id=name, endpoints=[], control=Control(address=address, token=f"token-{name}"))


ANSWERS = {
    "/good": JSONResponse({"a": 1}),
    "/empty": Response(),
    "/nonsense": Response(b"<html>"),
    "/refused": JSONResponse({"error": "no memory"}, 400),
    "/unknown": JSONResponse({"error": "who?"}, 404),
    "/broken": Response(b"<html>", 502),
    "/long": JSONResponse({"error": "x" * 5000}, 400),
}


@pytest.fixture
async def replica():
    tokens = []

    async def answer(request):
        tokens.append(request.headers[TOKEN_HEADER])
        return ANSWERS[request.url.path]

    server = HttpServer(Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path in ANSWERS]))
    await server.start()
    yield beat("one", f"127.0.0.1:{server.port}"), tokens
    await server.stop()


@pytest.fixture
async def fanout():
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Fanout(client)


CASES = {
    "/good": ("done", {"a": 1}, None, ""),
    "/empty": ("done", None, None, ""),
    "/nonsense": ("failed", None, EngineFailed, "nonsense"),
    "/refused": ("failed", None, BadInput, "no memory"),
    "/unknown": ("aside", None, NotFound, "who?"),
    "/broken": ("failed", None, EngineFailed, "the replica answered 502"),
    "/long": ("failed", None, BadInput, "x" * 253 + "..."),
}


@pytest.mark.parametrize(("path", "case"), CASES.items(), ids=CASES.keys())
async def test_answers_are_told_apart(fanout, replica, path, case):
    kind, document, error, problem = case
    found = await fanout.ask([replica[0], Heartbeat(replica_id="no-control", endpoints=[])], path, {}, 5)
    [answer] = getattr(found, kind)
    assert answer.document == document
    assert error is None or type(answer.error) is error
    assert problem in str(answer.error)
    assert replica[1] == ["token-one"]


async def test_a_replica_that_cannot_be_reached_or_is_silent_has_failed(fanout):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes the connection, nobody answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = await fanout.ask([beat("gone"), beat("silent", address)], "/good", None, 0.2)
    assert [type(answer.error) for answer in found.failed] == [Unavailable, Unavailable]


def test_one_failure_among_many_is_counted_and_the_rest_is_told():
    answers = sorted_answers([Answer(beat("a")), Answer(beat("b"), error=BadInput("no memory", field="f"))])
    problem = answers.problem("load 'm'", "the others serve it")
    assert isinstance(problem, BadInput)
    assert str(problem) == "f: 1 of 2 replicas failed to load 'm' (b): no memory; the others serve it"
    assert sorted_answers([Answer(beat("a"))]).problem("load", "") is None

"""Relay: passes one HTTP request on to a replica and its answer back as it comes; used by the gateway's OIP routes.

The one invariant: whoever goes away, client or replica, the other side learns it at once, and nothing is left open.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Final, TypeVar

import httpx
from fastapi import Request, Response
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from serving.errors import Cancelled, Unavailable
from serving.gateway.oip_mesh import TRIES, Find
from serving.gateway.oip_refusal import no_answer
from serving.protocol.licences import USE_HEADER
from serving.protocol.oip_errors import error_body

T = TypeVar("T")

FORWARDED: Final = ("content-type", "accept-encoding", "accept", "inference-header-content-length", USE_HEADER)
RETURNED: Final = (
    "content-type", "content-encoding", "content-length", "inference-header-content-length", "retry-after",
)  # fmt: skip
CONNECT_S: Final = 1.0
EVENTS: Final = "text/event-stream"
_WHOLE_BYTES: Final = 1 << 20
"""An answer up to this length is read whole before a byte of it is passed on: a replica's end in it is a clean 503."""


class Relay:
    """Passes requests on.

    Args:
        client: for the calls.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, request: Request, find: Find, path: str, body: bytes, patience_s: float) -> Response:
        """The replica's answer; one that cannot be reached has not seen the request, so another is asked.

        Args:
            request: the client's, whose body has been read.
            find: finds where it goes.
            path: OIP's path, quoted.
            body: plain.
            patience_s: how long the replica may be silent.

        Raises:
            Unavailable: no replica answers, or there are too many connections to them.
            Cancelled: the client went away first.
        """
        headers = {name: value for name in FORWARDED if (value := request.headers.get(name)) is not None}
        timeout = httpx.Timeout(patience_s, connect=CONNECT_S, pool=CONNECT_S)
        tried: set[str] = set()
        while True:
            replica = await find(tried)
            url = f"http://{replica.http}{path}"
            asked = self._client.build_request(request.method, url, headers=headers, content=body, timeout=timeout)
            try:
                return await unless_gone(self._answer(asked), request.receive)
            except httpx.PoolTimeout as error:
                raise Unavailable("the gateway has no free connection", fix="try again in a moment") from error
            except httpx.HTTPError as error:
                unseen = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not unseen or replica.grpc in tried or len(tried) + 1 >= TRIES:
                    raise no_answer(f"the replica of the model '{replica.model}'", error) from error
                tried.add(replica.grpc)

    async def _answer(self, asked: httpx.Request) -> Response:
        answer = await self._client.send(asked, stream=True)
        headers = {name: value for name in RETURNED if (value := answer.headers.get(name)) is not None}
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) <= _WHOLE_BYTES:
            try:
                # Raw, since the header that names the compression is passed on too.
                content = b"".join([piece async for piece in answer.aiter_raw()])
            finally:
                await answer.aclose()
            return Response(content, answer.status_code, headers)
        return RelayedResponse(answer, headers)


class RelayedResponse(Response):
    """An answer passed on piece by piece; the replica's is closed when the client goes away.

    Args:
        answer: an open answer, not read yet.
        headers: to pass on.
    """

    def __init__(self, answer: httpx.Response, headers: Mapping[str, str]) -> None:
        self.status_code = answer.status_code
        self.background = None
        self.body = b""
        self._answer = answer
        # Without a length of its own, which Response would count from an empty body.
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; ends quietly when the client goes away."""
        try:
            await unless_gone(self._pass_on(send), receive)
        except Cancelled:
            return
        finally:
            await self._answer.aclose()

    async def _pass_on(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            if not self._answer.headers.get("content-type", "").startswith(EVENTS):
                raise  # the server can only cut the answer off
            yield b"data: " + to_json(error_body(no_answer("the replica", error))) + b"\n\n"


async def unless_gone(work: Awaitable[T], receive: Receive) -> T:
    """The work's result; raises :class:`Cancelled`, and cancels the work, when the client disconnects first."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Cancelled("the client went away")
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue

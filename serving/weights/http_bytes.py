"""Files and JSON over HTTP, with ranges; used by the remotes of the hub and of MLflow.

The one invariant: whether trying again may help is decided here, from the status or the kind of failure; no token and
no address with a password ever stands in a message.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import httpx

from serving.errors import BadInput, Forbidden, NotFound, ReelmeshError, Unavailable, foreign_text
from serving.weights.remote import Pieces

MAX_JSON_BYTES: Final = 64 << 20
_MAX_REDIRECTS: Final = 8
_RETRYABLE: Final = frozenset({408, 409, 425, 429})
_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")


class HttpFiles:
    """A client with bounds.

    Args:
        where: what errors call the server, for example ``the hub``.
        headers: sent to the host that is asked, and to no other one that it redirects to.
        timeout_s: on connecting, and on silence.
    """

    def __init__(self, where: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self.where = where
        self._client = httpx.Client(
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout_s,
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
        )

    def json(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A JSON object; raises as :meth:`open`, and :class:`Unavailable` for what is none."""
        with self._answer(url, {}, params) as answer:
            return parse_object(_bounded(answer, self.where), self.where)

    @contextlib.contextmanager
    def open(self, url: str, offset: int) -> Iterator[Pieces]:
        """The bytes of a file from an offset on.

        Raises:
            Unavailable: no connection, a cut one, silence, or a status that may pass.
            Forbidden: 401, 403.
            NotFound: 404, 410.
            BadInput: any other refusal.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._answer(url, headers) as answer:
            begin = 0
            if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
                begin = _begin(answer.headers.get("content-range", ""), offset)
            yield Pieces(begin, self._pieces(answer))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextlib.contextmanager
    def _answer(
        self, url: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        try:
            with self._client.stream("GET", url, headers=headers, params=params) as answer:
                if answer.status_code >= HTTPStatus.BAD_REQUEST:
                    raise refusal(answer.status_code, self.where)
                yield answer
        except httpx.InvalidURL as error:
            raise BadInput(f"the address of {self.where} is no URL", field="weights", fix="correct it") from error
        except httpx.UnsupportedProtocol as error:
            raise BadInput(f"{self.where} is not reached by http", field="weights", fix="correct its URL") from error
        except httpx.HTTPError as error:
            raise Unavailable(
                f"{self.where} cannot be reached: {type(error).__name__} {foreign_text(error)}"
            ) from error

    def _pieces(self, answer: httpx.Response) -> Iterator[bytes]:
        try:
            # As they come: whole pieces would be lost with the connection that brought half of one.
            yield from answer.iter_raw()
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.where} cut off: {type(error).__name__} {foreign_text(error)}") from error


def refusal(status: int, where: str) -> ReelmeshError:
    """The error for an HTTP status of 400 and more."""
    if status in _RETRYABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unavailable(f"{where} answered {status}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Forbidden(f"{where} answered {status}", fix="give a token that may read it (docs/weights.md)")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return NotFound(f"{where} answered {status}: there is no such file or model", fix="correct source.uri")
    return BadInput(f"{where} answered {status}", field="source.uri", fix="correct the address")


def parse_object(body: bytes, where: str) -> dict[str, Any]:
    """A JSON object; :class:`Unavailable` for anything else, since a proxy in between may say anything for a while."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"{where} did not answer with JSON") from error
    if not isinstance(told, dict):
        raise Unavailable(f"{where} did not answer with a JSON object")
    return told


def _bounded(answer: httpx.Response, where: str) -> bytes:
    body = bytearray()
    for piece in answer.iter_raw():
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise BadInput(f"{where} answered with over {MAX_JSON_BYTES} bytes", field="source.uri", fix="correct it")
    return bytes(body)


def _begin(content_range: str, offset: int) -> int:
    found = _RANGE.fullmatch(content_range)
    begin = int(found[1]) if found else -1
    if begin != offset:
        raise Unavailable(f"bytes from {offset} on were asked for, {foreign_text(content_range)!r} came")
    return begin

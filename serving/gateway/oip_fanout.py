"""Fanout: one call of the control plane to every replica's control port, and what to make of the answers.

The one invariant: every replica is asked once, and every answer is told apart: done, not concerned, or failed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import structlog
from pydantic import JsonValue
from pydantic_core import to_json

from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, Unsupported, foreign_text
from serving.gateway.oip_refusal import no_answer, refusal
from serving.protocol.control import TOKEN_HEADER
from serving.protocol.endpoint import Heartbeat
from serving.protocol.oip_json import parse_json

log = structlog.get_logger()

_CONNECT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one replica said: a document, or an error."""

    replica: Heartbeat
    document: JsonValue = None
    error: ReelmeshError | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What all replicas said.

    Args:
        done: those that did it.
        failed: those that should have and did not.
        aside: those it does not concern: they do not know the model, or do not have the feature.
    """

    done: tuple[Answer, ...] = ()
    failed: tuple[Answer, ...] = ()
    aside: tuple[Answer, ...] = ()

    def problem(self, what: str, rest: str) -> ReelmeshError | None:
        """The error that tells who failed; None when nobody did.

        Args:
            what: what was asked, for example ``load 'm'``.
            rest: what stands now at the replicas that did it.
        """
        if not self.failed:
            return None
        first = self.failed[0].error or EngineFailed("gave no answer")
        if not self.done and len({str(answer.error) for answer in self.failed}) == 1:
            return first  # in the replica's own words, which are Triton's
        count = f"{len(self.failed)} of {len(self.failed) + len(self.done)} replicas failed to {what}"
        names = ", ".join(answer.replica.replica_id for answer in self.failed)[:200]
        tail = f"; {rest}" if self.done else ""
        return type(first)(f"{count} ({names}): {first.problem}{tail}", field=first.field, fix=first.fix)


def sorted_answers(answers: Sequence[Answer]) -> Answers:
    """Tell the answers apart."""
    aside = tuple(answer for answer in answers if isinstance(answer.error, NotFound | Unsupported))
    failed = tuple(answer for answer in answers if answer.error is not None and answer not in aside)
    return Answers(tuple(answer for answer in answers if answer.error is None), failed, aside)


class Fanout:
    """Asks replicas.

    Args:
        client: for the calls; it must not use a proxy.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(
        self, replicas: Sequence[Heartbeat], path: str, body: Mapping[str, JsonValue] | None, patience_s: float
    ) -> Answers:
        """Send one call to all of them at once.

        Args:
            replicas: those with a control port are asked.
            path: OIP's path, quoted.
            body: its JSON; None sends a GET.
            patience_s: how long one may take.
        """
        # A load may carry a model's files.
        content = None if body is None else await asyncio.to_thread(to_json, body)
        asked = [replica for replica in replicas if replica.control is not None]
        return sorted_answers(
            await asyncio.gather(*(self._one(replica, path, content, patience_s) for replica in asked))
        )

    async def _one(self, replica: Heartbeat, path: str, content: bytes | None, patience_s: float) -> Answer:
        assert replica.control is not None  # noqa: S101 - ask() chose it
        url = f"http://{replica.control.address}{path}"
        timeout = httpx.Timeout(patience_s, connect=_CONNECT_S, pool=_CONNECT_S)
        headers = {TOKEN_HEADER: replica.control.token, "content-type": "application/json"}
        try:
            answer = await self._client.request(
                "GET" if content is None else "POST", url, content=content, headers=headers, timeout=timeout
            )
        except httpx.HTTPError as error:
            log.warning("control_call_failed", replica=replica.replica_id, path=path[:256], error=foreign_text(error))
            return Answer(replica, error=no_answer("the replica", error))
        return _read(replica, answer)


def _read(replica: Heartbeat, answer: httpx.Response) -> Answer:
    if not answer.is_success:
        return Answer(replica, error=refusal(answer))
    try:
        return Answer(replica, parse_json(answer.content, "answer") if answer.content.strip() else None)
    except BadInput as error:
        return Answer(replica, error=EngineFailed(f"the replica answered nonsense: {error}"))

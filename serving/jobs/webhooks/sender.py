"""WebhookSender: sends what is due to webhooks; one runs in every gateway with jobs.

The one invariant: a delivery leaves `waiting` only by the outcome of a try, so a gateway that dies between its claim
and the answer leaves it to be tried again: a webhook is told at least once, with the same id each time.
"""

import asyncio
import datetime
import random
import time
from collections import Counter
from typing import Final

import httpx
import structlog

from serving.errors import BadInput, ReelmeshError, foreign_text
from serving.jobs.database import Database
from serving.jobs.webhooks.deliveries import Claimed, Deliveries
from serving.jobs.webhooks.policy import DeliveryState, Outcome, retry_after_s, verdict
from serving.jobs.webhooks.secrets import Secrets, headers
from serving.net import AddressRules, GuardedTransport
from serving.protocol.oip_metadata import server_version
from serving.settings import WebhookSettings
from serving.telemetry import WEBHOOK_TRIES

log = structlog.get_logger()

GRACE_S: Final = 10.0
"""A claim outlasts the longest try by this much."""
_READ_BYTES: Final = 512
"""Read of an answer, for the problem that people see."""
_OK: Final = range(200, 300)


class WebhookSender:
    """Sends deliveries until it is closed.

    Args:
        database: opened, with its tables made.
        settings: of webhooks.
        secrets: opened.
        grace_s: how long after its bound a try counts as lost with its gateway.
    """

    def __init__(
        self, database: Database, settings: WebhookSettings, secrets: Secrets, *, grace_s: float = GRACE_S
    ) -> None:
        self._deliveries = Deliveries(database)
        self._settings = settings
        self._secrets = secrets
        self._lease_s = settings.timeout_s + grace_s
        rules = AddressRules(allow_private=settings.allow_private, allowed_hosts=settings.allowed_hosts)
        # The bound on a whole try is kept around the request: httpx's own are per read.
        self._http = httpx.AsyncClient(
            transport=GuardedTransport(rules, "webhook.url"),
            timeout=None,  # noqa: S113
            follow_redirects=False,
            headers={"User-Agent": f"Reelmesh/{server_version()}", "Content-Type": "application/json"},
        )
        self._sending: dict[asyncio.Task[None], str] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for what is due."""
        self._loop = asyncio.create_task(self._run(), name="webhook-sender")

    async def close(self) -> None:
        """Stop; what is being sent is left to whoever claims it next."""
        tasks = [task for task in (self._loop, *self._sending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def _run(self) -> None:
        while True:
            try:
                claimed = await self._claim()
            except Exception:
                # Whatever a database that is away raises, the next look may find it back.
                log.exception("webhook_claim_failed")
                claimed = 0
            if not claimed:
                await self._pause()

    async def _pause(self) -> None:
        """Until it is time to look again: a host that had enough on its hands may have room once one was sent."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=self._settings.poll_s, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(self._settings.poll_s)

    async def _claim(self) -> int:
        """Start to send what is due, as far as there is room; how many there were."""
        room = self._settings.parallel - len(self._sending)
        if room <= 0:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            return 1
        # One host that answers slowly must not hold up the others.
        busy, per_host = Counter(self._sending.values()), self._settings.parallel_per_host
        claimed = await self._deliveries.claim(lease_s=self._lease_s, limit=room, busy=busy, per_host=per_host)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.id}")
            self._sending[task] = delivery.host
            task.add_done_callback(self._sent)
        return len(claimed)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The claim runs out, and the delivery is tried again.
            log.error("webhook_try_failed", task=task.get_name(), error=foreign_text(error))

    async def _deliver(self, delivery: Claimed) -> None:
        outcome = await self._try(delivery)
        age = time.time() - delivery.event_at
        what = verdict(outcome, tries=delivery.tries, age_s=age, settings=self._settings, chance=random.random())
        if not await self._deliveries.settle(delivery, what, outcome.problem):
            return
        WEBHOOK_TRIES.labels(what.state).inc()
        if what.state is not DeliveryState.SENT:
            level = log.warning if what.state is DeliveryState.DEAD else log.info
            level("webhook_not_delivered", id=delivery.id, state=what.state, tries=delivery.tries,
                  problem=outcome.problem)  # fmt: skip

    async def _try(self, delivery: Claimed) -> Outcome:
        signers = await self._secrets.signers(delivery.tenant)
        if not signers:
            return Outcome(problem="no secret is kept for the tenant")
        signed = headers(signers, delivery.id, datetime.datetime.now(tz=datetime.UTC), delivery.body)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._post(delivery, signed)
        except TimeoutError:
            return Outcome(problem=f"no answer within {self._settings.timeout_s:g} s")
        except ReelmeshError as error:
            return Outcome(problem=foreign_text(error), final=isinstance(error, BadInput))
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
            return Outcome(problem=foreign_text(f"{type(error).__name__}: {error}"))

    async def _post(self, delivery: Claimed, signed: dict[str, str]) -> Outcome:
        async with self._http.stream("POST", delivery.url, content=delivery.body.encode(), headers=signed) as answer:
            if answer.status_code in _OK:
                return Outcome(answer.status_code)
            text = await _beginning(answer)
            pause = retry_after_s(answer.headers.get("Retry-After"))
            problem = foreign_text(f"answered {answer.status_code}: {text}".rstrip(": "))
            return Outcome(answer.status_code, problem, retry_after_s=pause)


async def _beginning(answer: httpx.Response) -> str:
    """The first bytes of an answer as they came, unpacked by nobody."""
    kept = b""
    async for piece in answer.aiter_raw():
        kept += piece[: _READ_BYTES - len(kept)]
        if len(kept) >= _READ_BYTES:
            break
    return "".join(char if char.isprintable() else " " for char in kept.decode("utf-8", "replace")).strip()

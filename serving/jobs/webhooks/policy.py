"""What is sent to a webhook, when it is tried again and when it is given up; pure, used by the sender and its store.

The one invariant: a delivery ends. Each try is counted before it is made, tries and age are bounded, and what an
answer says can only lengthen a pause up to the bound.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from serving.jobs.types import JobState
from serving.settings import WebhookSettings

EVENTS: Final = tuple(f"job.{state}" for state in JobState if state is not JobState.SUBMITTED)
"""What can be asked for: ``job.`` and the state that the job has come to."""

GROWTH: Final = 4.0
"""Each pause is this many times the one before."""
LONGEST_PAUSE_S: Final = 6 * 3600.0
JITTER: Final = 0.2
"""Pauses are up to this part longer or shorter, so that what failed together is not tried together."""
MAX_FILES: Final = 64
"""Files listed in one message; the job's address has them all."""
_GONE: Final = 410
_OK: Final = range(200, 300)


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try went.

    Args:
        status: of the answer; None when there was none.
        problem: why it failed, for people; None when it did not.
        final: another try would fail as well: the address is not allowed.
        retry_after_s: what the receiver asked for.
    """

    status: int | None = None
    problem: str | None = None
    final: bool = False
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a delivery: its state and, while it waits, the pause before the next try."""

    state: DeliveryState
    pause_s: float = 0.0


def pause_s(tries: int, settings: WebhookSettings, chance: float) -> float:
    """Seconds after the ``tries``-th try; ``chance`` is from 0 to 1."""
    # The exponent is bounded before the power is taken, since it may not fit into a float otherwise.
    plain = min(LONGEST_PAUSE_S, settings.retry_s * GROWTH ** min(tries - 1, 32))
    return plain * (1 - JITTER + 2 * JITTER * chance)


def verdict(outcome: Outcome, *, tries: int, age_s: float, settings: WebhookSettings, chance: float) -> Verdict:
    """What becomes of a delivery after a try.

    Args:
        outcome: how the try went.
        tries: made so far, this one among them.
        age_s: since the event.
        settings: bounds on tries and age.
        chance: from 0 to 1, for the jitter.
    """
    if outcome.status is not None and outcome.status in _OK:
        return Verdict(DeliveryState.SENT)
    if outcome.status == _GONE:
        return Verdict(DeliveryState.GONE)
    pause = max(pause_s(tries, settings, chance), min(outcome.retry_after_s, LONGEST_PAUSE_S))
    if outcome.final or tries >= settings.tries or age_s + pause > settings.max_age_s:
        return Verdict(DeliveryState.DEAD)
    return Verdict(DeliveryState.WAITING, pause)


def retry_after_s(header: str | None) -> float:
    """``Retry-After`` in seconds; 0 where it is missing, a date or nonsense."""
    text = (header or "").strip()
    return min(float(text), LONGEST_PAUSE_S) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0  # noqa: PLR2004


def message(event: str, row: Mapping[str, Any]) -> str:
    """The body of a delivery: Standard Webhooks' ``type``, ``timestamp`` and ``data``.

    The same at every try: it holds what the event says, and of the job only what no longer changes.

    Args:
        event: its type, ``job.completed`` for example.
        row: ``job_id``, ``job_type``, ``title``, ``created_at``, ``parent_id``, ``seq``, ``at``, ``state``,
            ``progress``, ``reason``, ``error`` and ``output`` of the event and its job.
    """
    at = datetime.datetime.fromtimestamp(row["at"], tz=datetime.UTC)
    data: dict[str, Any] = {
        "id": row["job_id"],
        "type": row["job_type"],
        "title": row["title"],
        "state": row["state"],
        "progress": row["progress"],
        "seq": row["seq"],
        "reason": row["reason"],
        "created_at": row["created_at"],
        "parent_id": row["parent_id"],
        "url": f"/v1/jobs/{row['job_id']}",
    }
    if row["state"] == JobState.FAILED:
        data["error"] = row["error"]
    if row["state"] == JobState.COMPLETED:
        data["files"] = dict(list(((row["output"] or {}).get("files") or {}).items())[:MAX_FILES])
    told = {"type": event, "timestamp": at.isoformat().replace("+00:00", "Z"), "data": data}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))

"""Tables of the jobs database and the one way to change a job's row; used by store, journal and membership.

The one invariant: a job's row never changes without an event beside it in the same transaction, and the row's
counter numbers the events, so a job's history has no gaps and no two events share a number.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy as sa

from serving.errors import plain_text
from serving.jobs.states import sources_of
from serving.jobs.types import JobState
from serving.protocol.licences import COMMERCIAL

MAX_ID_CHARS: Final = 40
MAX_TITLE_CHARS: Final = 120
MAX_TENANT_CHARS: Final = 64
ANYBODY: Final = "anybody"
"""The tenant of jobs that came without a key."""

metadata = sa.MetaData()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(MAX_ID_CHARS), primary_key=True),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("title", sa.String(MAX_TITLE_CHARS)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("stage", sa.String(64)),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("taken_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("timeout_s", sa.Float, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("runs", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(128)),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("input", sa.JSON, nullable=False),
    sa.Column("output", sa.JSON),
    sa.Column("error", sa.JSON),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("request_sha256", sa.String(64), nullable=False),
    sa.Column("last_event", sa.Integer, nullable=False),
    sa.Column("tenant", sa.String(MAX_TENANT_CHARS), nullable=False, server_default=ANYBODY),
    sa.Column("predicted_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("cpu_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("gpu_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("deadline_at", sa.Float),
    sa.Column("dead_at", sa.Float),
    sa.Column("parent_id", sa.String(MAX_ID_CHARS)),
    sa.Column("from_stage", sa.String(64)),
    sa.Column("stop_at", sa.String(64)),
    sa.Column("use_cache", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("use", sa.String(16), nullable=False, server_default=COMMERCIAL),
    sa.Column("edits", sa.JSON(none_as_null=True)),
    sa.Column("webhook", sa.JSON(none_as_null=True)),
    sa.Column("source", sa.String(64), nullable=False, server_default="http"),
    sa.Column("message_id", sa.String(255)),
    sa.Index("jobs_by_state", "state", "id"),
    sa.Index("jobs_in_line", "state", "lane", "tenant", "id"),
    sa.Index("jobs_by_worker", "worker"),
    sa.Index("jobs_by_parent", "parent_id"),
    sa.Index("jobs_by_message", "source", "message_id", unique=True),
)

job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(64)),
    sa.Column("stage_state", sa.String(16)),
    sa.Column("parts", sa.Integer),
    sa.Column("parts_done", sa.Integer),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("reason", sa.Text),
)

job_stages = sa.Table(
    "job_stages",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("parts_done", sa.Integer, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("artifacts", sa.JSON, nullable=False),
    sa.Column("replicas", sa.JSON),
    sa.Column("parts_cached", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cpu_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("gpu_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("failed_cpu_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("failed_gpu_s", sa.Float, nullable=False, server_default="0"),
)

stage_results = sa.Table(
    "stage_results",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("stage", sa.String(64), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(64)),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("value_type", sa.String(255)),
    sa.Column("served_by", sa.String(255)),
    sa.Column("replica", sa.String(255)),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float, nullable=False),
    sa.Column("cpu_s", sa.Float, nullable=False),
    sa.Column("gpu_s", sa.Float, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Index("stage_results_by_key", "key", "ended_at"),
)

lane_shares = sa.Table(
    "lane_shares",
    metadata,
    sa.Column("lane", sa.String(16), primary_key=True),
    sa.Column("tenant", sa.String(MAX_TENANT_CHARS), primary_key=True),
    sa.Column("virtual_s", sa.Float, nullable=False),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.String(MAX_ID_CHARS), primary_key=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("event", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("claimed_until", sa.Float),
    sa.Column("last_problem", sa.Text),
    sa.Column("host", sa.String(255), nullable=False, server_default=""),
    sa.Index("deliveries_due", "state", "next_at"),
    sa.Index("deliveries_by_job", "job_id", "seq", unique=True),
)

replies = sa.Table(
    "replies",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("address", sa.JSON, nullable=False),
    sa.Column("told", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Index("replies_by_source", "source", "next_at"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

keepers = sa.Table(
    "keepers",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(128), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)


def change_job(
    connection: sa.Connection,
    job_id: str,
    *,
    kind: str,
    among: Collection[JobState],
    values: Mapping[str, Any],
    event: Mapping[str, Any] | None = None,
    worker: str | None = None,
) -> bool:
    """Update a job's row and append the event that tells of it, if the job is in one of the states ``among``.

    Args:
        connection: inside a transaction.
        job_id: the job.
        kind: of the event: ``state``, ``stage`` or ``progress``.
        among: states in which the change makes sense; with a new state only those count from which a step leads to it.
        values: columns of the job's row.
        event: further columns of the event; state, stage and progress come from the changed row.
        worker: whose job it must be; None for whoever's.

    Returns:
        Whether the row was changed; False means another process was first.
    """
    allowed = set(among)
    if "state" in values:  # whoever asks: no other step is ever taken
        allowed &= set(sources_of(JobState(values["state"])))
    here = [jobs.c.id == job_id, jobs.c.state.in_(sorted(allowed))]
    if worker is not None:
        here.append(jobs.c.worker == worker)
    statement = (
        sa.update(jobs)
        .where(*here)
        .values(last_event=jobs.c.last_event + 1, **values)
        .returning(jobs.c.last_event, jobs.c.state, jobs.c.stage, jobs.c.progress, jobs.c.webhook)
    )
    row = connection.execute(statement).first()
    if row is None:
        return False
    told = {"state": row.state, "stage": row.stage, "progress": row.progress, **(event or {})}
    if (reason := told.get("reason")) is not None:
        told["reason"] = plain_text(reason)
    # As parameters: with values() SQLAlchemy builds the statement anew each time, which takes longer than the insert.
    connection.execute(
        sa.insert(job_events), {"job_id": job_id, "seq": row.last_event, "at": time.time(), "kind": kind, **told}
    )
    if "state" in values:
        note_delivery(connection, job_id, webhook=row.webhook, state=row.state, seq=row.last_event)
    return True


def note_delivery(
    connection: sa.Connection, job_id: str, *, webhook: Mapping[str, Any] | None, state: str, seq: int
) -> None:
    """Have the job's webhook, if any, told of the job's new state; serving.jobs.webhooks sends what is noted here.

    Args:
        connection: inside a transaction.
        job_id: the job.
        webhook: its ``url`` and wanted ``events``; ``gone`` when its receiver wants no more.
        state: the new state.
        seq: number of the event that tells of it.
    """
    if not webhook or webhook.get("gone"):
        return
    event, wanted = f"job.{state}", webhook.get("events")
    if wanted and event not in wanted:
        return
    # The id follows from the event, so that receivers know a second message of it whatever happens.
    values = {"id": f"msg_{job_id}_{seq}", "job_id": job_id, "seq": seq, "event": event}
    new = {"state": "waiting", "tries": 0, "next_at": time.time(), "host": _host_of(str(webhook.get("url", "")))}
    connection.execute(sa.insert(deliveries).values(**values, **new))


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "")[:255]
    except ValueError:  # the sender refuses it at the first try
        return ""

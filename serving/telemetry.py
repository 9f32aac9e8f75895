"""Logs and metrics of the mesh: every process calls set_up_logs once, every metric of ours is declared here.

The one invariant: every metric begins with ``reelmesh_``, and its labels come from bounded sets (model names, states,
routes), never from what a client may write freely.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from structlog.typing import Processor

from serving.exposition import Exposition, merge_expositions
from serving.settings import Settings

__all__ = ["METRICS", "Exposition", "exposition", "job_logs", "merge_expositions", "set_up_logs"]

METRICS: Final = CollectorRegistry()
"""The registry of this process; libraries' own metrics are not in it."""

disable_created_metrics()  # a second series per counter that nobody queries
ProcessCollector(namespace="reelmesh", registry=METRICS)

_CALL_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_JOB_S: Final = (0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600)

# Requests to models, counted where they are answered.
REQUESTS: Final = Counter(
    "reelmesh_requests",
    "Inference requests answered; outcome is ok or the error's code.",
    ["model", "protocol", "outcome"],
    registry=METRICS,
)
REQUEST_SECONDS: Final = Histogram(
    "reelmesh_request_seconds",
    "Time from a request's arrival in a replica to its answer.",
    ["model", "protocol"],
    buckets=_CALL_S,
    registry=METRICS,
)
IN_FLIGHT: Final = Gauge("reelmesh_requests_in_flight", "Requests a replica holds now.", ["model"], registry=METRICS)
QUEUE_DEPTH: Final = Gauge(
    "reelmesh_queue_depth", "Work waiting, by queue (a model, or a lane of jobs).", ["queue"], registry=METRICS
)
MODEL_READY: Final = Gauge(
    "reelmesh_model_ready", "1 while a replica serves the model.", ["model", "backend"], registry=METRICS
)
MODEL_LOAD_SECONDS: Final = Gauge(
    "reelmesh_model_load_seconds", "How long the last load took.", ["model", "backend"], registry=METRICS
)
FALLBACKS: Final = Counter(
    "reelmesh_router_fallbacks",
    "Calls answered by another model than the first choice.",
    ["task", "model", "fallback"],
    registry=METRICS,
)

# The gateway's own routes; route is the template, never the path a client wrote.
HTTP_REQUESTS: Final = Counter(
    "reelmesh_http_requests", "Requests to the gateway.", ["route", "method", "status"], registry=METRICS
)
HTTP_SECONDS: Final = Histogram(
    "reelmesh_http_request_seconds",
    "Time to the gateway's first byte of answer.",
    ["route", "method"],
    buckets=_CALL_S,
    registry=METRICS,
)

# Jobs.
JOBS: Final = Gauge("reelmesh_jobs", "Jobs by type and state.", ["type", "state"], registry=METRICS)
JOBS_FINISHED: Final = Counter(
    "reelmesh_jobs_finished", "Jobs that came to an end, by final state.", ["type", "state"], registry=METRICS
)
JOB_SECONDS: Final = Histogram(
    "reelmesh_job_seconds",
    "Time from a job's submission to its end.",
    ["type", "state"],
    buckets=_JOB_S,
    registry=METRICS,
)
JOB_WAIT_SECONDS: Final = Histogram(
    "reelmesh_job_wait_seconds",
    "Time a job waited before it ran.",
    ["type", "lane"],
    buckets=_JOB_S,
    registry=METRICS,
)
STAGE_SECONDS: Final = Histogram(
    "reelmesh_stage_seconds", "Time one stage took.", ["type", "stage"], buckets=_JOB_S, registry=METRICS
)
STAGE_RETRIES: Final = Counter(
    "reelmesh_stage_retries", "Stages that ran again after a retryable error.", ["type", "stage"], registry=METRICS
)
STAGE_PARTS: Final = Counter(
    "reelmesh_stage_parts",
    "Finished calls of stages, by where their results came from.",
    ["type", "stage", "origin"],
    registry=METRICS,
)

# Intakes; intake is kind and queue, as the settings name them.
INTAKE_MESSAGES: Final = Counter(
    "reelmesh_intake_messages",
    "Messages from brokers: accepted, duplicate or rejected.",
    ["intake", "outcome"],
    registry=METRICS,
)
INTAKE_ANSWERS: Final = Counter(
    "reelmesh_intake_answers",
    "Results given back to brokers: sent, failed (and tried again) or dropped.",
    ["intake", "outcome"],
    registry=METRICS,
)
INTAKE_CONNECTED: Final = Gauge(
    "reelmesh_intake_connected", "1 while the broker answers.", ["intake"], registry=METRICS
)
INTAKE_WAITING: Final = Gauge(
    "reelmesh_intake_waiting", "Messages that wait at the broker.", ["intake"], registry=METRICS
)

# Webhooks.
WEBHOOK_TRIES: Final = Counter(
    "reelmesh_webhook_tries",
    "Tries to deliver to webhooks: sent, waiting (will be tried again), dead or gone.",
    ["outcome"],
    registry=METRICS,
)

# Processes the mesh supervises.
TRITON_RESTARTS: Final = Counter(
    "reelmesh_triton_restarts", "Times tritonserver died and was started again.", registry=METRICS
)
EDGE_ENDPOINTS: Final = Gauge(
    "reelmesh_edge_endpoints", "Addresses the edge routes to, by model; * is the gateway.", ["model"], registry=METRICS
)
EDGE_HEARTBEATS: Final = Counter("reelmesh_edge_heartbeats", "Heartbeats replicas sent.", registry=METRICS)
EDGE_EXPIRED: Final = Counter(
    "reelmesh_edge_expired", "Replicas taken out of the rotation because they fell silent.", registry=METRICS
)
EDGE_CHANGES: Final = Counter(
    "reelmesh_edge_changes", "Commands that changed HAProxy's map or servers while it ran.", registry=METRICS
)
EDGE_RESTARTS: Final = Counter("reelmesh_edge_restarts", "Times HAProxy died and was started again.", registry=METRICS)
EDGE_KEYS: Final = Gauge("reelmesh_edge_keys", "Bearer keys in use.", registry=METRICS)
EDGE_KEY_FILES_REFUSED: Final = Counter(
    "reelmesh_edge_key_files_refused",
    "Times the key file was wrong and the keys read before it stayed.",
    registry=METRICS,
)

# Artifacts.
ARTIFACT_BYTES: Final = Counter(
    "reelmesh_artifact_bytes", "Bytes put into and got from the store.", ["direction"], registry=METRICS
)
ARTIFACTS: Final = Counter(
    "reelmesh_artifacts", "Artifacts put into and got from the store.", ["direction"], registry=METRICS
)
ARTIFACTS_HELD: Final = Gauge(
    "reelmesh_artifacts_held", "Artifacts in the store when the keeper last looked.", registry=METRICS
)
ARTIFACTS_HELD_BYTES: Final = Gauge("reelmesh_artifacts_held_bytes", "Bytes of them.", registry=METRICS)
ARTIFACTS_EXPIRED: Final = Counter(
    "reelmesh_artifacts_expired", "Artifacts removed because no job refers to them any more.", registry=METRICS
)
ARTIFACTS_EXPIRED_BYTES: Final = Counter("reelmesh_artifacts_expired_bytes", "Bytes of them.", registry=METRICS)
JOBS_EXPIRED: Final = Counter(
    "reelmesh_jobs_expired", "Ended jobs removed, by reason: age or held_bytes.", ["reason"], registry=METRICS
)


def exposition() -> str:
    """This process's metrics in Prometheus' text format."""
    return generate_latest(METRICS).decode()


def set_up_logs(settings: Settings | None = None) -> None:
    """Send this process's logs to stderr: one JSON object a line, or coloured lines where a person is watching.

    Call it once in every process, before its first log line; calling it again replaces the set-up. Libraries that log
    through :mod:`logging` are written in the same form, from WARNING up.
    """
    level, style = (settings.log.level, settings.log.style) if settings is not None else ("info", "auto")
    pretty = sys.stderr.isatty() if style == "auto" else style == "pretty"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        # The renderer's own tracebacks print local variables, passwords among them.
        [structlog.dev.ConsoleRenderer(pad_event_to=28, exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _set_up_libraries(shared, last)


def _set_up_libraries(shared: list[Processor], last: list[Processor]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("reelmesh")
    handler.setLevel(logging.WARNING)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == "reelmesh"]:
        root.removeHandler(old)
    root.addHandler(handler)


@contextmanager
def job_logs(job_id: str, stage: str = "") -> Iterator[None]:
    """Put the job and the stage on every log line written inside, in this task and the tasks it starts."""
    bound = {"job_id": job_id, "stage": stage}
    with structlog.contextvars.bound_contextvars(**{key: value for key, value in bound.items() if value}):
        yield

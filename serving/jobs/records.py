"""What is known of a job, its stages and its history: read from the store, sent to clients as JSON.

The one invariant: times are Unix seconds, progress runs from 0 to 1, and a record can be rebuilt from its
JSON.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from serving.errors import ReelmeshError, plain_text
from serving.jobs.states import FINAL
from serving.jobs.types import JobOutput, JobState, Lane
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import COMMERCIAL, Use


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class StageState(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobError(_Record):
    """Why a job failed, in the words a person needs: where, what, and what to do."""

    code: str
    message: str = Field(description="The cause, in one line.")
    stage: str | None = None
    field: str | None = None
    fix: str | None = None
    retryable: bool = False

    @classmethod
    def of(cls, error: ReelmeshError, *, stage: str | None, fix: str | None = None) -> "JobError":
        """From an error of the mesh, and the stage it happened in; ``fix`` is for one that names none."""
        field = error.field if error.field != stage else None
        return cls(
            code=error.code,
            message=plain_text(error.problem),
            stage=stage,
            field=field,
            fix=error.fix or fix,
            retryable=error.retryable,
        )

    def __str__(self) -> str:
        """``stage: field: message: fix``, leaving out what is not known."""
        return ": ".join(part for part in (self.stage, self.field, self.message, self.fix) if part)


class StageRecord(_Record):
    """One stage of one job.

    Attributes:
        parts: how many calls the stage makes, 1 unless it maps over a list; 0 while unknown.
        parts_done: how many of them have finished.
        tries: most tries any of its calls needed, those of the router included.
        parts_cached: how many of the finished ones were not made by this job but taken from an earlier one.
        models: models that served its calls, as ``backend/model``.
        replicas: the replicas that did.
        cpu_s: CPU seconds its calls took where they were done, failed ones too; 0 for what an earlier job made.
        gpu_s: GPU seconds, by the part of a GPU that each model leases.
        artifacts: what the stage made; at most 64 are listed.
    """

    name: str
    state: StageState = StageState.WAITING
    started_at: float | None = None
    ended_at: float | None = None
    parts: int = 0
    parts_done: int = 0
    parts_cached: int = 0
    tries: int = 0
    models: list[str] = []
    replicas: list[str] | None = None
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    artifacts: list[ArtifactRef] = []

    def duration_s(self, now: float) -> float:
        """How long the stage has run by ``now``; 0 before it starts."""
        return 0.0 if self.started_at is None else max(0.0, (self.ended_at or now) - self.started_at)


class JobRecord(_Record):
    """One job.

    Attributes:
        title: the field of that name in the job's input, or the name of the first file in it, if it has either.
        stage: the stage that started last.
        cancel_requested: somebody cancelled the job and the worker has yet to stop it.
        taken_at: when the present run began, from which ``timeout_s`` counts; ``started_at`` is the first run's.
        runs: how often a worker took it up; above 1 after a worker was lost.
        queue_position: 1 for the next job to run; None unless it waits.
        estimated_wait_s: until it starts, from measured times; None unless it waits and they are known.
        tenant: whose job it is.
        source: the way it came: ``http``, or an intake's name.
        dead_at: when it was given up after all its tries; None for any other end.
        cpu_s: CPU seconds of all its stages.
        gpu_s: GPU seconds of all its stages.
        deadline_at: no stage starts that would end later.
        parent_id: the job it was forked from; what that one finished is taken from it.
        from_stage: the first stage that runs anew on a fork; None takes all that the parent finished.
        stop_at: the stage after which the job completes with what it has.
        use_cache: whether results of other jobs may be taken, and this one's be given.
        use: what it is for; commercial work reaches no weights whose licence forbids it.
        edits: merge patches on the parent's results, by stage and part.
    """

    id: str
    type: str
    title: str | None = None
    state: JobState
    lane: Lane
    progress: float = Field(ge=0, le=1)
    stage: str | None = None
    created_at: float
    started_at: float | None = None
    taken_at: float | None = None
    finished_at: float | None = None
    timeout_s: float
    tries: int
    runs: int = 0
    cancel_requested: bool = False
    queue_position: int | None = None
    estimated_wait_s: float | None = None
    tenant: str = "anybody"
    source: str = "http"
    dead_at: float | None = None
    input: dict[str, JsonValue] = {}
    output: JobOutput | None = None
    error: JobError | None = None
    stages: list[StageRecord] = []
    last_event: int = 0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    deadline_at: float | None = None
    parent_id: str | None = None
    from_stage: str | None = None
    stop_at: str | None = None
    use_cache: bool = True
    use: Use = COMMERCIAL
    edits: dict[str, JsonValue] | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL


class EventRecord(_Record):
    """One line of a job's history; ``seq`` counts from 1 without gaps."""

    job_id: str
    seq: int
    at: float
    kind: str = Field(description="state, stage or progress.")
    state: JobState
    stage: str | None = None
    stage_state: StageState | None = None
    parts: int | None = None
    parts_done: int | None = None
    progress: float
    reason: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether it is the job's last event."""
        return self.kind == "state" and self.state in FINAL


class JobPage(_Record):
    """One page of a listing, newest first; ``next_cursor`` is None on the last."""

    jobs: list[JobRecord]
    next_cursor: str | None = None

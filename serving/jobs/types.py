"""What a graph and the job core know of each other: JobType, Stage, JobContext, JobOutput.

The one invariant: graphs see JobContext alone, so the durable executor behind it can change without touching a graph.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import Use
from serving.protocol.tasks import TaskRequest, TaskResult

R = TypeVar("R", bound=TaskResult)
T = TypeVar("T")


class Lane(StrEnum):
    """A job's priority class, most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class JobState(StrEnum):
    """Where a job stands; serving.jobs.states says which steps between them are allowed."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    PROCESSING = "processing"
    RENDERING = "rendering"
    POST_PROCESSING = "post_processing"
    UPLOADING = "uploading"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobOutput(BaseModel):
    """What a graph returns: named files for people, and facts for machines (measured loudness, durations, checks)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, ArtifactRef]
    facts: dict[str, JsonValue] = {}


@dataclass(frozen=True, slots=True)
class Stage:
    """One named stage of a graph: the state a job is in while it runs, and its part of the progress bar."""

    name: str
    state: JobState
    weight: float = 1.0


class JobContext(Protocol):
    """What a graph may do. Every call is a durable stage: once finished it is never run again for this job.

    Stage names are those of the job type; calling them in a different order on a resumed run is a bug in the graph.
    """

    job_id: str
    use: Use
    artifacts: ArtifactStore

    @property
    def served_by(self) -> Sequence[str]:
        """``backend/model`` of everything that served the job's calls so far, in the order first used."""

    async def run(self, stage: str, request: TaskRequest, result: type[R], *, model: str | None = None) -> R:
        """Run one typed task through the router; ``model`` overrides the task's default model."""

    async def map(
        self, stage: str, requests: Sequence[TaskRequest], result: type[R], *, model: str | None = None
    ) -> list[R]:
        """Run several requests of one task in parallel, each durable by itself; results in the order asked."""

    async def step(self, stage: str, work: Callable[[], Awaitable[T]], *, inputs: object = None) -> T:
        """Run own code (building captions, checking a file) as a durable stage.

        Args:
            stage: its name.
            work: says by its annotation what it returns: a model, a dataclass, or a list or mapping of them.
            inputs: everything the work depends on (JSON, models, dataclasses); with it the result is found again by
                other jobs and forks that have the same. Without, only this job keeps it.
        """


class StoppedEarly(Exception):
    """The stage after which the job was to stop is over; passes through the graph to the worker."""


Graph = Callable[[JobContext, Any], Awaitable[JobOutput]]
"""``async (context, request) -> output``; the request is an instance of the job type's ``request`` model."""
Check = Callable[[Any, ArtifactStore], Awaitable[None]]
"""``async (request, artifacts)``; raises BadInput for what a schema cannot see (an unknown voice, a broken picture)."""


@dataclass(frozen=True, slots=True)
class JobType:
    """A kind of job: its graph, its request and its defaults; registered by graphs.app.

    Args:
        name: as clients write it, for example ``podcast_video``.
        request: pydantic model of the job's ``input``.
        graph: ``async (JobContext, request) -> JobOutput``.
        stages: in the order they run.
        lane: default lane.
        timeout_s: default bound on the run.
        tries: runs before a retryable failure is final.
        check: called by the gateway before a job is accepted, after the request model has passed.
        predict: seconds of CPU and GPU a request will take; None takes the mean of earlier jobs of the type.
        models: the models that a request will ask, by task, None for the task's first: those whose licence forbids the
            job's use refuse it before it is accepted; without it the first stage that asks one does.
    """

    name: str
    request: type[BaseModel]
    graph: Graph
    stages: tuple[Stage, ...]
    lane: Lane = Lane.MEDIUM
    timeout_s: float = 900.0
    tries: int = 2
    check: Check | None = None
    description: str = field(default="", kw_only=True)
    predict: Callable[[Any], float] | None = field(default=None, kw_only=True)
    models: Callable[[Any], Mapping[str, str | None]] | None = field(default=None, kw_only=True)

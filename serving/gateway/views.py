"""Jobs as clients see them: the record with addresses; used by the routes for jobs and by the pages.

The one invariant: a view adds addresses to what the store knows and changes nothing.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, JsonValue

from serving.artifacts.store import ArtifactStore
from serving.jobs.records import EventRecord, JobRecord
from serving.jobs.types import JobType
from serving.protocol.artifact import ArtifactRef


class ArtifactView(ArtifactRef):
    """A result and where to get it."""

    url: str = Field(description="Path on this server; answers Range requests.")
    presigned_url: str | None = Field(
        default=None, description="In GET /v1/jobs/{id}, where artifacts lie in S3: their own address, for an hour."
    )


class JobView(JobRecord):
    """A job, with addresses."""

    object: Literal["job"] = "job"
    url: str
    page: str
    progress: float = Field(ge=0, le=100, description="Percent of the work; 100 only when all of it is done.")
    artifacts: dict[str, ArtifactView] = Field(default={}, description="Results by name, once the job is completed.")


class EventView(EventRecord):
    """One line of a job's history, as the event stream tells it."""

    progress: float = Field(ge=0, le=100, description="Percent of the work.")


class JobList(BaseModel):
    """One page of jobs, newest first, without their input, edits and stages."""

    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool
    next_cursor: str | None = Field(description="For the query parameter cursor; null on the last page.")


class StageView(BaseModel):
    """One stage of a job type."""

    name: str
    state: str = Field(description="The state a job is in while the stage runs.")
    weight: float = Field(description="Its part of the progress bar.")


class JobTypeView(BaseModel):
    """What can be submitted."""

    name: str
    description: str
    lane: str
    timeout_s: float
    tries: int
    stages: list[StageView]
    input_schema: dict[str, JsonValue] = Field(
        description="JSON schema of `input`; objects with format `artifact` are files uploaded before."
    )


class JobTypeList(BaseModel):
    """All job types."""

    object: Literal["list"] = "list"
    data: list[JobTypeView]


def job_view(record: JobRecord) -> JobView:
    """A record with its addresses."""
    files = record.output.files if record.output is not None else {}
    return JobView(
        **{**dict(record), "progress": percent(record.progress)},
        url=f"/v1/jobs/{record.id}",
        page=f"/jobs/{record.id}",
        artifacts={name: artifact_view(record.id, name, ref) for name, ref in files.items()},
    )


def event_view(event: EventRecord) -> EventView:
    """An event as the stream tells it."""
    return EventView(**{**dict(event), "progress": percent(event.progress)})


def percent(part: float) -> float:
    """0 to 1 as 0 to 100 with one decimal, rounded down, so that 100 is told only of what is done."""
    return math.floor(part * 1000 + _ROUNDING) / 10


_ROUNDING: Final = 1e-6


def artifact_view(job_id: str, name: str, ref: ArtifactRef) -> ArtifactView:
    """A result with its address."""
    return ArtifactView(**dict(ref), url=f"/v1/jobs/{job_id}/artifacts/{quote(name, safe='')}")


async def with_presigned(view: JobView, artifacts: ArtifactStore) -> JobView:
    """The view, its artifacts with their addresses in S3 if they lie there."""
    urls = {name: await artifacts.presign(each) for name, each in view.artifacts.items()}
    own = {name: each.model_copy(update={"presigned_url": urls[name]}) for name, each in view.artifacts.items()}
    return view.model_copy(update={"artifacts": own})


def job_type_view(job_type: JobType) -> JobTypeView:
    """A job type with its schema."""
    return JobTypeView(
        name=job_type.name,
        description=job_type.description,
        lane=job_type.lane,
        timeout_s=job_type.timeout_s,
        tries=job_type.tries,
        stages=[StageView(name=stage.name, state=stage.state, weight=stage.weight) for stage in job_type.stages],
        input_schema=job_type.request.model_json_schema(),
    )


def job_list(records: Sequence[JobRecord], next_cursor: str | None) -> JobList:
    """A page of a listing."""
    return JobList(
        data=[job_view(record) for record in records], has_more=next_cursor is not None, next_cursor=next_cursor
    )

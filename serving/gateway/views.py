"""Jobs as clients see them: the record with addresses; used by the routes for jobs and by the pages.

The one invariant: a view adds addresses to what the store knows and changes nothing.
"""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, JsonValue

from serving.jobs.records import JobRecord
from serving.jobs.types import JobType
from serving.protocol.artifact import ArtifactRef


class FileView(ArtifactRef):
    """A result file and where to get it."""

    url: str = Field(description="Path on this server; answers Range requests.")


class JobView(JobRecord):
    """A job, with addresses."""

    object: Literal["job"] = "job"
    url: str
    page: str
    files: dict[str, FileView] = Field(default={}, description="Result files by name, once the job is completed.")


class JobList(BaseModel):
    """One page of jobs, newest first, without their input and stages."""

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
        **dict(record),
        url=f"/v1/jobs/{record.id}",
        page=f"/jobs/{record.id}",
        files={name: file_view(record.id, name, ref) for name, ref in files.items()},
    )


def file_view(job_id: str, name: str, ref: ArtifactRef) -> FileView:
    """A result file with its address."""
    return FileView(**dict(ref), url=f"/v1/jobs/{job_id}/files/{quote(name, safe='')}")


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

"""JobDesk: checks a job and has it accepted; every front end (HTTP, and brokers later) hands jobs in here.

The one invariant: everything that can be known to be wrong is refused before a row is written.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput, NotFound
from serving.jobs.input_problems import bad_input
from serving.jobs.records import JobRecord
from serving.jobs.refs import walk_refs
from serving.jobs.store import JobStore, NewJob
from serving.jobs.types import JobType, Lane
from serving.repository.yaml_lines import dotted

MAX_TIMEOUT_S: Final = 24 * 3600.0
MAX_KEY_CHARS: Final = 255


class JobRequest(BaseModel):
    """What a client sends: ``POST /v1/jobs``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(min_length=1, max_length=64, description="A job type of GET /v1/job-types.")
    input: dict[str, JsonValue] = Field(description="The job type's request; its JSON schema is in GET /v1/job-types.")
    lane: Lane | None = Field(default=None, description="Priority class; None takes the job type's own.")
    timeout_s: float | None = Field(
        default=None, gt=0, le=MAX_TIMEOUT_S, description="Bound on the run; None takes the job type's own."
    )


class JobDesk:
    """Takes jobs in.

    Args:
        store: where accepted jobs go.
        catalog: every job type by name.
        artifacts: where files that jobs refer to must be.
    """

    def __init__(self, store: JobStore, catalog: Mapping[str, JobType], artifacts: ArtifactStore) -> None:
        self._store = store
        self._catalog = catalog
        self._artifacts = artifacts

    async def submit(self, request: JobRequest, *, key: str | None = None) -> tuple[JobRecord, bool]:
        """Check a job, write it and put it in line.

        Args:
            request: what the client wants.
            key: an idempotency key; a second request with it gives the first one's job.

        Returns:
            The job, and whether it is new.

        Raises:
            BadInput: names the field and the fix.
            Conflict: the key was used for another request.
            Unavailable: the queue is full.
        """
        job_type = self._catalog.get(request.type)
        if job_type is None:
            raise BadInput(
                f"there is no job type {request.type!r}", field="type", fix=f"one of {', '.join(sorted(self._catalog))}"
            )
        if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
            raise BadInput(f"the key must have 1 to {MAX_KEY_CHARS} characters", field="Idempotency-Key")
        checked = parse_input(job_type, request.input)
        await self._check_artifacts(checked)
        if job_type.check is not None:
            await _checked(job_type, checked, self._artifacts)
        return await self._store.accept(
            NewJob(
                type=job_type.name,
                input=checked.model_dump(mode="json"),
                lane=request.lane or job_type.lane,
                timeout_s=request.timeout_s or job_type.timeout_s,
                tries=job_type.tries,
                stages=[stage.name for stage in job_type.stages],
                request_sha256=request_digest(request),
                idempotency_key=key,
            )
        )

    async def _check_artifacts(self, checked: BaseModel) -> None:
        for path, ref in walk_refs(checked, ("input",)):
            try:
                size = await self._artifacts.size_bytes(ref)
            except NotFound:
                raise BadInput(
                    f"there is no artifact {ref.sha256[:12]}", field=dotted(path), fix="upload it by POST /v1/artifacts"
                ) from None
            if size != ref.size_bytes:
                raise BadInput(
                    f"the artifact has {size} bytes, not {ref.size_bytes}",
                    field=f"{dotted(path)}.size_bytes",
                    fix="send the reference as POST /v1/artifacts answered it",
                )


async def _checked(job_type: JobType, request: BaseModel, artifacts: ArtifactStore) -> None:
    """Run the type's own check, and say which part of the body its fields belong to."""
    if job_type.check is None:
        return
    try:
        await job_type.check(request, artifacts)
    except BadInput as error:
        raise type(error)(
            error.problem, field=f"input.{error.field}" if error.field else "input", fix=error.fix
        ) from error


def parse_input(job_type: JobType, value: Mapping[str, JsonValue]) -> BaseModel:
    """The typed request of a job; raises :class:`BadInput` that names the first wrong fields."""
    try:
        return job_type.request.model_validate(dict(value))
    except ValidationError as error:
        raise bad_input(error, job_type.request, "input") from error


def request_digest(request: JobRequest) -> str:
    """SHA-256 of what the client sent, whatever the order of its keys."""
    canonical = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()

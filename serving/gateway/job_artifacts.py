"""The route that gives a job's results; part of the gateway's application.

The one invariant: the bytes are those whose digest the job's view tells, and never change.
"""

from fastapi import APIRouter, Response

from serving.errors import NotFound
from serving.gateway.caller import Who, seen_job
from serving.gateway.deps import Deps
from serving.gateway.errors import errors
from serving.gateway.files import FILE_ANSWERS, serve_artifact

router = APIRouter(prefix="/v1", tags=["jobs"], responses=errors(404, 422, 503))


@router.head("/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response, responses=FILE_ANSWERS)
async def job_artifact(deps: Deps, who: Who, job_id: str, name: str, download: bool = False) -> Response:
    """A result; answers Range requests, so that players can seek. Where it lies in S3, the answer leads there."""
    record = await seen_job(deps, who, job_id)
    ref = record.output.files.get(name) if record.output is not None else None
    if ref is None:
        known = ", ".join(record.output.files) if record.output is not None else f"the job is {record.state}"
        fix = f"it has: {known}" if record.output else known
        raise NotFound(f"job {record.id} has no artifact {name[:64]!r}", fix=fix)
    return await serve_artifact(deps.artifacts, ref, download=download)

"""Routes that make a new job of an ended one: retry from a stage, with edits, and re-drive; part of the gateway.

The one invariant: the ended job stays as it is; the answer is the new one.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from serving.gateway.bodies import bounded_stream
from serving.gateway.caller import Who, seen_job
from serving.gateway.deps import Deps
from serving.gateway.errors import errors
from serving.gateway.jobs import accepted
from serving.gateway.views import JobView
from serving.jobs.dead import redrive
from serving.jobs.fork import Edits
from serving.protocol.oip_json import parse_object

router = APIRouter(prefix="/v1", tags=["jobs"], responses=errors(403, 404, 409, 422, 429, 503))

_BODY: Final = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{Edits.__name__}"}}},
    }
}


@router.post("/jobs/{job_id}/retry", status_code=202, openapi_extra=_BODY, responses=errors(400, 413))
async def retry_job(
    deps: Deps,
    who: Who,
    request: Request,
    response: Response,
    job_id: str,
    *,
    from_stage: Annotated[
        str | None,
        Query(
            alias="from",
            max_length=64,
            description="Done again from here on; else what did not finish. Not with edits.",
        ),
    ] = None,
    stop_at: Annotated[str | None, Query(max_length=64, description="The last stage to run.")] = None,
) -> JobView:
    """A new job that takes what an ended one finished before the stage. The body may edit its input and results."""
    record = await seen_job(deps, who, job_id)
    who.check_use(record)
    limit = deps.settings.limits.spec_bytes
    body = b"".join([piece async for piece in bounded_stream(request, limit, what="edits")])
    edits = parse_object(body, "body") if body else None
    made = await deps.desk.retry(record.id, from_stage=from_stage, edits=edits, stop_at=stop_at)
    return await accepted(deps, response, made)


@router.post("/jobs/{job_id}/redrive", status_code=202)
async def redrive_job(deps: Deps, who: Who, response: Response, job_id: str) -> JobView:
    """A new job that goes on where a dead letter (`GET /v1/jobs?dead=true`) was given up."""
    record = await seen_job(deps, who, job_id)
    who.check_use(record)
    return await accepted(deps, response, await redrive(record, deps.desk))

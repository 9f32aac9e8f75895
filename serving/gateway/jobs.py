"""Routes for jobs: submit, list, show, cancel; part of the gateway's application.

The one invariant: routes only translate between HTTP and the job desk and store.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response

from serving.gateway.bodies import bounded_body
from serving.gateway.caller import Caller, Who, seen_job
from serving.gateway.deps import Deps, GatewayDeps
from serving.gateway.errors import errors
from serving.gateway.views import JobList, JobTypeList, JobView, job_list, job_type_view, job_view, with_presigned
from serving.gateway.waiting import retry_after_s, until_end, wanted_wait_s
from serving.jobs.records import JobRecord
from serving.jobs.submit import JobRequest, parse_request
from serving.jobs.types import JobState, Lane
from serving.protocol.oip_json import parse_object

router = APIRouter(prefix="/v1", tags=["jobs"], responses=errors(422, 503))

_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{JobRequest.__name__}"}}},
    }
}
_ENDED: Final = 200
_GOES_ON: Final = 202


@router.get("/job-types")
async def job_types(deps: Deps) -> JobTypeList:
    """What can be submitted, with the JSON schema of each input."""
    return JobTypeList(data=[job_type_view(job_type) for job_type in deps.catalog.values()])


@router.post(
    "/jobs",
    status_code=_GOES_ON,
    response_model=JobView,
    openapi_extra=_BODY,
    responses={200: {"model": JobView, "description": "The job has ended."}, **errors(400, 403, 413, 429)},
)
async def submit_job(
    deps: Deps,
    who: Who,
    request: Request,
    response: Response,
    key: Annotated[
        str | None, Header(alias="Idempotency-Key", description="Names the request for 24 hours; 1 to 190 characters.")
    ] = None,
    prefer: Annotated[
        str | None, Header(description="`wait=n`: answer once the job has ended, or after n seconds.")
    ] = None,
) -> JobView:
    """Submit a job. Everything wrong with it is said now; nothing wrong is queued.

    The answer is 202 while the job goes on, with when to ask again, and 200 once it has ended. With an
    Idempotency-Key, the same request sent again within 24 hours gives the same job.
    """
    body = await bounded_body(request, deps.settings.limits.spec_bytes, what="a job")
    wanted = parse_request(parse_object(body, "body"))
    record, created = await deps.desk.submit(wanted, key=key, tenant=who.tenant, bounds=who.bounds)
    if not created:
        response.headers["Idempotent-Replayed"] = "true"
    wait_s = wanted_wait_s(prefer, deps.settings.limits.job_wait_s)
    if wait_s is not None:
        record = await until_end(deps, record, wait_s)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return await accepted(deps, response, record)


async def accepted(deps: GatewayDeps, response: Response, record: JobRecord) -> JobView:
    """A job that was made for the request: 202 and when to ask again, or 200 if it has ended."""
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    response.status_code = _ENDED if record.is_final else _GOES_ON
    if not record.is_final:
        response.headers["Retry-After"] = str(retry_after_s(record))
    return await with_presigned(job_view(record), deps.artifacts)


@router.get("/jobs")
async def list_jobs(
    *,
    deps: Deps,
    who: Who,
    state: Annotated[list[JobState] | None, Query(description="One or more states.")] = None,
    type: Annotated[str | None, Query(pattern="^[a-z0-9_]{1,64}$")] = None,
    lane: Lane | None = None,
    dead: Annotated[bool | None, Query(description="Dead letters alone; or all but them.")] = None,
    parent: Annotated[str | None, Query(pattern="^[0-9a-f]{1,40}$", description="Forks of this job.")] = None,
    tenant: Annotated[
        str | None, Query(pattern="^[A-Za-z0-9._-]{1,64}$", description="For keys that allow control.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9a-f]{1,40}$", description="The last page's `next_cursor`.")
    ] = None,
) -> JobList:
    """Jobs that the caller may see, newest first."""
    page = await deps.store.page(
        states=state or (),
        type_name=type,
        lane=lane,
        tenant=who.only or tenant,
        parent_id=parent,
        dead=dead,
        limit=min(limit, deps.settings.limits.jobs_listed),
        cursor=cursor,
    )
    return job_list(page.jobs, page.next_cursor)


@router.get("/jobs/{job_id}", responses=errors(404))
async def show_job(deps: Deps, who: Who, job_id: str) -> JobView:
    """One job with its stages and their costs, progress, place in the queue and wait, error and artifacts."""
    return await with_presigned(job_view(await seen_job(deps, who, job_id)), deps.artifacts)


@router.post("/jobs/{job_id}/cancel", status_code=_GOES_ON, responses=errors(404, 409))
async def cancel_job(deps: Deps, who: Who, job_id: str) -> JobView:
    """Cancel: a waiting job at once, a working one within two seconds."""
    return await _cancelled(deps, who, job_id)


@router.delete("/jobs/{job_id}", status_code=_GOES_ON, responses=errors(404, 409))
async def delete_job(deps: Deps, who: Who, job_id: str) -> JobView:
    """The same as ``cancel``; what a job made stays until its retention ends."""
    return await _cancelled(deps, who, job_id)


async def _cancelled(deps: GatewayDeps, who: Caller, job_id: str) -> JobView:
    record = await seen_job(deps, who, job_id)
    return job_view(await deps.store.cancel(record.id))

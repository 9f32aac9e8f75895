"""Routes for jobs: submit, list, show, follow, cancel, fetch results; part of the gateway's application.

The one invariant: routes only translate between HTTP and the job desk and store.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from serving.errors import NotFound, Unprocessable
from serving.gateway.bodies import bounded_body
from serving.gateway.deps import Deps, GatewayDeps
from serving.gateway.files import serve_artifact
from serving.gateway.views import JobList, JobTypeList, JobView, job_list, job_type_view, job_view
from serving.jobs.records import EventRecord, JobRecord
from serving.jobs.submit import JobRequest, parse_request
from serving.jobs.types import JobState, Lane
from serving.protocol.oip_json import parse_object

router = APIRouter(prefix="/v1", tags=["jobs"])

_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": JobRequest.model_json_schema()}},
    }
}
_RECONNECT_MS: Final = 1000


@router.get("/job-types")
async def job_types(deps: Deps) -> JobTypeList:
    """What can be submitted, with the JSON schema of each input."""
    return JobTypeList(data=[job_type_view(job_type) for job_type in deps.catalog.values()])


@router.post("/jobs", status_code=202, response_model=JobView, openapi_extra=_BODY)
async def submit_job(
    deps: Deps,
    request: Request,
    response: Response,
    key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> JobView:
    """Submit a job. Everything wrong with it is said now; nothing wrong is queued.

    With an Idempotency-Key, the same request sent again within 24 hours gives the same job.
    """
    body = await bounded_body(request, deps.settings.limits.spec_bytes, what="a job")
    wanted = parse_request(parse_object(body, "body"))
    record, created = await deps.desk.submit(wanted, key=key)
    if not created:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return job_view(record)


@router.get("/jobs")
async def list_jobs(
    deps: Deps,
    state: Annotated[list[JobState] | None, Query(description="One or more states.")] = None,
    type: Annotated[str | None, Query(max_length=64)] = None,
    lane: Lane | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> JobList:
    """Jobs, newest first."""
    bound = min(limit, deps.settings.limits.jobs_listed)
    page = await deps.store.page(states=state or (), type_name=type, lane=lane, limit=bound, cursor=cursor)
    return job_list(page.jobs, page.next_cursor)


@router.get("/jobs/{job_id}")
async def show_job(deps: Deps, job_id: str) -> JobView:
    """One job with its stages, progress, place in the queue, error and files."""
    return job_view(await deps.store.get(job_id))


@router.post("/jobs/{job_id}/cancel", status_code=202)
async def cancel_job(deps: Deps, job_id: str) -> JobView:
    """Cancel: a waiting job at once, a working one within two seconds."""
    return job_view(await deps.store.cancel(job_id))


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Server-sent events up to the job's end."},
        204: {"description": "The job has ended and Last-Event-ID is its last event."},
    },
)
async def job_events(
    deps: Deps,
    job_id: str,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """The job's history and what happens next, as server-sent events; ends with the job.

    Events are named ``state``, ``stage`` or ``progress``. A client that lost the connection sends the id of the last
    event it saw as Last-Event-ID.
    """
    record = await deps.store.get(job_id)
    after = _event_number(last_event_id, record)
    if record.is_final and after >= record.last_event:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(deps, job_id, after), media_type="text/event-stream", headers=headers)


def _event_number(text: str | None, record: JobRecord) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise Unprocessable("must be the id of an event", field="Last-Event-ID", fix="leave it out to hear everything")
    return min(int(text), record.last_event)


async def _stream(deps: GatewayDeps, job_id: str, after: int) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RECONNECT_MS)
    async for events in deps.hub.follow(job_id, after=after):
        yield b"".join(map(_sse, events)) if events else format_sse_event(comment="still here")


def _sse(event: EventRecord) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(), event=event.kind, id=str(event.seq))


@router.head("/jobs/{job_id}/files/{name}", include_in_schema=False)
@router.get("/jobs/{job_id}/files/{name}", response_class=Response)
async def job_file(deps: Deps, job_id: str, name: str, download: bool = False) -> Response:
    """A result file; answers Range requests, so that players can seek."""
    record = await deps.store.get(job_id)
    ref = record.output.files.get(name) if record.output is not None else None
    if ref is None:
        known = ", ".join(record.output.files) if record.output is not None else f"the job is {record.state}"
        raise NotFound(f"job {job_id} has no file {name[:64]!r}", fix=f"it has: {known}" if record.output else known)
    return await serve_artifact(deps.artifacts, ref, download=download)

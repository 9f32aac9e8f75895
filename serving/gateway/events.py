"""The route that tells a job's history as it happens: server-sent events; part of the gateway's application.

The one invariant: a client that comes again with the id of the last event it saw misses none and hears none twice.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from serving.errors import Unprocessable
from serving.gateway.caller import Who, seen_job
from serving.gateway.deps import Deps, GatewayDeps
from serving.gateway.errors import errors
from serving.gateway.views import EventView, event_view
from serving.jobs.records import EventRecord, JobRecord

router = APIRouter(prefix="/v1", tags=["jobs"], responses=errors(404, 422, 503))

_RECONNECT_MS: Final = 1000
_SSE_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["state", "stage", "progress"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": f"#/components/schemas/{EventView.__name__}"},
        },
    },
}


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": _SSE_SCHEMA}},
            "description": "Server-sent events up to the job's end.",
        },
        204: {"description": "The job has ended and Last-Event-ID is its last event."},
    },
)
async def job_events(
    deps: Deps,
    who: Who,
    job_id: str,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20, pattern="^[0-9]*$")] = None,
) -> Response:
    """The job's history and what happens next, as server-sent events; ends with the job.

    Events are named ``state``, ``stage`` or ``progress``. A client that lost the connection sends the id of the last
    event it saw as Last-Event-ID.
    """
    record = await seen_job(deps, who, job_id)
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
    return format_sse_event(data_str=event_view(event).model_dump_json(), event=event.kind, id=str(event.seq))

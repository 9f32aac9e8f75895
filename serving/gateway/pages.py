"""The pages people look at: the list of jobs and one job; part of the gateway's application.

The one invariant: a page is complete as served; its script only keeps it fresh, and everything in it is escaped.
"""

import contextlib
import time
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from serving.errors import NotFound, ReelmeshError
from serving.gateway.caller import Caller, Who, seen_job
from serving.gateway.deps import Deps, GatewayDeps
from serving.gateway.guard import page_policy
from serving.gateway.page_facts import (
    FILTERS,
    bars,
    captions_of,
    checks_of,
    facts_of,
    media_of,
    provenance_of,
    state_class,
)
from serving.gateway.page_text import age_text, bytes_text, clock_text, duration_text, percent_text
from serving.gateway.views import JobView, job_view
from serving.jobs.types import JobState

router = APIRouter(include_in_schema=False)

TEMPLATES: Final = Path(__file__).parent / "templates"
SHOWN_JOBS: Final = 50


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        age=age_text,
        bytes=bytes_text,
        clock=clock_text,
        duration=duration_text,
        percent=percent_text,
        state_class=state_class,
    )
    return environment


async def _page(deps: GatewayDeps, name: str, status: int = 200, **facts: object) -> HTMLResponse:
    text = _environment().get_template(name).render(now=time.time(), **facts)
    store = None
    with contextlib.suppress(ReelmeshError):  # a store that is away costs the page its films, not more
        store = await deps.artifacts.origin()
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": page_policy(store)}
    return HTMLResponse(text, status_code=status, headers=headers)


@router.get("/")
async def index(
    deps: Deps,
    who: Who,
    show: Annotated[str, Query(max_length=16)] = "all",
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{1,40}$")] = None,
) -> HTMLResponse:
    """The list of jobs, newest first."""
    shown = show if show in FILTERS else "all"
    page = await deps.store.page(states=FILTERS[shown].states, tenant=who.only, limit=SHOWN_JOBS, cursor=cursor)
    counts = await _counts(deps, who)
    return await _page(
        deps,
        "index.html",
        jobs=[job_view(record) for record in page.jobs],
        next_cursor=page.next_cursor,
        first_page=cursor is None,
        shown=shown,
        filters=[(name, choice.label, counts[name]) for name, choice in FILTERS.items()],
        busy=counts["running"] + counts["waiting"] > 0,
        job_types=list(deps.catalog.values()),
        media_of=media_of,
    )


@router.get("/jobs/{job_id}")
async def job(deps: Deps, who: Who, request: Request, job_id: str) -> HTMLResponse:
    """One job."""
    try:
        view = job_view(await seen_job(deps, who, job_id))
    except NotFound as error:
        return await _page(deps, "missing.html", status=error.http_status, error=error)
    return await _page(deps, "job.html", **await _job_facts(deps, view), base=str(request.base_url).rstrip("/"))


@router.post("/jobs/{job_id}/cancel")
async def cancel(deps: Deps, who: Who, job_id: str) -> RedirectResponse:
    """The page's cancel button, which also works without script."""
    with contextlib.suppress(ReelmeshError):  # the page says what became of the job
        await deps.store.cancel((await seen_job(deps, who, job_id)).id)
    return RedirectResponse(f"/jobs/{quote(job_id, safe='')}", status_code=303)


async def _counts(deps: GatewayDeps, who: Caller) -> dict[str, int]:
    by_state: dict[JobState, int] = {}
    for (_, state, _), count in (await deps.store.counts(tenant=who.only)).items():
        by_state[state] = by_state.get(state, 0) + count
    return {
        name: sum(count for state, count in by_state.items() if not choice.states or state in choice.states)
        for name, choice in FILTERS.items()
    }


async def _job_facts(deps: GatewayDeps, view: JobView) -> dict[str, Any]:
    media = media_of(view)
    return {
        "job": view,
        "media": media,
        "bars": bars(view, time.time()),
        "checks": checks_of(view),
        "facts": facts_of(view),
        "cues": await captions_of(deps.artifacts, media.captions),
        "provenance": await provenance_of(deps.artifacts, media.provenance),
    }

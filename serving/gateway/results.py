"""The route that shows what a job's stages recorded, which is what an edit changes; part of the gateway.

The one invariant: values are shown as they are recorded, whatever their type.
"""

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, JsonValue

from serving.gateway.caller import Who, seen_job
from serving.gateway.deps import Deps
from serving.gateway.errors import errors
from serving.jobs.results import MAX_LISTED, Origin, Results

router = APIRouter(prefix="/v1", tags=["jobs"], responses=errors(404, 422, 503))


class ResultView(BaseModel):
    """One finished part of a stage."""

    part: int = Field(description="Its number in the stage, from 0; edits name it by this.")
    value: JsonValue = Field(description="What it gave; an edit is a JSON merge patch on it.")
    origin: Origin = Field(description="Made by this job, or taken from the cache, the parent or an edit.")
    served_by: str | None = Field(description="`backend/model`, as `ray/espeak`; null for the pipeline's own code.")
    replica: str | None
    tries: int
    started_at: float = Field(description="Unix seconds.")
    ended_at: float = Field(description="Unix seconds.")
    cpu_s: float
    gpu_s: float


class ResultList(BaseModel):
    """Finished parts of a stage, in order."""

    data: list[ResultView]
    next_after: int | None = Field(description="Give it as `after` for the next ones; null at the end.")


@router.get("/jobs/{job_id}/stages/{stage}/results")
async def list_results(
    deps: Deps,
    who: Who,
    job_id: str,
    stage: Annotated[str, Path(pattern="^[A-Za-z0-9_.-]{1,64}$")],
    *,
    after: Annotated[int, Query(ge=-1, le=10_000, description="Parts with higher numbers.")] = -1,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 20,
) -> ResultList:
    """What the finished parts of a stage gave, who did them and what they cost."""
    record = await seen_job(deps, who, job_id)
    table = Results(deps.store.database, deps.artifacts)
    found = await table.listed(record.id, stage, after=after, limit=limit + 1)
    shown = [
        ResultView.model_validate(
            {"part": part, "value": json.loads(result.value)}
            | {name: getattr(result, name) for name in ResultView.model_fields if name not in {"part", "value"}}
        )
        for part, result in found[:limit]
    ]
    return ResultList(data=shown, next_after=shown[-1].part if len(found) > limit else None)

"""Routes for what was sent to webhooks: list, and send again; part of a gateway with jobs.

The one invariant: a caller sees the deliveries of the jobs that they see, and no address or secret in them.
"""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from serving.errors import NotFound
from serving.gateway.caller import Who, seen_job
from serving.gateway.deps import Deps
from serving.gateway.errors import errors
from serving.jobs.webhooks.deliveries import MAX_LISTED, Deliveries, DeliveryRecord
from serving.jobs.webhooks.policy import DeliveryState

_ID: Final = "^[0-9A-Za-z_]{1,64}$"


class DeliveryList(BaseModel):
    """One page of deliveries, those of the newest job first."""

    object: Literal["list"] = "list"
    data: list[DeliveryRecord]
    has_more: bool
    next_cursor: str | None = Field(description="For the query parameter cursor; null on the last page.")


def deliveries_router(deliveries: Deliveries) -> APIRouter:
    """The routes, on these rows."""
    router = APIRouter(prefix="/v1/deliveries", tags=["webhooks"], responses=errors(404, 422, 503))

    @router.get("")
    async def list_deliveries(
        deps: Deps,
        who: Who,
        state: Annotated[list[DeliveryState] | None, Query(description="One or more states.")] = None,
        job: Annotated[str | None, Query(max_length=40, description="Of one job.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
        cursor: Annotated[str | None, Query(pattern=_ID, description="The last page's `next_cursor`.")] = None,
    ) -> DeliveryList:
        """What was and is to be sent to webhooks; `state=dead` lists what was given up."""
        if job is not None:
            await seen_job(deps, who, job)
        page, further = await deliveries.page(
            job_id=job, tenant=who.only, states=state or (), limit=limit, cursor=cursor
        )
        return DeliveryList(data=page, has_more=further is not None, next_cursor=further)

    @router.post("/{delivery_id}/resend", status_code=202, responses=errors(409))
    async def resend(deps: Deps, who: Who, delivery_id: Annotated[str, Path(pattern=_ID)]) -> DeliveryRecord:
        """Send a delivery again that was sent, is dead or gone; it has all its tries anew."""
        found = await deliveries.get(delivery_id)
        try:
            await seen_job(deps, who, found.job_id)
        except NotFound as error:
            raise NotFound(f"no delivery is called {delivery_id[:40]!r}") from error
        return await deliveries.resend(delivery_id)

    return router

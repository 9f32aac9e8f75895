"""Who asks, and which jobs they may see; used by every route and page that shows or changes jobs.

The one invariant: a job that the caller may not see is answered as one that does not exist.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serving.gateway.deps import GatewayDeps
from serving.jobs.reading import no_such_job
from serving.jobs.records import JobRecord
from serving.jobs.submit import ANY_USE, UseBounds
from serving.jobs.tables import ANYBODY, MAX_TENANT_CHARS
from serving.protocol.keys import KEY_HEADER, grant_of, may
from serving.protocol.licences import COMMERCIAL, use_of


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Args:
        tenant: the name of their key; :data:`serving.jobs.tables.ANYBODY` where the mesh asks for none.
        sees_all: whether jobs of other tenants are theirs too: without keys, and with one that allows ``control``.
        bounds: what their jobs may be for: with a key for commercial work, for that alone.
    """

    tenant: str
    sees_all: bool
    bounds: UseBounds = ANY_USE

    @property
    def only(self) -> str | None:
        """The tenant that listings are bounded to; None for none."""
        return None if self.sees_all else self.tenant

    def check_use(self, record: JobRecord) -> None:
        """Raise :class:`Forbidden` where a job of theirs was for what their key is not any more: a fork would be too.

        Whoever sees all jobs mends those of others, each for what its tenant was allowed.
        """
        if not self.sees_all:
            self.bounds.use_of(record.use)

    def sees(self, record: JobRecord) -> bool:
        """Whether a job is theirs to see and change."""
        return self.sees_all or record.tenant == self.tenant


async def _caller_of(request: Request) -> Caller:  # what is not async, FastAPI runs in a thread
    grant = grant_of(request.headers)
    name = request.headers.get(KEY_HEADER, "")[:MAX_TENANT_CHARS]
    use = use_of(request.headers)
    bounds = UseBounds(use, bound=grant is not None and use == COMMERCIAL)
    return Caller(tenant=name or ANYBODY, sees_all=may(grant, "control"), bounds=bounds)


Who = Annotated[Caller, Depends(_caller_of)]


async def seen_job(deps: GatewayDeps, who: Caller, job_id: str) -> JobRecord:
    """One job with its stages; raises :class:`serving.errors.NotFound` where there is none that the caller sees."""
    record = await deps.store.get(job_id)
    if not who.sees(record):
        raise no_such_job(job_id)
    return record

"""Waiting for a job within a request: ``Prefer: wait=n``, and when to ask again; used by the routes for jobs.

The one invariant: no request waits longer than the bound of the settings, whatever its header says.
"""

import asyncio
import math
import re
from contextlib import aclosing
from typing import Final

from serving.gateway.deps import GatewayDeps
from serving.jobs.records import JobRecord

LONGEST_RETRY_S: Final = 3600
_WAIT: Final = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.ASCII | re.IGNORECASE)


def wanted_wait_s(prefer: str | None, longest_s: int) -> int | None:
    """Seconds that RFC 7240's header asks to wait, at most ``longest_s``; None if it does not, or not readably."""
    for preference in (prefer or "").split(","):
        if found := _WAIT.fullmatch(preference.partition(";")[0].strip()):
            return min(int(found[1]), longest_s)
    return None


def retry_after_s(record: JobRecord) -> int:
    """When to ask again for a job that has not ended: 1 to :data:`LONGEST_RETRY_S`, from the estimate of its wait."""
    return min(LONGEST_RETRY_S, max(1, math.ceil(record.estimated_wait_s or 0)))


async def until_end(deps: GatewayDeps, record: JobRecord, wait_s: float) -> JobRecord:
    """The job once it has ended, or as it stands after ``wait_s`` seconds."""
    if record.is_final or wait_s <= 0:
        return record
    try:
        async with asyncio.timeout(wait_s), aclosing(deps.hub.follow(record.id, after=record.last_event)) as news:
            async for _ in news:
                pass
    except TimeoutError:
        pass
    return await deps.store.get(record.id)

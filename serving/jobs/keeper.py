"""Keeper: removes expired jobs and the artifacts that no job needs, again and again; one at a time in a whole mesh.

The one invariant: only who holds the lease keeps house, and what a pass does not remove the next one will.
"""

import asyncio
import contextlib
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa
import structlog

from serving import telemetry
from serving.artifacts.retention import Needs, Swept, abandon_removals, digest, look, sweep
from serving.artifacts.store import ArtifactStore
from serving.errors import Conflict
from serving.jobs.database import Database
from serving.jobs.expiry import expire, judge, oldest_start, read_stakes
from serving.jobs.tables import keepers
from serving.settings import RetentionSettings

log = structlog.get_logger()

NAME: Final = "retention"
LEASE_S: Final = 60.0
"""How long a keeper that fell silent keeps others from the work."""
_FIRST_S: Final = 60.0
"""The first pass comes this soon after the start, or after a period if that is shorter."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did, or with ``dry_run`` would do.

    Attributes:
        jobs_by_age: ids of jobs removed since they are too old.
        jobs_by_bytes: ids of jobs removed since the artifacts of all jobs together are too large.
        artifacts: how many the store held before.
        artifact_bytes: their size.
        unneeded: SHA-256 of those that no job needs any more; they go a time of grace later.
        removed: SHA-256 of those that went.
        removed_bytes: their size.
    """

    dry_run: bool
    jobs_by_age: list[str]
    jobs_by_bytes: list[str]
    artifacts: int
    artifact_bytes: int
    unneeded: list[str]
    removed: list[str]
    removed_bytes: int

    def as_json(self) -> dict[str, Any]:
        """For people and machines."""
        return asdict(self)


class Keeper:
    """Keeps jobs and artifacts within their bounds.

    Args:
        database: opened, with its tables made.
        artifacts: the store.
        bounds: age, bytes, grace and period.
    """

    def __init__(self, database: Database, artifacts: ArtifactStore, bounds: RetentionSettings) -> None:
        self._database = database
        self._artifacts = artifacts
        self._bounds = bounds
        self._id = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep house from now on."""
        self._task = asyncio.create_task(self._run(), name="keeper")

    async def close(self) -> None:
        """Stop, in the middle of a pass too, and let another keeper take over at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await asyncio.sleep(min(_FIRST_S, self._bounds.period_s))
        while True:
            try:
                await self.pass_once()
            except Conflict:
                telemetry.ARTIFACTS_HELD.set(0)
                telemetry.ARTIFACTS_HELD_BYTES.set(0)
            except Exception:  # a database or a store that is away: the next pass finds the same work
                log.exception("retention_failed")
            await asyncio.sleep(self._bounds.period_s)

    async def pass_once(self, *, dry_run: bool = False) -> Report:
        """One pass; raises :class:`Conflict` while another keeper is at it, which a dry run does not mind."""
        if dry_run:
            return await self._pass(dry_run=True)
        if not await self._lease(LEASE_S):
            raise Conflict("another process is removing what expired", fix="try again in a minute")
        renewing = asyncio.create_task(self._renew())
        work = asyncio.create_task(self._pass(dry_run=False))
        try:
            await asyncio.wait({renewing, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Conflict("this keeper was silent for so long that another one took over")
            return work.result()
        finally:
            for task in (renewing, work):
                task.cancel()
            await asyncio.gather(renewing, work, return_exceptions=True)
            with contextlib.suppress(sa.exc.DBAPIError):
                await self._lease(-1.0)

    async def _renew(self) -> None:
        held = True
        while held:
            await asyncio.sleep(LEASE_S / 4)
            held = await self._lease(LEASE_S)

    async def _lease(self, seconds: float) -> bool:
        """Take or keep the lease; False when somebody else has it."""
        return await self._database.run(lambda connection: _take(connection, self._id, time.time(), seconds))

    async def _pass(self, *, dry_run: bool) -> Report:
        now = time.time()
        holdings = await look(self._artifacts.objects)
        if not dry_run:
            await abandon_removals(self._artifacts.objects, holdings)
        # In this order: a job that ends in between is then seen with its output.
        start = await oldest_start(self._database)
        stakes = await read_stakes(self._database)
        sizes = {digest(sha256): held.size_bytes for sha256, held in holdings.artifacts.items()}
        verdict = await asyncio.to_thread(judge, stakes, sizes, self._bounds, now)
        going = [*verdict.by_age, *verdict.by_bytes]
        gone = set(going if dry_run else await expire(self._database, going))
        digests = {each for stake in stakes if stake.job_id not in gone for each in stake.digests}
        needs = Needs(digests, start)
        swept = await sweep(
            self._artifacts.objects, holdings, needs, now=now, grace_s=self._bounds.grace_s, dry_run=dry_run
        )
        report = Report(
            dry_run=dry_run,
            jobs_by_age=[job_id for job_id in verdict.by_age if job_id in gone],
            jobs_by_bytes=[job_id for job_id in verdict.by_bytes if job_id in gone],
            artifacts=len(holdings.artifacts),
            artifact_bytes=holdings.size_bytes,
            unneeded=swept.marked,
            removed=swept.removed,
            removed_bytes=swept.removed_bytes,
        )
        if not dry_run:
            _tell(report, swept)
        return report


def _take(connection: sa.Connection, holder: str, now: float, seconds: float) -> bool:
    mine = (keepers.c.name == NAME) & ((keepers.c.holder == holder) | (keepers.c.until < now))
    values = {"holder": holder, "until": now + seconds}
    if connection.execute(sa.update(keepers).where(mine).values(**values)).rowcount:
        return True
    if connection.scalar(sa.select(keepers.c.holder).where(keepers.c.name == NAME)) is not None:
        return False
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(keepers).values(name=NAME, **values))
    except sa.exc.IntegrityError:
        return False
    return True


def _tell(report: Report, swept: Swept) -> None:
    telemetry.ARTIFACTS_HELD.set(report.artifacts - len(report.removed))
    telemetry.ARTIFACTS_HELD_BYTES.set(report.artifact_bytes - report.removed_bytes)
    telemetry.ARTIFACTS_EXPIRED.inc(len(report.removed))
    telemetry.ARTIFACTS_EXPIRED_BYTES.inc(report.removed_bytes)
    telemetry.JOBS_EXPIRED.labels("age").inc(len(report.jobs_by_age))
    telemetry.JOBS_EXPIRED.labels("held_bytes").inc(len(report.jobs_by_bytes))
    if report.jobs_by_age or report.jobs_by_bytes or report.removed or report.unneeded:
        log.info(
            "retention",
            jobs=len(report.jobs_by_age) + len(report.jobs_by_bytes),
            unneeded=len(report.unneeded),
            needed_again=len(swept.unmarked),
            removed=len(report.removed),
            removed_bytes=report.removed_bytes,
        )

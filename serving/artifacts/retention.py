"""Retention: removes from the store what no job needs any more; called by serving.jobs.keeper.

The one invariant: bytes are removed only when they were marked a time of grace ago, nobody asked for them since, no
job refers to them now, and every job that is running began after the mark.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from serving.artifacts import marks
from serving.artifacts.cache import PARTIAL
from serving.artifacts.keys import EXPIRING, REMOVING, object_key, read_key
from serving.artifacts.marks import Mark
from serving.artifacts.objects import Objects

SKEW_S: Final = 5.0
"""How far the clocks of the keeper and of the workers may differ."""
_AT_A_TIME: Final = 16
_UNFINISHED_S: Final = 86_400.0
"""Nobody takes this long to write a file."""


def digest(sha256: str) -> int:
    """The first 8 bytes of a digest: what tells artifacts apart here. Two that share them are both kept."""
    return int(sha256[:16], 16)


class Held(NamedTuple):
    """An artifact of the store: the size of its bytes, and whether they are marked."""

    size_bytes: int = 0
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Holdings:
    """What lies in the store.

    Attributes:
        artifacts: by SHA-256.
        removing: removals that a keeper began and did not end.
        partial: keys of files that somebody began to write a day ago and never finished.
    """

    artifacts: Mapping[str, Held]
    removing: Sequence[str]
    partial: Sequence[str] = ()

    @property
    def size_bytes(self) -> int:
        """Of all bytes together."""
        return sum(held.size_bytes for held in self.artifacts.values())


@dataclass(frozen=True, slots=True)
class Needs:
    """What jobs need.

    Attributes:
        digests: of every artifact that a job refers to, see :func:`digest`.
        oldest_start: when the job began that began first of those that have not ended; None while none runs.
    """

    digests: Collection[int]
    oldest_start: float | None = None


@dataclass(slots=True)
class Swept:
    """What a sweep did, or would do: SHA-256 of artifacts that were marked, kept after all, and removed."""

    marked: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    removed_bytes: int = 0


async def look(objects: Objects) -> Holdings:
    """List the store."""
    artifacts: dict[str, Held] = {}
    removing: list[str] = []
    partial: list[str] = []
    async for listed in objects.listed():
        if (key := read_key(listed.key)) is None:
            if f"/{PARTIAL}" in listed.key and listed.written_at < time.time() - _UNFINISHED_S:
                partial.append(listed.key)
            continue
        sha256, beside = key
        known = artifacts.get(sha256, Held())
        if beside == REMOVING:
            removing.append(sha256)
        elif beside == EXPIRING:
            artifacts[sha256] = known._replace(marked=True)
        else:
            artifacts[sha256] = known._replace(size_bytes=listed.size_bytes) if not beside else known
    return Holdings(artifacts, removing, partial)


async def abandon_removals(objects: Objects, holdings: Holdings) -> None:
    """Take away what a keeper left that died in the middle of a removal, and writers in the middle of a file."""
    for key in (*(object_key(sha256, REMOVING) for sha256 in holdings.removing), *holdings.partial):
        await objects.remove(key)


def is_due(mark: Mark, needs: Needs, *, now: float, grace_s: float) -> bool:
    """Whether marked bytes that nobody refers to may go.

    A job that began before the mark may have been told just before that they are here, and hold a reference that it has
    not written down yet; so they wait for it to end.
    """
    began_later = needs.oldest_start is None or mark.marked_at + SKEW_S < needs.oldest_start
    return mark.marked_at + grace_s <= now and began_later


async def sweep(
    objects: Objects, holdings: Holdings, needs: Needs, *, now: float, grace_s: float, dry_run: bool = False
) -> Swept:
    """Mark what nobody needs, unmark what somebody needs again, remove what was marked a time of grace ago.

    Args:
        objects: the store.
        holdings: what lay there, looked at before ``needs``.
        needs: read after ``now``.
        now: Unix seconds.
        grace_s: between mark and removal.
        dry_run: change nothing and tell what would be removed in this sweep and, as marked, in the next.
    """
    swept = Swept()

    async def visit(sha256: str) -> None:
        held = holdings.artifacts[sha256]
        needed = digest(sha256) in needs.digests
        if needed and held.marked:
            await _unless(dry_run, lambda: objects.remove(object_key(sha256, EXPIRING)))
            swept.unmarked.append(sha256)
        elif not needed and not held.marked:
            await _unless(dry_run, lambda: marks.mark(objects, sha256, time.time()))
            swept.marked.append(sha256)
        elif not needed:
            mark = await marks.read_mark(objects, sha256)
            if mark is None or not is_due(mark, needs, now=now, grace_s=grace_s):
                return
            if dry_run or await marks.remove(objects, sha256, mark):
                swept.removed.append(sha256)
                swept.removed_bytes += held.size_bytes

    await _each(holdings.artifacts, visit)
    return swept


async def _unless(dry_run: bool, work: Callable[[], Awaitable[None]]) -> None:
    if not dry_run:
        await work()


async def _each(items: Collection[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Do the work for each item, a few at a time."""
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_AT_A_TIME, len(items))):
            group.create_task(lane())

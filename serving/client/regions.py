"""Shared-memory regions that a server on this machine knows, pooled; used by serving.client.mesh.

A region is registered once and serves many calls. The one invariant: a region is in at most one call's hands, and one
whose call did not end well is never used again, since the server may still write to it.
"""

import asyncio
import contextlib
import ctypes
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from serving.client.segments import Segment, remove_stale, stale_names
from serving.errors import ReelmeshError, Unavailable

log = structlog.get_logger()

SMALLEST_BYTES: Final = 4 << 20
"""Regions come in powers of two from here."""
MOST_BYTES: Final = 1 << 30
"""All regions of one client together; calls beyond it send their tensors by gRPC."""
REFUSED_S: Final = 60.0
"""How long a server that refused a region is not asked again."""
CALL_S: Final = 5.0
FORGET_TRIES: Final = 30
"""A region in use cannot be unregistered; tried again, at most a second apart."""


class RegionServer(Protocol):
    """What the pool needs of a server; each raises :class:`ReelmeshError`."""

    async def register(self, name: str, size: int, timeout_s: float) -> None:
        """Map the segment of this name under this name."""

    async def unregister(self, name: str, timeout_s: float) -> None:
        """Unmap it; a name that is not known is no error."""


@dataclass(slots=True, eq=False)
class Lease:
    """One call's use of a region."""

    segment: Segment
    pool: "RegionPool"
    looked_at: bool = False
    over: bool = False

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy a tensor in."""
        self.segment.view(offset, len(data))[:] = data

    def read(self, offset: int, size: int) -> memoryview:
        """A read-only view of an output; the region stays out of the pool until the last array over it is gone."""
        self.looked_at = True
        # Arrays and views hold on to this object, whatever they are cut into; a view itself they do not keep.
        held = (ctypes.c_char * size).from_buffer(self.segment.memory, offset)
        weakref.finalize(held, self.pool.returned.append, self.segment).atexit = False
        return memoryview(held).cast("B").toreadonly()


class RegionPool:
    """The pool of one client.

    Args:
        server: who maps the regions.
        most_bytes: bound on all of them together.
    """

    def __init__(self, server: RegionServer, most_bytes: int = MOST_BYTES) -> None:
        self.returned: deque[Segment] = deque()
        self._server = server
        self._most_bytes = most_bytes
        self._all: set[Segment] = set()
        self._free: list[Segment] = []
        self._making_bytes = 0
        self._leaving_bytes = 0
        self._refused_until = 0.0
        self._tidied = False
        self._closing = False
        self._forgetting: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """All regions together, in use or not, with those that the server has still to let go."""
        return sum(segment.size for segment in self._all) + self._making_bytes + self._leaving_bytes

    async def lease(self, size: int, timeout_s: float) -> Lease | None:
        """A region of at least ``size`` bytes, or None: then the tensors go by gRPC."""
        if time.monotonic() < self._refused_until:
            return None
        self._take_back()
        size = max(SMALLEST_BYTES, 1 << (size - 1).bit_length())
        fitting = [segment for segment in self._free if segment.size >= size]
        if fitting:
            chosen = min(fitting, key=_size)
            self._free.remove(chosen)
            return Lease(chosen, self)
        self._make_room(size)
        if self.held_bytes + size > self._most_bytes:
            return None
        self._making_bytes += size
        try:
            return await self._make(size, min(timeout_s, CALL_S))
        finally:
            self._making_bytes -= size

    def give_back(self, lease: Lease) -> None:
        """The call ended well."""
        lease.over = True
        if not lease.looked_at:
            self._free.append(lease.segment)

    def give_up(self, lease: Lease) -> None:
        """The call did not end well: the server may still be at it. Nothing happens after :meth:`give_back`."""
        if not lease.over:
            lease.over = True
            self._forget(lease.segment)

    def refused(self) -> None:
        """The server does not take regions, or not for this model: leave it in peace for a while."""
        self._refused_until = time.monotonic() + REFUSED_S

    async def close(self) -> None:
        """Unregister and remove every region."""
        self._closing = True
        for segment in list(self._all):
            self._forget(segment)
        if self._forgetting:
            _, late = await asyncio.wait(self._forgetting, timeout=CALL_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _make(self, size: int, timeout_s: float) -> Lease | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._tidy(timeout_s)
        try:
            segment = await asyncio.to_thread(Segment.create, size)
        except OSError as error:
            log.info("shared_memory_not_there", size=size, error=str(error))
            self.refused()
            return None
        try:
            await self._server.register(segment.name, size, timeout_s)
        except ReelmeshError as error:
            segment.close()
            self.refused()
            log.info("shared_memory_refused", error=str(error))
            return None
        except BaseException:
            self._all.add(segment)
            self._forget(segment)
            raise
        self._all.add(segment)
        return Lease(segment, self)

    def _make_room(self, size: int) -> None:
        needed = self.held_bytes + size - self._most_bytes
        while self._free and needed > 0:
            needed -= self._free[0].size
            self._forget(self._free[0])

    def _take_back(self) -> None:
        while self.returned:
            segment = self.returned.popleft()
            if segment in self._all:
                self._free.append(segment)

    def _forget(self, segment: Segment) -> None:
        self._all.discard(segment)
        with contextlib.suppress(ValueError):
            self._free.remove(segment)
        segment.close()
        self._leaving_bytes += segment.size
        task = asyncio.create_task(self._unregister(segment))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _unregister(self, segment: Segment) -> None:
        try:
            for attempt in range(FORGET_TRIES):
                try:
                    await self._server.unregister(segment.name, CALL_S)
                    return
                except ReelmeshError as error:
                    if self._closing and isinstance(error, Unavailable):
                        return  # the server is gone, and with it what it had mapped
                await asyncio.sleep(min(0.05 * 2**attempt, 1.0))
            log.warning("shared_memory_left_registered", region=segment.name)
        finally:
            self._leaving_bytes -= segment.size

    async def _tidy(self, timeout_s: float) -> None:
        """Once: regions of clients that crashed, at the server and on this machine."""
        if self._tidied:
            return
        self._tidied = True
        for name in await asyncio.to_thread(stale_names):
            with contextlib.suppress(ReelmeshError):
                await self._server.unregister(name, timeout_s)
            await asyncio.to_thread(remove_stale, name)


def _size(segment: Segment) -> int:
    return segment.size

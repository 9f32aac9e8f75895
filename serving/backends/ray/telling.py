"""Progress of a call beside its answer, as a stream; used by replicas, whose caller may sit in another process.

The one invariant: the last piece is the answer, or the error is raised; a caller that goes away cancels the work.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from serving.backends.call import Call

T = TypeVar("T")

STEP: Final = 0.01
"""Least progress worth telling."""
PERIOD_S: Final = 0.25
"""Least time between two pieces; a network may take a hundred steps a second."""


async def told(call: Call, work: Callable[[], Awaitable[T]]) -> AsyncGenerator[float | T, None]:
    """Run ``work`` and yield the call's progress, then what it returns.

    Args:
        call: is told the progress, from any thread.
        work: to be done.
    """
    loop, moved, reached = asyncio.get_running_loop(), asyncio.Event(), 0.0

    def note(done: float) -> None:
        nonlocal reached
        if done > reached:
            reached = done
            loop.call_soon_threadsafe(moved.set)

    call.on_progress = note
    task = asyncio.ensure_future(work())
    said = 0.0
    try:
        while not task.done():
            waiting = asyncio.ensure_future(moved.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            moved.clear()
            if reached - said >= STEP and not task.done():
                said = reached
                yield said
                await asyncio.wait({task}, timeout=PERIOD_S)
        yield await task
    finally:
        call.on_progress = None
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

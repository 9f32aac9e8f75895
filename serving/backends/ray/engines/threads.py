"""Blocking work of an engine in a thread that never outlives its request; used by engines that write files.

The one invariant: when the awaiting task is cancelled, the work is asked to stop and ends before the cancel goes on,
so the request's scratch folder can be removed.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from serving.backends.call import Call

T = TypeVar("T")


async def in_thread(call: Call, work: Callable[[], T]) -> T:
    """Run ``work``, which looks at ``call.checkpoint``, in a thread and return its result."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        call.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it
        raise

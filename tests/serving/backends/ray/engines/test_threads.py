"""Work in threads ends with its request."""

import asyncio
import threading
import time

import pytest

from serving.backends.call import Call
from serving.backends.ray.engines.threads import in_thread
from serving.errors import BadInput, Cancelled


async def test_a_cancelled_request_waits_until_its_work_has_ended() -> None:
    call, running, ended = Call(), threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        try:
            while True:
                call.checkpoint()
                time.sleep(0.01)
        finally:
            time.sleep(0.1)
            ended.set()

    task = asyncio.create_task(in_thread(call, work))
    await asyncio.to_thread(running.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_results_and_errors_pass_through() -> None:
    def fails() -> None:
        raise BadInput("wrong")

    assert await in_thread(Call(), lambda: 7) == 7
    with pytest.raises(BadInput, match="wrong"):
        await in_thread(Call(), fails)
    cancelled = Call()
    cancelled.cancel()
    with pytest.raises(Cancelled):
        await in_thread(cancelled, cancelled.checkpoint)

import asyncio

from serving.jobs.slots import Slots


async def test_new_jobs_wait_for_a_slot_and_resumed_ones_do_not() -> None:
    slots = Slots(1)
    await slots.wait()
    slots.take()
    waiting = asyncio.create_task(slots.wait())
    slots.release()
    await asyncio.sleep(0)
    assert not waiting.done(), "the count is at its bound, no longer above it"
    slots.release()
    await asyncio.wait_for(waiting, 1)

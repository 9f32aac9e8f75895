import asyncio
import gc
import os

import numpy as np
import pytest

from serving.client import regions
from serving.client.regions import SMALLEST_BYTES, RegionPool
from serving.client.segments import FOLDER
from serving.errors import EngineFailed, Unavailable


class Server:
    """Remembers regions as a server does."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.refuses = False
        self.busy = 0

    async def register(self, name: str, size: int, timeout_s: float) -> None:
        if self.refuses:
            raise Unavailable("This protocol is restricted")
        assert (FOLDER / name).stat().st_size == size
        self.known[name] = size

    async def unregister(self, name: str, timeout_s: float) -> None:
        if self.busy:
            self.busy -= 1
            raise EngineFailed(f"Cannot unregister shared memory region '{name}', it is currently in use.")
        self.known.pop(name, None)


async def test_a_region_is_registered_once_and_used_again() -> None:
    server = Server()
    pool = RegionPool(server)
    first = await pool.lease(100, 1)
    assert first is not None
    pool.give_back(first)
    second = await pool.lease(SMALLEST_BYTES, 1)
    assert second is not None
    assert second.segment is first.segment
    third = await pool.lease(100, 1)
    assert third is not None
    assert third.segment is not first.segment
    assert server.known == {first.segment.name: SMALLEST_BYTES, third.segment.name: SMALLEST_BYTES}
    await pool.close()
    assert server.known == {}
    assert not (FOLDER / first.segment.name).exists()


async def test_a_region_whose_call_failed_is_never_used_again() -> None:
    server = Server()
    pool = RegionPool(server)
    lease = await pool.lease(100, 1)
    assert lease is not None
    server.busy = 2
    pool.give_up(lease)
    assert pool.held_bytes == SMALLEST_BYTES  # as long as the server has it
    other = await pool.lease(100, 1)
    assert other is not None
    assert other.segment is not lease.segment
    pool.give_back(other)
    pool.give_up(other)
    await pool.close()
    assert server.known == {}
    assert pool.held_bytes == 0


async def test_regions_are_bounded_and_idle_ones_make_room() -> None:
    server = Server()
    pool = RegionPool(server, most_bytes=2 * SMALLEST_BYTES)
    leases = [await pool.lease(1, 1), await pool.lease(1, 1)]
    assert await pool.lease(1, 1) is None
    for lease in leases:
        assert lease is not None
        pool.give_back(lease)
    assert await pool.lease(3 * SMALLEST_BYTES, 1) is None
    await asyncio.sleep(0.01)
    bigger = await pool.lease(2 * SMALLEST_BYTES, 1)
    assert bigger is not None
    assert list(server.known) == [bigger.segment.name]
    await pool.close()


async def test_a_region_that_is_looked_at_comes_back_when_the_last_array_over_it_is_gone() -> None:
    pool = RegionPool(Server())
    lease = await pool.lease(100, 1)
    assert lease is not None
    lease.write(0, b"\x01" * 100)
    part = np.frombuffer(lease.read(0, 100), np.uint8)[10:20].reshape(2, 5)
    pool.give_back(lease)
    second = await pool.lease(100, 1)
    assert second is not None
    assert second.segment is not lease.segment
    assert part.sum() == 10
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    del part
    gc.collect()
    third = await pool.lease(100, 1)
    assert third is not None
    assert third.segment is lease.segment
    await pool.close()


async def test_a_server_that_refuses_is_left_in_peace_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.refuses = True
    pool = RegionPool(server)
    mine = f"reelmesh-client-{os.getpid()}-"
    assert await pool.lease(100, 1) is None
    server.refuses = False
    assert await pool.lease(100, 1) is None
    assert list(FOLDER.glob(f"{mine}*")) == []
    pool._refused_until = 0.0
    assert await pool.lease(100, 1) is not None
    await pool.close()


async def test_what_crashed_clients_left_is_unregistered_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "reelmesh-client-0-crashed"
    (FOLDER / name).write_bytes(b"x")
    server = Server()
    server.known[name] = 1
    pool = RegionPool(server)
    await pool.lease(100, 1)
    assert name not in server.known
    assert not (FOLDER / name).exists()
    await pool.close()


async def test_closing_does_not_wait_for_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    pool = RegionPool(server)
    await pool.lease(100, 1)

    async def gone(name: str, timeout_s: float) -> None:
        raise Unavailable("no server answers")

    monkeypatch.setattr(server, "unregister", gone)
    async with asyncio.timeout(1):
        await pool.close()


async def test_closing_is_bounded_when_a_region_stays_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "CALL_S", 0.2)
    server = Server()
    server.busy = 10_000
    pool = RegionPool(server)
    await pool.lease(100, 1)
    async with asyncio.timeout(2):
        await pool.close()

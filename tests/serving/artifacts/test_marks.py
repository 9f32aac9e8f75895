import asyncio
import random
import time
from pathlib import Path

import pytest

from serving.artifacts import marks
from serving.artifacts.keys import REMOVING, object_key
from serving.artifacts.objects import Objects
from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef
from serving.settings import ArtifactSettings


class Slow(Objects):
    """A store whose every answer takes a while, so that whoever works at the same time interleaves in every way."""

    def __init__(self, url: str, options: ArtifactSettings, chance: random.Random) -> None:
        super().__init__(url, options)
        self._chance = chance

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.004)

    async def size_bytes(self, key: str) -> int | None:
        await self._pause()
        size = await super().size_bytes(key)
        await self._pause()
        return size

    async def read(self, key: str) -> bytes | None:
        await self._pause()
        data = await super().read(key)
        await self._pause()
        return data

    async def create(self, key: str, data: bytes) -> bool:
        await self._pause()
        made = await super().create(key, data)
        await self._pause()
        return made

    async def remove(self, key: str) -> None:
        await self._pause()
        await super().remove(key)
        await self._pause()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")


@pytest.mark.parametrize("seed", range(4))
async def test_who_is_told_that_bytes_are_here_finds_them_whatever_the_keeper_does_at_that_moment(
    store: ArtifactStore, seed: int
) -> None:
    chance = random.Random(seed)
    store.objects = Slow(store.url, store.options, chance)
    outcomes: set[tuple[bool, bool]] = set()

    async def one(index: int) -> None:
        data = f"{seed} {index}".encode()
        ref = await store.put_bytes(data, media_type="text/plain", name="a.txt")
        await marks.mark(store.objects, ref.sha256, time.time())
        seen = await marks.read_mark(store.objects, ref.sha256)
        assert seen is not None

        async def late(work: object, delay_s: float) -> object:
            await asyncio.sleep(delay_s)
            return await work  # type: ignore[misc]

        removed, told, put = await asyncio.gather(
            marks.remove(store.objects, ref.sha256, seen),
            late(store.exists(ref), chance.random() * 0.04),
            late(store.put_bytes(data, media_type="text/plain", name="b.txt"), chance.random() * 0.04),
        )
        outcomes.add((bool(removed), bool(told)))
        assert isinstance(put, ArtifactRef)
        assert await store.get_bytes(put) == data

    for start in range(0, 600, 60):  # on a busy machine one way may win all of a round
        await asyncio.gather(*(one(index) for index in range(start, start + 60)))
        if len({removed for removed, _ in outcomes}) == 2:
            break
    assert len({removed for removed, _ in outcomes}) == 2, "the race never went both ways"


async def test_a_removal_that_died_half_way_does_not_keep_others_for_ever(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "REMOVAL_S", 0.1)
    ref = await store.put_bytes(b"data", media_type="text/plain", name="a.txt")
    await store.objects.create(object_key(ref.sha256, REMOVING), b"")
    assert await store.exists(ref)


async def test_a_mark_that_was_taken_away_and_set_anew_is_another_one(store: ArtifactStore) -> None:
    ref = await store.put_bytes(b"data", media_type="text/plain", name="a.txt")
    await marks.mark(store.objects, ref.sha256, 1.0)
    seen = await marks.read_mark(store.objects, ref.sha256)
    assert await store.exists(ref)
    await marks.mark(store.objects, ref.sha256, 1.0)
    assert seen is not None
    assert not await marks.remove(store.objects, ref.sha256, seen)
    assert await store.get_bytes(ref) == b"data"

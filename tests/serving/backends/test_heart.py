"""Heartbeats of a replica."""

import asyncio

import pytest

from serving.backends.heart import Heart
from serving.protocol.endpoint import Endpoint, Heartbeat

BEAT = Heartbeat(replica_id="r", endpoints=[Endpoint(model="m", http="127.0.0.1:1", grpc="127.0.0.1:2")])


class Edge:
    def __init__(self, turns=0):
        self.turns, self.beats, self.heartbeat = turns, [], self

    async def remote(self, beat):
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.beats.append(beat)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("before", range(6))
async def test_a_stop_in_the_middle_of_a_beat_is_never_lost(turns, before):
    edge = Edge(turns)
    heart = Heart(edge, BEAT, every_s=60)
    heart.start()
    for _ in range(before):
        await asyncio.sleep(0)
    await asyncio.wait_for(heart.stop(), 5)
    assert edge.beats[-1].endpoints == []


async def test_an_update_is_sent_at_once():
    edge = Edge()
    heart = Heart(edge, BEAT, every_s=60)
    heart.start()
    await heart.update(BEAT.model_copy(update={"endpoints": []}))
    assert edge.beats[-1].endpoints == []
    await heart.stop()


async def test_an_older_beat_never_comes_after_a_newer_one():
    edge = Edge()
    edge.turns = 50
    heart = Heart(edge, BEAT, every_s=60)
    heart.start()
    await asyncio.sleep(0)
    edge.turns = 0
    await heart.update(BEAT.model_copy(update={"endpoints": []}))
    assert [len(beat.endpoints) for beat in edge.beats] == [1, 0]
    await heart.stop()

"""What the gateway asks of the edge."""

import asyncio

import pytest

from serving.errors import Unavailable
from serving.gateway import edge_client
from serving.gateway.edge_client import EdgeClient
from serving.protocol.control import ControlCall
from serving.protocol.endpoint import Heartbeat


class Handle:
    """A Serve handle's methods, counted."""

    def __init__(self):
        self.asked, self.error = 0, None
        self.replicas = self.remember = self

    async def remote(self, *arguments):
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        return [Heartbeat(replica_id=f"r{self.asked}", endpoints=[])]


async def test_replicas_are_remembered_for_a_moment_and_asked_for_afresh_on_demand(monkeypatch):
    handle = Handle()
    client = EdgeClient(handle)
    assert (await client.replicas())[0].replica_id == "r1"
    assert (await client.replicas())[0].replica_id == "r1"
    assert (await client.replicas(fresh=True))[0].replica_id == "r2"
    monkeypatch.setattr(edge_client, "FRESH_S", 0)
    assert (await client.replicas())[0].replica_id == "r3"


async def test_many_requests_share_one_question_and_one_that_goes_away_ends_it_for_nobody():
    handle = Handle()
    client = EdgeClient(handle)
    for fresh, most in ((False, 1), (True, 3)):
        waiting = [asyncio.create_task(client.replicas(fresh=fresh)) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.gather(*waiting[1:])
        assert handle.asked <= most


async def test_an_answer_given_before_the_question_is_not_fresh():
    handle = Handle()
    client = EdgeClient(handle)
    early = asyncio.create_task(client.replicas())
    await asyncio.sleep(0.005)
    late = await client.replicas(fresh=True)
    assert (await early)[0].replica_id != late[0].replica_id


async def test_an_edge_that_fails_is_unavailable_and_its_own_errors_keep_their_words():
    handle = Handle()
    client = EdgeClient(handle)
    handle.error = RuntimeError("the actor died")
    with pytest.raises(Unavailable, match="the edge does not answer"):
        await client.replicas()
    handle.error = RuntimeError("wrapped by Ray")
    handle.error.cause = Unavailable("no room")
    with pytest.raises(Unavailable, match="no room"):
        await client.remember(ControlCall(key="k", path="/"))

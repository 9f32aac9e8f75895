"""What a replica hears when it starts, and what it missed while it did."""

import asyncio

import pytest

from serving.backends import recall as module
from serving.backends.recall import missed, recalled
from serving.protocol.control import ControlCall

LOAD = ControlCall(key="model/m", path="/v2/repository/models/m/load")
UNLOAD = ControlCall(key="model/m", path="/v2/repository/models/m/unload")
REGION = ControlCall(key="system/r", path="/v2/systemsharedmemory/region/r/register", body={"key": "k"})


class Edge:
    def __init__(self, answer):
        self.recall, self.remote = self, answer


async def tells():
    return (LOAD, REGION)


async def fails():
    raise RuntimeError("no such actor")


@pytest.mark.parametrize(
    ("edge", "calls"), [(None, []), (Edge(tells), [LOAD, REGION]), (Edge(fails), [])], ids=["none", "tells", "fails"]
)
async def test_an_edge_tells_or_nothing_is_repeated(edge, calls):
    assert await recalled(edge) == calls


async def test_an_edge_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "RECALL_S", 0.01)
    assert await recalled(Edge(asyncio.Event().wait)) == []


MISSED = {
    "nothing": ([LOAD, REGION], [LOAD, REGION], []),
    "new": ([], [LOAD], [LOAD]),
    "changed": ([LOAD, REGION], [REGION, UNLOAD], [UNLOAD]),
    "forgotten-region": (
        [REGION], [], [ControlCall(key="system/r", path="/v2/systemsharedmemory/region/r/unregister")]
    ),
    "forgotten-model": ([LOAD], [], []),
}  # fmt: skip


@pytest.mark.parametrize(("before", "now", "expected"), MISSED.values(), ids=MISSED.keys())
def test_what_was_asked_meanwhile_is_what_differs(before, now, expected):
    assert missed(before, now) == expected

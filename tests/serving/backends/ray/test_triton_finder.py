"""Where Triton serves a part is what the edge says at that moment."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.backends.ray.triton_finder import TritonFinder, addresses
from serving.errors import Unavailable
from serving.protocol.endpoint import Endpoint


def endpoint(model: str, port: int, version: str = "", socket: str | None = None) -> Endpoint:
    return Endpoint(
        model=model, version=version, http=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{port + 1}", grpc_socket=socket
    )


class Edge:
    """A Serve handle of an edge, as far as this asks it; it tells one answer after the other."""

    def __init__(self, *answers: Sequence[Endpoint] | Exception) -> None:
        self.answers = list(answers)
        self.endpoints = self

    async def remote(self) -> Sequence[Endpoint]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("version", "expected"),
    [("", ["127.0.0.1:2"]), ("3", ["127.0.0.1:2"]), ("4", [])],
    ids=["the replica chose", "this one", "another"],
)
def test_the_model_and_its_version_are_looked_for(version: str, expected: list[str]) -> None:
    assert addresses([endpoint("other", 8), endpoint("part", 1, version)], "part", 3) == expected


def test_a_socket_of_this_machine_goes_before_the_port(tmp_path: Path) -> None:
    socket = tmp_path / "grpc:1"
    socket.touch()
    here, elsewhere = endpoint("part", 1, socket=str(socket)), endpoint("part", 1, socket=f"{tmp_path}/gone")
    assert addresses([here, elsewhere], "part", 1) == [f"unix:{socket}", "127.0.0.1:2"]


async def test_a_model_that_comes_up_is_waited_for() -> None:
    edge = Edge([], [endpoint("other", 8)], [endpoint("part", 1)])
    find = TritonFinder(edge, asyncio.get_running_loop(), wait_s=5)
    assert await asyncio.to_thread(find, "part", 1) == "127.0.0.1:2"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([], "part: no Triton serves version 2 of 'part': see why with `reelmesh models list`"),
        (RuntimeError("the actor died"), "the edge does not tell: the actor died"),
    ],
    ids=["nobody serves it", "no edge"],
)
async def test_where_it_is_nowhere_that_is_told(answer: Sequence[Endpoint] | Exception, words: str) -> None:
    find = TritonFinder(Edge(answer), asyncio.get_running_loop(), wait_s=0)
    with pytest.raises(Unavailable, match=words):
        await asyncio.to_thread(find, "part", 2)

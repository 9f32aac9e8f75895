"""A Triton that is killed under load: nothing fails that had not reached it."""

import asyncio

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from serving.backends.triton.install import default_folder, find_tritonserver, install
from serving.backends.triton.server import TritonServer
from serving.protocol.endpoint import Heartbeat
from serving.settings import Settings
from tests.serving.backends.triton.conftest import PLUS_ONE, add_graph, write_model
from tests.serving.edge.test_edge_triton import endpoint_of

CALLERS = 8
"""Clients on each wire, each with one request in flight."""


@pytest.fixture
async def two(mesh, settings, tmp_path):
    install(default_folder())
    model = write_model(tmp_path / "models", "plus_one", PLUS_ONE, add_graph(4))
    servers = [TritonServer(find_tritonserver(Settings()), [model], settings.home / name) for name in "ab"]
    await asyncio.gather(*(server.start() for server in servers))
    for index, server in enumerate(servers):
        await mesh.edge.heartbeat(Heartbeat(replica_id=str(index), endpoints=[endpoint_of(server)]))
    yield servers
    await asyncio.gather(*(server.stop(drain_s=0) for server in servers))


def kill(server):
    """All of a Triton at once, as the kernel kills a container."""
    process = psutil.Process(server._process._child.pid)
    for each in [process, *process.children(recursive=True)]:
        each.kill()


async def test_a_triton_killed_under_load_fails_at_most_what_it_had_already_taken(mesh, two):
    failures, answered, stop = [], 0, asyncio.Event()

    async def call(client, kind):
        nonlocal answered
        while not stop.is_set():
            tensor = kind.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
            try:
                await client.infer("plus_one", [tensor])
                answered += 1
            except InferenceServerException as error:
                failures.append(str(error))

    async with mesh.clients() as clients:
        callers = [asyncio.create_task(call(*client)) for client in clients for _ in range(CALLERS)]
        await asyncio.sleep(1.0)
        before = answered
        kill(two[0])
        await asyncio.sleep(1.0)
        late = len(failures)
        between = answered
        await asyncio.sleep(1.0)
        stop.set()
        await asyncio.gather(*callers)
    assert before > 0
    assert answered > between > before, "the other Triton goes on"
    assert len(failures) == late, f"out of rotation within a second: {failures[late:]}"
    assert late <= CALLERS, f"only what it held may fail: {failures}"


async def test_a_triton_killed_between_requests_fails_none(mesh, two):
    async with mesh.clients() as clients:
        for client, kind in clients:
            tensor = kind.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
            # So that connections to both wait for more.
            await asyncio.gather(*(client.infer("plus_one", [tensor]) for _ in range(16)))
        kill(two[0])
        for client, kind in clients * 20:
            tensor = kind.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
            assert (await client.infer("plus_one", [tensor])).as_numpy("Y").tolist() == [[1, 1, 1, 1]]

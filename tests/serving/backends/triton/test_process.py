"""How one tritonserver ends."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from serving.backends.call import Call
from serving.backends.triton.command import Options
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.server import TritonServer
from serving.errors import ReelmeshError
from serving.repository.load import load_repository
from tests.flows.triton_models import write_models


async def stopped_during(server: TritonServer, seconds: float) -> tuple[asyncio.Task[float], float]:
    """An inference of that length, and how long the stop in its middle took."""

    async def infer() -> float:
        asked = {"SECONDS": np.array([seconds], np.float32)}
        return float((await server.infer("slow", asked, ["SLEPT"], Call()))["SLEPT"][0])

    asked = asyncio.create_task(infer())
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await server.stop()
    await asyncio.wait({asked}, timeout=5)
    return asked, time.monotonic() - began


@pytest.mark.parametrize(("seconds", "exit_timeout_s", "answered"), [(1.5, 10.0, True), (60.0, 1.0, False)])
async def test_what_is_in_flight_is_finished_within_the_exit_timeout(
    triton: TritonInstall, tmp_path: Path, seconds: float, exit_timeout_s: float, answered: bool
) -> None:
    models = load_repository([write_models(tmp_path / "models", ["slow"])]).triton()
    server = TritonServer(triton, models, tmp_path / "home", Options(exit_timeout_s=exit_timeout_s))
    await server.start()
    asked, took_s = await stopped_during(server, seconds)
    if answered:
        assert asked.result() == seconds
    else:
        assert took_s < 10
        with pytest.raises(ReelmeshError):
            asked.result()

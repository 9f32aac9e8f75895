"""A process whose address space ends a little above what a tiny checkpoint takes; run by tests in a child.

The one invariant: its last lines are JSON, one for each model named: the digest of something small, the error of what
is too large and whether that may be retried, and the digest again.
"""

import asyncio
import json
import resource
import sys
from pathlib import Path

import psutil
import torch

from serving.backends.call import Call
from serving.errors import OutOfMemory
from serving.protocol.tasks import ImageRequest, MusicRequest, TaskRequest, TextToVideoRequest
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

ROOM_BYTES = 400 << 20
SMALL: dict[str, TaskRequest] = {
    "sdxl": ImageRequest(prompt="rain", width=64, height=64, steps=1),
    "ltx2": TextToVideoRequest(prompt="rain", width=64, height=64, duration_s=0.25, steps=2),
    "ace_step": MusicRequest(duration_s=0.5, steps=1),
}
LARGE = {
    "sdxl": {"width": 4096, "height": 4096},
    "ltx2": {"width": 1024, "height": 1024, "duration_s": 2},
    "ace_step": {"duration_s": 600},
}


async def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    lines = []
    for name in names:
        engine: laws.Engine = tiny_engine(name, context_in(folder))  # type: ignore[assignment]
        before, told = await laws.sha(engine, SMALL[name]), None
        bound = psutil.Process().memory_info().vms + ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
        try:
            await engine.run(SMALL[name].model_copy(update=LARGE[name]), Call())
        except OutOfMemory as error:
            told = (str(error), error.retryable)
        lines.append(json.dumps([before, told, await laws.sha(engine, SMALL[name])]))
        await engine.close()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("\n".join(lines))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))

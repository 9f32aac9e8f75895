"""A process whose address space ends a little above what SDXL's tiny checkpoint takes; run by a test of its own.

The one invariant: its last line is JSON: a picture's digest, the error of one that is too large and whether that may be
retried, and the digest again.
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
from serving.protocol.tasks import ImageRequest
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines.diffusion import laws

ROOM_BYTES = 400 << 20
SMALL = ImageRequest(prompt="rain", width=64, height=64, steps=1)


async def main(folder: Path) -> None:
    torch.set_num_threads(1)
    engine: laws.Engine = tiny_engine("sdxl", context_in(folder))  # type: ignore[assignment]
    before = await laws.sha(engine, SMALL)
    bound = psutil.Process().memory_info().vms + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
    told = None
    try:
        await engine.run(SMALL.model_copy(update={"width": 4096, "height": 4096}), Call())
    except OutOfMemory as error:
        told = (str(error), error.retryable)
    after = await laws.sha(engine, SMALL)
    await engine.close()
    print(json.dumps([before, told, after]))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

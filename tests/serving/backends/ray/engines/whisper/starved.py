"""A process whose address space ends a little above what Whisper needs; run by a test in a child, without torch.

The one invariant: it answers twice: what a pass that is too large ends with, and a small one after it.
"""

import asyncio
import resource

import psutil

from serving.errors import ReelmeshError
from tests.serving.backends.ray.engines.whisper.conftest import Room, sound_of, tones

NAME = "whisper_large_v3"


def starved() -> tuple[str, str]:
    return asyncio.run(_hear_starved())


async def _hear_starved() -> tuple[str, str]:
    room = Room(NAME, options={"batch": 64, "beams": 1, "tokens": 8})
    small = sound_of(tones(1, 3))
    await room.run(small)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))
    told = []
    for sound in (small._replace(windows=small.windows * 64), small):
        try:
            await room.run(sound)
            told.append("")
        except ReelmeshError as error:
            told.append(f"{type(error).__name__} {error}")
    return told[0], told[1]

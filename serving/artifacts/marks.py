"""The marks by which bytes that nobody needs leave the store; set by retention, heeded by whoever asks for the bytes.

The one invariant: nobody is told that bytes are here and then finds them gone within the time of grace. Bytes are
marked first and removed a time of grace later; whoever asks takes the mark away. The two may meet: the keeper writes
``.removing`` and then looks for its mark, who asks removes the mark and then looks for ``.removing``, so at least one
of them sees the other, and gives way: the keeper by leaving the bytes, who asks by waiting until they are gone.
"""

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import Final

from serving.artifacts.keys import EXPIRING, PROVENANCE, REMOVING, object_key
from serving.artifacts.objects import Objects

REMOVAL_S: Final = 30.0
"""The longest that the removal of one artifact may take; a ``.removing`` older than this was left by a dead keeper."""


@dataclass(frozen=True, slots=True)
class Mark:
    """When an artifact was marked, in Unix seconds by the keeper's clock, and what tells this mark from another."""

    marked_at: float
    token: str


async def unmark(objects: Objects, sha256: str) -> None:
    """Keep the bytes for another time of grace; waits while they are being removed."""
    mark = object_key(sha256, EXPIRING)
    if await objects.size_bytes(mark) is not None:
        await objects.remove(mark)
    removing, pause_s = object_key(sha256, REMOVING), 0.05
    for _ in range(int(REMOVAL_S / pause_s)):
        if await objects.size_bytes(removing) is None:
            return
        await asyncio.sleep(pause_s)


async def mark(objects: Objects, sha256: str, now: float) -> None:
    """Say that the bytes will go a time of grace after ``now``; a mark that is there stays."""
    told = {"marked_at": now, "token": secrets.token_hex(8)}
    await objects.create(object_key(sha256, EXPIRING), json.dumps(told).encode())


async def read_mark(objects: Objects, sha256: str) -> Mark | None:
    """The mark, if there is one."""
    data = await objects.read(object_key(sha256, EXPIRING))
    if data is None:
        return None
    told = json.loads(data)
    return Mark(float(told["marked_at"]), str(told["token"]))


async def remove(objects: Objects, sha256: str, seen: Mark) -> bool:
    """Remove an artifact with all that lies beside it, unless the mark seen before is gone; True when it was removed.

    Called by the one keeper alone.
    """
    removing = object_key(sha256, REMOVING)
    await objects.create(removing, b"")
    try:
        async with asyncio.timeout(REMOVAL_S):
            if await read_mark(objects, sha256) != seen:
                return False
            await objects.remove(object_key(sha256))
            await objects.remove(object_key(sha256, PROVENANCE))
            await objects.remove(object_key(sha256, EXPIRING))
    finally:
        await objects.remove(removing)
    return True

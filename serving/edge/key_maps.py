"""The keys as HAProxy's maps, and the commands that replace them while it runs; used by Haproxy.

HAProxy looks a key up by its SHA-256. How long a lookup takes tells at most how far that hash agrees with a stored one,
and whoever sends guesses cannot choose their hashes: so nothing is learnt of a key, as with a constant-time comparison.

The one invariant: a map changes from one file's keys to the next one's in one step; nobody is refused in between.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from serving.edge.key_file import Key
from serving.edge.runtime import RuntimeSocket
from serving.errors import EngineFailed, foreign_text
from serving.protocol.keys import EVERY_MODEL

KEYS_MAP: Final = "keys.map"
"""Hash of a key to ``name/rate/calls/models/use``; the rate is 0 where there is none."""
MODELS_MAP: Final = "key_models.map"
"""``name/model`` for each model that a key names."""
BEGINNINGS_MAP: Final = "key_beginnings.map"
"""``name/beginning`` for each beginning of models' names."""

_ORDER: Final = (MODELS_MAP, BEGINNINGS_MAP, KEYS_MAP)
"""A key comes after what it allows."""
_CHUNK_BYTES: Final = 8_192
"""Of one command; HAProxy takes what fits into its buffer."""
_VERSION: Final = re.compile(r"New version created: (\d+)")


def key_maps(keys: Sequence[Key]) -> dict[str, list[str]]:
    """The lines of each map, in the order in which they are to be replaced."""
    maps: dict[str, list[str]] = {name: [] for name in _ORDER}
    for key in keys:
        grant = key.grant
        maps[KEYS_MAP].append(f"{key.sha256} {grant.name}/{key.rate or 0}/{grant.text}/{grant.use}")
        for model in grant.models if grant.models != (EVERY_MODEL,) else ():
            begins = model.endswith(EVERY_MODEL)
            maps[BEGINNINGS_MAP if begins else MODELS_MAP].append(f"{grant.name}/{model.rstrip(EVERY_MODEL)} 1")
    return maps


async def replace_maps(runtime: RuntimeSocket, maps: Mapping[str, Sequence[str]]) -> None:
    """Make HAProxy's maps hold these lines and no others.

    Raises:
        EngineFailed: HAProxy does not answer or refused a command; the messages hold no line.
    """
    for name, lines in maps.items():
        answer = await runtime.ask(f"prepare map {name}")
        version = _VERSION.search(answer)
        if version is None:
            raise EngineFailed(f"HAProxy does not take a new {name}: {foreign_text(answer)}")
        for chunk in _chunks(lines):
            # The lines end with an empty one.
            if said := await runtime.ask(f"add map @{version[1]} {name} <<\n{chunk}\n"):
                raise EngineFailed(f"HAProxy refused lines of {name}: {foreign_text(said)}")
        if said := await runtime.ask(f"commit map @{version[1]} {name}"):
            raise EngineFailed(f"HAProxy did not take the new {name}: {foreign_text(said)}")


def _chunks(lines: Sequence[str]) -> Iterator[str]:
    chunk: list[str] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) + 1 > _CHUNK_BYTES:
            yield "\n".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line) + 1
    if chunk:
        yield "\n".join(chunk)

"""RuntimeSocket: sends commands to a running HAProxy; used by Haproxy.

The one invariant: a command that HAProxy did not accept is an error, never a line in a log.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from serving.errors import EngineFailed, foreign_text

_ANSWER_S: Final = 5.0
_ANSWER_BYTES: Final = 1 << 20
_ACCEPTED: Final = ("", "New server registered.", "Server deleted.")
ABSENT: Final = ("entry not found.", "Key not found.")
"""What HAProxy says when a map has no such key, which is fine for whoever wants it gone."""
EXISTS: Final = "Already exists a server with the same name in backend."
IN_USE: Final = "Server still has connections attached to it, cannot remove it."


class RuntimeSocket:
    """Talks to the socket ``name`` in ``folder``, however long the folder's path is."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    async def run(self, command: str, *, accept: tuple[str, ...] = ()) -> str:
        """Send one command and return the answer.

        Args:
            command: as in HAProxy's management guide.
            accept: answers besides HAProxy's usual ones that mean the command was understood.

        Raises:
            EngineFailed: HAProxy does not listen, does not answer in time, or refused the command.
        """
        answer = await self.ask(command)
        if answer not in _ACCEPTED and answer not in accept:
            raise EngineFailed(f"HAProxy refused {command[:64]!r}: {foreign_text(answer)}")
        return answer

    async def ask(self, command: str) -> str:
        """Send one command and return the answer, whatever it says."""
        try:
            # The path of a Unix socket has at most 107 bytes; a descriptor of its folder makes any path short.
            descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise EngineFailed(f"the folder of HAProxy's socket is gone: {foreign_text(error)}") from error
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{self._name}")
                try:
                    writer.write(f"{command}\n".encode())
                    await writer.drain()
                    return (await _whole(reader)).decode(errors="replace").strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise EngineFailed(f"HAProxy does not take commands: {foreign_text(error)}") from error
        finally:
            os.close(descriptor)


async def _whole(reader: asyncio.StreamReader) -> bytes:
    pieces, size = [], 0
    while piece := await reader.read(65536):
        pieces.append(piece)
        size += len(piece)
        if size > _ANSWER_BYTES:
            raise EngineFailed(f"HAProxy's answer is over {_ANSWER_BYTES} bytes")
    return b"".join(pieces)

"""Reads server-sent events from lines; used by the jobs client.

The one invariant: it follows the HTML standard: unknown fields are skipped, an event ends at an empty line.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple


class Message(NamedTuple):
    """One event; a comment or ``retry`` alone comes as an event without data, which tells that the server lives."""

    event: str
    data: str
    id: str


async def messages(lines: AsyncIterator[str]) -> AsyncIterator[Message]:
    """Events of a stream."""
    data: list[str] = []
    event, last_id, anything = "message", "", False
    async for line in lines:
        if not line:
            if anything:
                yield Message(event, "\n".join(data), last_id)
            event, data, anything = "message", [], False
            continue
        anything = True
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value

"""What the edge remembers of the control plane's calls, asked by every replica when it starts.

The one invariant: an edge that does not tell keeps no replica from starting; that is logged.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog

from serving.backends.control_calls import ModelCall, model_call, region_call
from serving.errors import NotFound, ReelmeshError, foreign_text
from serving.protocol.control import ControlCall

log = structlog.get_logger()

RECALL_S: Final = 30.0
"""How long the edge may take to tell."""


class Repeats(Protocol):
    """Whatever does remembered calls again."""

    async def repeat(self, calls: Sequence[ControlCall]) -> None:
        """Those that are not about models; failures are logged."""

    async def repeat_model(self, call: ModelCall) -> None:
        """Load or unload a model; raises :class:`ReelmeshError`."""


async def recalled(edge: Any) -> list[ControlCall]:  # noqa: ANN401  a Serve handle, or None
    """The calls to repeat, in order; none without an edge."""
    if edge is None:
        return []
    try:
        async with asyncio.timeout(RECALL_S):
            return list(await edge.recall.remote())
    except Exception as error:  # Ray raises many kinds while the edge starts or moves
        log.warning("recall_failed", error=foreign_text(error) or type(error).__name__)
        return []


async def catch_up(edge: Any, before: Sequence[ControlCall], control: Repeats) -> None:  # noqa: ANN401  as above
    """Do what was asked of others while a replica did what was remembered ``before``; failures are logged.

    To be called once the edge knows the replica: what is asked from then on is asked of it too.
    """
    for call in missed(before, await recalled(edge)):
        try:
            if (wanted := model_call(call)) is None:
                await control.repeat([call])
            else:
                await control.repeat_model(wanted)
        except NotFound:
            continue  # another kind of replica's
        except ReelmeshError as error:
            log.error("call_not_repeated", key=call.key, error=str(error))


def missed(before: Sequence[ControlCall], now: Sequence[ControlCall]) -> list[ControlCall]:
    """What was asked of others while a replica did what was remembered ``before``: regions to let go of, new calls."""
    keys = {call.key for call in now}
    gone = [call for call in before if call.key not in keys and region_call(call) is not None]
    forgotten = [ControlCall(key=call.key, path=f"{call.path.removesuffix('register')}unregister") for call in gone]
    known = {call.key: call for call in before}
    return [*forgotten, *(call for call in now if known.get(call.key) != call)]

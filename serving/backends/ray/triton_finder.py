"""TritonFinder: where Triton serves a model now, asked of the edge; given to engines whose parts Triton runs.

The one invariant: what it says was true at the edge a moment ago; nothing is remembered, since a Triton that starts
again listens elsewhere.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from serving.errors import Unavailable, foreign_text
from serving.protocol.endpoint import Endpoint

WAIT_S: Final = 60.0
"""How long a model may take to come up: Triton starts beside the replicas, and loads while they do."""
PAUSE_S: Final = 0.25
ASK_S: Final = 10.0
"""How long the edge may take to tell."""


class TritonFinder:
    """Called with a model and its version, from any thread but the loop's.

    Args:
        edge: its Serve handle.
        loop: of the replica.
        wait_s: how long to wait for a model that is not served yet.
    """

    def __init__(
        self,
        edge: Any,  # noqa: ANN401  a Serve handle
        loop: asyncio.AbstractEventLoop,
        wait_s: float = WAIT_S,
    ) -> None:
        self._edge, self._loop, self._wait_s = edge, loop, wait_s

    def __call__(self, model: str, version: int) -> str:
        """``host:port``, or ``unix:/path`` where it is on this machine; blocks.

        Raises:
            Unavailable: nobody serves it, after waiting for it.
        """
        began = time.monotonic()
        while not (found := addresses(self._endpoints(), model, version)):
            if time.monotonic() - began >= self._wait_s:
                fix = "see why with `reelmesh models list`, or set runtime: onnxruntime in model.yaml"
                raise Unavailable(f"no Triton serves version {version} of {model!r}", field=model, fix=fix)
            time.sleep(PAUSE_S)
        return random.choice(found)

    def _endpoints(self) -> list[Endpoint]:
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            return asked.result(ASK_S)
        except Exception as error:  # Ray raises many kinds while the edge moves
            asked.cancel()
            raise Unavailable(f"the edge does not tell: {foreign_text(error) or type(error).__name__}") from error

    async def _ask(self) -> list[Endpoint]:
        return list(await self._edge.endpoints.remote())


def addresses(endpoints: Sequence[Endpoint], model: str, version: int) -> list[str]:
    """Where a version of a model is served; an endpoint without a version serves the one that its replica chose."""
    able = [each for each in endpoints if each.model == model and each.version in ("", str(version))]
    return [_address(each) for each in able]


def _address(endpoint: Endpoint) -> str:
    """By its Unix socket where that is here: half as dear as a connection by TCP."""
    socket = endpoint.grpc_socket
    return f"unix:{socket}" if socket and Path(socket).exists() else endpoint.grpc

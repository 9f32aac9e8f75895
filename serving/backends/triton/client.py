"""TensorClient: inference by one tritonserver; held by process.py, used by server.py and adapters.

The one invariant: whatever goes wrong on the wire leaves here as an error of serving.errors, chosen by its gRPC
status.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from serving.backends.call import Call
from serving.client import NEVER, Mesh
from serving.errors import EngineFailed, foreign_text

Arrays = dict[str, NDArray[Any]]

LONGEST_INFERENCE_S: Final = 120.0
"""Bound on one inference of a call without a deadline."""

TRITON_TOKEN_HEADER: Final = "reelmesh-token"  # noqa: S105 - a header's name
"""Key that tritonserver's restricted APIs ask for, behind its own prefix."""


class Tensors(Protocol):
    """What an adapter needs of Triton."""

    async def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Arrays:
        """Run one inference; inputs and outputs by the names in config.pbtxt."""


class TensorClient:
    """One channel to one tritonserver; made inside a running event loop.

    Args:
        address: ``host:port`` of its gRPC service.
        token: value of the header that opens the restricted part of the protocol: shared memory.
    """

    def __init__(self, address: str, token: str = "") -> None:
        # The router repeats what may be repeated, with what it knows of other backends.
        self._mesh = Mesh(
            address, metadata={f"triton-grpc-protocol-{TRITON_TOKEN_HEADER}": token}, retries=NEVER, server="Triton"
        )

    async def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Arrays:
        """Run one inference within the call's deadline; big inputs go through shared memory.

        Args:
            model: name in the repository; its newest version answers.
            inputs: arrays by input name; the dtype must be the input's own.
            outputs: names of the outputs wanted.
            call: gives the deadline, and is asked before anything is sent.

        Raises:
            ReelmeshError: of the class that fits the status.
        """
        call.checkpoint()
        remaining = call.remaining_s()
        seconds = LONGEST_INFERENCE_S if remaining is None else max(remaining, 0.001)
        result = await self._mesh.infer(model, inputs, outputs=outputs, deadline_s=seconds)
        if missing := [name for name in outputs if name not in result]:
            raise EngineFailed(f"Triton: no output '{missing[0]}' in the answer", field=model)
        return dict(result)

    async def is_live(self, timeout_s: float) -> bool:
        """Whether the server answers within ``timeout_s`` seconds."""
        return await self._mesh.live(timeout_s)

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        await self._mesh.close()


def load_reason(said: str) -> str:
    """What Triton says of a failed load, without the preambles and the Python trace round the cause."""
    noise = (
        r"failed to load '[^']*', ",
        r"load failed for model '[^']*': ",
        r"version \d+ is at UNAVAILABLE state: ",
        r"(Internal|Invalid argument): ",
        r"TritonModelException: ",
        r"\[ONNXRuntimeError\] : \d+ : \w+ : ",
        r"\s+At:\s.*",
    )
    return foreign_text(re.sub("|".join(noise), "", said, flags=re.DOTALL).strip("; \n"))

"""TensorClient: typed errors and numpy arrays over Triton's gRPC; used by process.py, server.py and adapters.

The one invariant: whatever goes wrong on the wire leaves here as an error of serving.errors, chosen by its gRPC
status.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.backends.call import Call
from serving.errors import (
    BadInput,
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    NotFound,
    ReelmeshError,
    TooLarge,
    Unavailable,
    Unsupported,
    foreign_text,
)

Arrays = dict[str, NDArray[Any]]

LONGEST_INFERENCE_S: Final = 120.0
"""Bound on one inference of a call without a deadline."""

NO_PROXY: Final = (("grpc.enable_http_proxy", 0),)
"""Triton is a child of this process: a proxy that the environment names cannot reach it."""

ERRORS: Final[Mapping[str, type[ReelmeshError]]] = {
    "INVALID_ARGUMENT": BadInput,
    "NOT_FOUND": NotFound,
    "UNIMPLEMENTED": Unsupported,
    "RESOURCE_EXHAUSTED": TooLarge,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "UNAVAILABLE": Unavailable,
}
"""gRPC status to error; every other status is :class:`EngineFailed`."""


class Tensors(Protocol):
    """What an adapter needs of Triton."""

    async def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Arrays:
        """Run one inference; inputs and outputs by the names in config.pbtxt."""


class TensorClient:
    """One channel to one tritonserver; made inside a running event loop.

    Args:
        address: ``host:port`` of its gRPC service.
        token: value of the header that opens the restricted part of the protocol, model control.
    """

    def __init__(self, address: str, token: str = "") -> None:
        self._client = InferenceServerClient(address, channel_args=NO_PROXY)
        self._headers = {f"triton-grpc-protocol-{TOKEN_HEADER}": token}

    async def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Arrays:
        """Run one inference within the call's deadline.

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
        with translated(model):
            answer = await self._client.infer(
                model,
                [_input(name, array) for name, array in inputs.items()],
                outputs=[InferRequestedOutput(name) for name in outputs],
                client_timeout=LONGEST_INFERENCE_S if remaining is None else max(remaining, 0.001),
            )
        return {name: answer.as_numpy(name) for name in outputs}

    async def load(self, model: str, timeout_s: float) -> None:
        """Load a model of the repository; raises :class:`BadInput` with the cause when it does not load."""
        try:
            await self._client.load_model(model, headers=self._headers, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise BadInput(load_reason(str(error.message())), field=model) from error

    async def is_live(self, timeout_s: float) -> bool:
        """Whether the server answers within ``timeout_s`` seconds."""
        try:
            return bool(await self._client.is_server_live(client_timeout=timeout_s))
        except InferenceServerException:
            return False

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        await self._client.close()


TOKEN_HEADER: Final = "reelmesh-token"  # noqa: S105 - a header's name
"""Key that tritonserver's restricted APIs ask for, behind its own prefix."""


@contextmanager
def translated(model: str) -> Iterator[None]:
    """Turn tritonclient's one exception into the error that its gRPC status stands for."""
    try:
        yield
    except InferenceServerException as error:
        status = str(error.status() or "").removeprefix("StatusCode.")
        kind = ERRORS.get(status, EngineFailed)
        raise kind(f"Triton: {foreign_text(error.message())}", field=model) from error


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


def _input(name: str, array: NDArray[Any]) -> InferInput:
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor

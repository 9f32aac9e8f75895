"""ServedModel: what a replica hands to its OipPlane, and the TensorEngine that a plain function makes; for replicas.

The one invariant: whoever is given a ServedModel owns its engine, and closes it once, after its last request.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import EngineFailed, LicenceForbids, ReelmeshError, Unsupported, foreign_text
from serving.protocol.oip import InferRequest, InferResponse

log = structlog.get_logger()

Infer = Callable[[InferRequest], Awaitable[InferResponse]]


class Executes(Protocol):
    """The part of a :class:`TensorEngine` that serves: everything but its construction."""

    async def execute(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ReelmeshError]:
        """Answer a batch, see :meth:`TensorEngine.execute`."""

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer one request of a decoupled model, see :meth:`TensorEngine.stream`."""

    async def close(self) -> None:
        """Free what was loaded; called once."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """One model as a replica serves it.

    Args:
        config: its config.pbtxt.
        versions: those that answer; a request without a version gets the highest. Requests reach the engine with
            ``model_version`` filled in, and only requests of one version share a batch.
        engine: runs it.
        instances: batches in flight at a time; 0 means as many as ``instance_group`` says. Typed engines, which bound
            themselves, ask for as many as the replica holds.
        waiting: requests that wait for an instance, at most, where config.pbtxt has no ``max_queue_size``; None means
            the plane's own bound.
        labels: names of an output's classes in order, by output (``label_filename``).
        refuses: says why commercial work may not reach it, if so; None where nothing forbids it.
    """

    config: ModelConfig
    versions: Sequence[str]
    engine: Executes
    instances: int = 0
    waiting: int | None = None
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refuses: Callable[[], LicenceForbids | None] | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.config.name)


class FunctionEngine:
    """A TensorEngine of a function that answers one request; the requests of a batch run side by side.

    Args:
        infer: answers one checked request; cancelled when its client goes away or its deadline passes.
    """

    def __init__(self, infer: Infer) -> None:
        self._infer = infer

    async def execute(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ReelmeshError]:
        """Answer each request by itself."""
        if len(requests) == 1:
            return [await self._infer(requests[0])]
        answers = await asyncio.gather(*map(self._infer, requests), return_exceptions=True)
        return [_outcome(answer, request) for answer, request in zip(answers, requests, strict=True)]

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """A function has one response."""
        raise Unsupported(f"model '{request.model_name}' is not decoupled")

    async def close(self) -> None:
        """The function belongs to its maker."""


def function_models(infer: Infer, configs: Mapping[str, ModelConfig], instances: int = 64) -> list[ServedModel]:
    """Models of version 1 that one function answers, ``instances`` requests of each at a time and none waiting."""
    return [ServedModel(config, ("1",), FunctionEngine(infer), instances, 0) for config in configs.values()]


def _outcome(answer: InferResponse | BaseException, request: InferRequest) -> InferResponse | ReelmeshError:
    if isinstance(answer, InferResponse | ReelmeshError):
        return answer
    if isinstance(answer, asyncio.CancelledError):
        raise answer
    log.error("oip_infer_failed", model=request.model_name, error=foreign_text(answer))
    return EngineFailed(f"{request.model_name}: {foreign_text(answer)}")

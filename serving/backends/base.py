"""The seams every backend fits: Engine and TensorEngine (inside a replica), and Backend (as the router sees it).

The one invariant: wire formats and processes stay behind them; engines see typed tasks, or checked tensors.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.cold_start import ColdStart
from serving.errors import ReelmeshError
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.model import Model
from serving.weights.cache import WeightsCache


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What a replica gives its engines.

    Args:
        artifacts: where media are read from and put.
        scratch: an existing folder on the node's disk; engines make and remove their own folders in it.
        threads: CPU threads one call may use.
        device: ``cpu`` or ``cuda:N``.
        gpu_share: part of the GPU that the replica leases for all of its models together.
        precision: of networks, where the operator overrides what their cards say.
        ask: answers a request that an engine's model makes to another model of the replica, with any number of
            responses; None where there is no other.
        weights: where engines find the weights of their models; None where no model has any.
        triton: where Triton serves a version of a model at this moment, for parts that it runs: an address as of
            :class:`serving.client.Mesh`. It blocks, and raises :class:`Unavailable`. None in a mesh without Triton.
    """

    artifacts: ArtifactStore
    scratch: Path
    threads: int = 1
    device: str = "cpu"
    gpu_share: float = 0.0
    precision: str | None = None
    ask: Callable[[InferRequest], AsyncIterator[InferResponse]] | None = None
    weights: WeightsCache | None = None
    triton: Callable[[str, int], str] | None = None


class Engine(Protocol):
    """Runs one model of a family; constructed as ``EngineClass(model, context)``, which loads it.

    ``run`` may be called concurrently from one event loop; long work goes to a thread (``asyncio.to_thread``) or a
    child process. Equal requests (seed included) give equal results.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        """Load the model; raises :class:`MissingDependency` or :class:`BadInput` when it cannot."""

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Answer one request of the model's task.

        Raises:
            ReelmeshError: of the fitting class; anything else is reported as ``EngineFailed``.
        """

    async def close(self) -> None:
        """Free what was loaded; called once."""


@runtime_checkable
class StartsCold(Protocol):
    """An engine that takes a while to load; its cold start is kept and shown."""

    cold_start: ColdStart

    async def warm_up(self) -> None:
        """Run one small request, and count it into ``cold_start``."""


class TensorEngine(Protocol):
    """Runs one model of task ``tensor`` as Triton's backends do: tensors in, tensors out.

    Constructed as ``EngineClass(model, context)``, which loads it. Requests are checked against config.pbtxt before,
    and batched by the replica's scheduler: ``execute`` is called with one batch at a time per instance.

    Attributes:
        config: config.pbtxt with what it leaves out completed from the model's files.
    """

    config: ModelConfig

    def __init__(self, model: Model, context: EngineContext) -> None:
        """Load the model; raises :class:`MissingDependency` or :class:`BadInput` when it cannot."""

    async def execute(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ReelmeshError]:
        """Answer a batch: one response or error for each request, in order; a raised error fails all of them.

        The requests' batch sizes add up to at most ``max_batch_size``; the engine joins them where that pays.
        """

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer one request of a decoupled model (``model_transaction_policy``) with any number of responses."""

    async def close(self) -> None:
        """Free what was loaded; called once."""


class Backend(Protocol):
    """Something that can run models; the router holds several."""

    name: str

    def serves(self, model: str) -> bool:
        """Whether this backend was asked to serve the model."""

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        """Run one request to its end; cancelling the awaiting task cancels the work."""

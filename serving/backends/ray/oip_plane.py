"""OipPlane: what the HTTP and gRPC servers of a Ray replica share; between the wire and the models' engines.

The one invariant: an engine sees only requests that fit the model's config.pbtxt and its licence, and every outcome is
counted.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving import telemetry
from serving.backends.ray.batch_rules import QUEUE_SIZE
from serving.backends.ray.in_place import answers_small
from serving.backends.ray.outputs import with_outputs_as_asked
from serving.backends.ray.running import Observe, RunningModel
from serving.backends.ray.served import ServedModel
from serving.errors import Unavailable, Unsupported
from serving.protocol.licences import COMMERCIAL
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_config import RequestCheck
from serving.protocol.oip_errors import check_version, unknown_model
from serving.protocol.oip_metadata import config_document, model_metadata
from serving.protocol.shared_memory import Regions

GRACE_S: Final = 30.0
"""Seconds that a model's requests in flight get when it is removed."""

Protocol = Literal["http", "grpc"]
_DECOUPLED: Final[dict[Protocol, str]] = {
    "http": "HTTP end point doesn't support models with decoupled transaction policy",
    "grpc": "ModelInfer RPC doesn't support models with decoupled transaction policy",
}


class OipPlane:
    """Answers for a set of models that may change while it serves.

    Args:
        models: those served from the beginning; their engines are the plane's from then on.
        regions: shared memory of inputs and outputs; None refuses it.
        observe: told every request that was answered, see :class:`RunningModel`.
        queue_size: requests that wait for a model which does not say itself how many may.
    """

    def __init__(
        self,
        models: Iterable[ServedModel] = (),
        regions: Regions | None = None,
        observe: Observe | None = None,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self._queue_size = queue_size
        self.regions = regions
        self._observe = observe
        self._models: dict[str, RunningModel] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.draining = False
        for model in models:
            self.add(model)

    def add(self, model: ServedModel) -> None:
        """Serve a model from now on.

        One of the same name is replaced: what it has in flight finishes there, then its engine is closed.
        """
        former = self._models.get(model.name)
        self._models[model.name] = RunningModel(model, self._observe, self._queue_size)
        if former is not None:
            retiring = asyncio.get_running_loop().create_task(former.retire(GRACE_S))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def remove(self, name: str, grace_s: float = GRACE_S) -> None:
        """Stop serving a model: refuse new requests, wait for those in flight, close its engine.

        Args:
            name: the model.
            grace_s: how long requests in flight may take; those left are cancelled.

        Raises:
            NotFound: it is not served.
        """
        running = self._running(name)
        del self._models[name]
        await running.retire(grace_s)
        if name not in self._models:
            # The gauge asks the model for its queue, and so would keep it in memory.
            telemetry.QUEUE_DEPTH.remove(name)

    async def close(self, grace_s: float = GRACE_S) -> None:
        """Remove every model."""
        self.draining = True
        running = list(self._models.values())
        self._models.clear()
        await asyncio.gather(*(each.retire(grace_s) for each in running), *self._retiring)

    def names(self) -> tuple[str, ...]:
        """The models served."""
        return tuple(self._models)

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet, of all models."""
        return sum(running.in_flight for running in self._models.values())

    def find(self, name: str, version: str = "") -> tuple[ModelConfig, str]:
        """Config and version that answer; raises :class:`NotFound` in Triton's words."""
        served = self._running(name, version).served
        return served.config, check_version(name, version, served.versions)

    def check(self, name: str, version: str = "") -> RequestCheck:
        """The check of a model's requests, for their decoders; raises :class:`NotFound` in Triton's words."""
        running = self._running(name, version)
        check_version(name, version, running.served.versions)
        return running.check

    def decoupled(self, name: str) -> bool:
        """Whether requests to a model may have any number of responses; False for one that is not served."""
        running = self._models.get(name)
        return running is not None and running.decoupled

    def refuses(self, name: str) -> bool:
        """Whether a model's licence refuses some uses; False for one that is not served."""
        running = self._models.get(name)
        return running is not None and running.served.refuses is not None

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Model metadata."""
        config, answering = self.find(name, version)
        return model_metadata(config, [answering] if version else self._running(name).served.versions)

    def config(self, name: str, version: str = "") -> dict[str, Any]:
        """Model configuration."""
        return config_document(self.find(name, version)[0])

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Statistics of one model, or of all; of one version, or of each."""
        if name:
            self.find(name, version)
        chosen = [self._models[name]] if name else self._models.values()
        return {"model_stats": [entry for running in chosen for entry in running.documents(version)]}

    async def infer(
        self, request: InferRequest, protocol: Protocol, deadline_unix_s: float | None = None
    ) -> InferResponse:
        """Check, run and count one request.

        Args:
            request: as decoded from the wire.
            protocol: which wire.
            deadline_unix_s: when its client gives up; None where the wire does not say.

        Raises:
            ReelmeshError: foreign errors become :class:`EngineFailed`.
        """
        running, request = self._admitted(request, deadline_unix_s)
        if running.decoupled:
            raise Unsupported(_DECOUPLED[protocol])
        return await self._as_asked(await running.infer(request, protocol), request, running)

    async def stream(
        self, request: InferRequest, protocol: Protocol, deadline_unix_s: float | None = None
    ) -> AsyncGenerator[InferResponse, None]:
        """The same for a request with any number of responses; one that is not decoupled has one.

        Close the iterator to cancel the work.
        """
        running, request = self._admitted(request, deadline_unix_s)
        if not running.decoupled:
            yield await self._as_asked(await running.infer(request, protocol), request, running)
            return
        async with contextlib.aclosing(running.stream(request, protocol)) as responses:
            async for response in responses:
                yield await self._as_asked(response, request, running)

    async def _as_asked(self, response: InferResponse, request: InferRequest, running: RunningModel) -> InferResponse:
        if not request.outputs:
            return response
        served = running.served
        work = partial(with_outputs_as_asked, batched=served.config.max_batch_size > 0)
        if answers_small(response):
            return work(response, request, served.labels, self.regions)
        return await asyncio.to_thread(work, response, request, served.labels, self.regions)

    def _running(self, name: str, version: str = "") -> RunningModel:
        running = self._models.get(name)
        if running is None:
            raise unknown_model(name, version)
        return running

    def _admitted(self, request: InferRequest, deadline_unix_s: float | None) -> tuple[RunningModel, InferRequest]:
        running = self._running(request.model_name, request.model_version)
        version = check_version(request.model_name, request.model_version, running.served.versions)
        if self.draining:
            raise Unavailable("the replica is shutting down", fix="send the request again")
        if (refuses := running.served.refuses) is not None and request.use == COMMERCIAL and (error := refuses()):
            raise error
        running.check(request)
        if request.model_version != version:
            request = replace(request, model_version=version)
        return running, running.timed(request, deadline_unix_s)

"""OipPlane: what the HTTP and gRPC servers of a Ray replica share; between the wire and the replica's infer function.

The one invariant: an infer function sees only requests that fit the model's config.pbtxt, and every outcome is counted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import structlog
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving import telemetry
from serving.errors import Cancelled, DeadlineExceeded, EngineFailed, ReelmeshError, Unavailable, foreign_text
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_config import check_request
from serving.protocol.oip_errors import check_version, unknown_model
from serving.protocol.oip_metadata import ModelStatistics, config_document, model_metadata
from serving.protocol.oip_parameters import timeout_s

log = structlog.get_logger()

Infer = Callable[[InferRequest], Awaitable[InferResponse]]
Protocol = Literal["http", "grpc"]


class OipPlane:
    """Answers for a fixed set of models.

    Args:
        infer: answers one checked request; cancelled when its client goes away.
        models: config.pbtxt by model name.
        versions: versions served, by model name; a model that is not in it has version 1.
    """

    def __init__(
        self, infer: Infer, models: Mapping[str, ModelConfig], versions: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._infer = infer
        self._models = models
        self._versions = versions or {}
        self._statistics = {name: ModelStatistics() for name in models}
        self.draining = False

    def names(self) -> tuple[str, ...]:
        """The models served."""
        return tuple(self._models)

    def find(self, name: str, version: str = "") -> tuple[ModelConfig, str]:
        """Config and version that answer; raises :class:`NotFound` in Triton's words."""
        config = self._models.get(name)
        if config is None:
            raise unknown_model(name, version)
        return config, check_version(name, version, self._served(name))

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Model metadata."""
        config, answering = self.find(name, version)
        return model_metadata(config, [answering] if version else self._served(name))

    def config(self, name: str, version: str = "") -> dict[str, Any]:
        """Model configuration."""
        return config_document(self.find(name, version)[0])

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Statistics of one model, or of all."""
        if name:
            _, version = self.find(name, version)
        entries = {name: self._statistics[name]} if name else self._statistics
        return {
            "model_stats": [
                counted.document(entry, version or self.find(entry)[1]) for entry, counted in entries.items()
            ]
        }

    async def infer(self, request: InferRequest, protocol: Protocol) -> InferResponse:
        """Check, run and count one request.

        Raises:
            ReelmeshError: foreign errors become :class:`EngineFailed`.
        """
        config, version = self.find(request.model_name, request.model_version)
        started, outcome = time.perf_counter(), "ok"
        gauge = telemetry.IN_FLIGHT.labels(request.model_name)
        gauge.inc()
        try:
            if self.draining:
                raise Unavailable("the replica is shutting down", fix="send the request again")
            check_request(config, request)
            response = await self._run(replace(request, model_version=version))
        except ReelmeshError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = Cancelled.code
            raise
        finally:
            gauge.dec()
            self._count(request, protocol, outcome, time.perf_counter() - started, config.max_batch_size)
        wanted = [output.name for output in request.outputs]
        outputs = {tensor.name: tensor for tensor in response.outputs}
        return replace(
            response,
            model_version=version,
            id=request.id,
            outputs=tuple(outputs[name] for name in wanted if name in outputs) if wanted else response.outputs,
        )

    async def _run(self, request: InferRequest) -> InferResponse:
        limit = timeout_s(request.parameters)
        try:
            async with asyncio.timeout(limit) as clock:
                return await self._infer(request)
        except TimeoutError as error:
            if not clock.expired():
                raise EngineFailed(f"{request.model_name}: {foreign_text(error)}") from error
            raise DeadlineExceeded(
                f"the request's timeout of {limit:g} s passed", field="parameters.timeout"
            ) from error
        except ReelmeshError:
            raise
        except Exception as error:
            log.exception("oip_infer_failed", model=request.model_name)
            raise EngineFailed(f"{request.model_name}: {foreign_text(error)}") from error

    def _count(
        self, request: InferRequest, protocol: Protocol, outcome: str, seconds: float, max_batch_size: int
    ) -> None:
        telemetry.REQUESTS.labels(request.model_name, protocol, outcome).inc()
        telemetry.REQUEST_SECONDS.labels(request.model_name, protocol).observe(seconds)
        counted = self._statistics[request.model_name]
        if outcome == "ok":
            counted.inferences += request.inputs[0].shape[0] if max_batch_size and request.inputs else 1
            counted.executions += 1
            counted.success_s += seconds
            counted.last_unix_ms = int(time.time() * 1000)
        else:
            counted.failures += 1
            counted.failure_s += seconds

    def _served(self, name: str) -> Sequence[str]:
        return self._versions.get(name, ("1",))

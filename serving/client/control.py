"""The calls about models rather than to them: ready, metadata, index, load, unload, regions; the base of mesh.Mesh.

The one invariant: each is one message there and one back, within its own bound of time.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2, service_pb2

from serving.client.channel import CallFailed, Channel
from serving.errors import EngineFailed, NotFound, ReelmeshError, Unavailable, foreign_text
from serving.protocol.control import ModelState
from serving.protocol.oip import TensorSpec

CONTROL_S: Final = 10.0
LOAD_S: Final = 120.0

M = TypeVar("M", bound=Message)


class ServerMetadata(NamedTuple):
    """What answers, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ModelMetadata(NamedTuple):
    """A model as the protocol describes it; -1 in a shape is any size."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Control:
    """Calls over one channel; every one raises :class:`ReelmeshError` of the class that fits."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def live(self, timeout_s: float = CONTROL_S) -> bool:
        """Whether a server answers."""
        try:
            answer = await self._ask("ServerLive", service_pb2.ServerLiveResponse, timeout_s=timeout_s)
        except ReelmeshError:
            return False
        return bool(answer.live)

    async def ready(self, model: str = "", version: str = "", timeout_s: float = CONTROL_S) -> bool:
        """Whether the model, or without one the whole mesh, takes inference; a model that is not known is not ready."""
        try:
            if not model:
                return bool(
                    (await self._ask("ServerReady", service_pb2.ServerReadyResponse, timeout_s=timeout_s)).ready
                )
            request = service_pb2.ModelReadyRequest(name=model, version=version)
            answer = await self._ask("ModelReady", service_pb2.ModelReadyResponse, request, model, timeout_s)
        except (NotFound, Unavailable):
            return False
        return bool(answer.ready)

    async def server(self) -> ServerMetadata:
        """What answers at this address."""
        answer = await self._ask("ServerMetadata", service_pb2.ServerMetadataResponse)
        return ServerMetadata(answer.name, answer.version, tuple(answer.extensions))

    async def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """A model's tensors and versions."""
        request = service_pb2.ModelMetadataRequest(name=model, version=version)
        answer = await self._ask("ModelMetadata", service_pb2.ModelMetadataResponse, request, model)
        inputs, outputs = (
            tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
            for tensors in (answer.inputs, answer.outputs)
        )
        return ModelMetadata(answer.name, tuple(answer.versions), answer.platform, inputs, outputs)

    async def config(self, model: str, version: str = "") -> model_config_pb2.ModelConfig:
        """A model's config.pbtxt, completed."""
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        return (await self._ask("ModelConfig", service_pb2.ModelConfigResponse, request, model)).config

    async def index(self, *, ready: bool = False) -> list[ModelState]:
        """Every model of the repository with its state; with ``ready`` only those that take inference."""
        request = service_pb2.RepositoryIndexRequest(ready=ready)
        answer = await self._ask("RepositoryIndex", service_pb2.RepositoryIndexResponse, request)
        try:
            return [
                ModelState(
                    name=entry.name, version=entry.version, state=entry.state or "UNAVAILABLE", reason=entry.reason
                )
                for entry in answer.models
            ]
        except ValidationError as error:
            raise EngineFailed(f"the server's index is broken: {foreign_text(error)}") from error

    async def load(
        self,
        model: str,
        *,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float = LOAD_S,
    ) -> None:
        """Load or reload a model.

        Args:
            model: its name.
            config: its whole config.pbtxt as JSON, in the place of the file.
            files: contents by path in the model's folder (``1/model.onnx``), in its place; wants a config.
            timeout_s: how long it may take.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = json.dumps(config)
        for path, content in (files or {}).items():
            request.parameters[f"file:{path}"].bytes_param = content
        await self._ask("RepositoryModelLoad", service_pb2.RepositoryModelLoadResponse, request, model, timeout_s)

    async def unload(self, model: str, *, dependents: bool = False, timeout_s: float = LOAD_S) -> None:
        """Unload a model, with ``dependents`` also the models that only an ensemble had asked for."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        request.parameters["unload_dependents"].bool_param = dependents
        await self._ask("RepositoryModelUnload", service_pb2.RepositoryModelUnloadResponse, request, model, timeout_s)

    async def register(self, name: str, size: int, timeout_s: float = CONTROL_S) -> None:
        """Have the server map the segment ``/name`` of its machine's shared memory as region ``name``."""
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=size)
        answer = service_pb2.SystemSharedMemoryRegisterResponse
        await self._ask("SystemSharedMemoryRegister", answer, request, name, timeout_s)

    async def unregister(self, name: str, timeout_s: float = CONTROL_S) -> None:
        """Have the server forget a region; one that it does not know is no error."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        answer = service_pb2.SystemSharedMemoryUnregisterResponse
        try:
            await self._ask("SystemSharedMemoryUnregister", answer, request, name, timeout_s)
        except NotFound:
            return

    async def registered(self, name: str, timeout_s: float = CONTROL_S) -> bool:
        """Whether the server knows a region."""
        answer = await self._ask(
            "SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusResponse, place=name, timeout_s=timeout_s
        )
        return name in answer.regions

    async def _ask(
        self,
        method: str,
        answer: type[M],
        request: Message | None = None,
        place: str = "",
        timeout_s: float = CONTROL_S,
    ) -> M:
        message = b"" if request is None else request.SerializeToString()
        try:
            return answer.FromString(await self._channel.unary(method, message, timeout_s, place))
        except CallFailed as failure:
            raise failure.how.error from failure.__cause__
        except DecodeError as error:
            raise EngineFailed(f"the server's answer to {method} is broken", field=place or None) from error

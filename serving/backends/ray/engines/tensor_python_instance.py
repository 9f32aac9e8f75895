"""Instance: one ``TritonPythonModel`` in a thread of its own; held by tensor_python.

The one invariant: every method of the model is called in that one thread, as Triton calls it in one process.
"""

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import structlog
from google.protobuf.json_format import ParseDict, ParseError
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.engines import tensor_python_types as types
from serving.backends.ray.engines.tensor_python_complete import ModelConfig as Completion
from serving.backends.ray.engines.tensor_python_module import ModelModules
from serving.backends.ray.engines.tensor_python_sink import ResponseQueue
from serving.backends.ray.engines.tensor_python_utils import build_utils
from serving.errors import BadInput, EngineFailed, ReelmeshError, foreign_text
from serving.protocol.oip import InferRequest
from serving.protocol.oip_metadata import config_document

log = structlog.get_logger()

CLASS: Final = "TritonPythonModel"
T = TypeVar("T")
Response = types.InferenceResponse | ReelmeshError | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as what an instance runs.

    Args:
        name: the model's.
        folder: the version folder.
        file: the model's Python file.
        kind: ``CPU`` or ``GPU``.
        device: number of the GPU.
        number: of the instance, from 0.
    """

    name: str
    folder: Path
    file: Path
    kind: str
    device: int
    number: int

    @property
    def instance(self) -> str:
        """The instance's name, as Triton makes it."""
        return f"{self.name}_0_{self.number}"


class Instance:
    """One instance.

    Args:
        place: where it runs.
        caller: runs requests that the model makes to others.
    """

    def __init__(self, place: Place, caller: types.Caller | None) -> None:
        self._place = place
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=place.instance)
        self._utils = build_utils(place.name, place.folder, caller)
        self._modules = ModelModules([place.folder, place.folder.parent], self._utils)
        self._module: ModuleType | None = None
        self._model: Any = None
        self._outputs: tuple[str, ...] = ()
        self.pending = 0

    def complete(self, config: ModelConfig) -> ModelConfig:
        """The configuration as the model completes it (``auto_complete_config``).

        Raises:
            BadInput: the file does not load, or the model's completion is none.
        """
        return self._blocking(lambda: self._complete(config))

    def start(self, config: ModelConfig) -> None:
        """Load the model's file and let it initialize.

        Raises:
            BadInput: it raised.
        """
        self._outputs = tuple(output.name for output in config.output)
        self._blocking(lambda: self._start(config))

    async def execute(self, requests: Sequence[InferRequest], queues: Sequence[ResponseQueue]) -> list[Response]:
        """One batch; None for each request whose response goes through its queue.

        Raises:
            EngineFailed: the model raised, or gave back what is no list of responses.
        """
        self.pending += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._execute, requests, queues)
        finally:
            self.pending -= 1

    def close(self) -> None:
        """Let the model finalize, and forget it; blocks until its thread is done."""
        self._thread.submit(self._finalize).exception()
        self._thread.shutdown()
        self._modules.close()

    def _blocking(self, work: Callable[[], T]) -> T:
        try:
            return self._thread.submit(work).result()
        except ReelmeshError:
            raise
        except BaseException as error:  # a model may raise anything, SystemExit too
            raise BadInput(
                f"failed to load '{self._place.name}' version {self._place.folder.name}: "
                f"{type(error).__name__}: {foreign_text(error)}",
                field=self._place.file.name,
            ) from error

    def _loaded(self) -> ModuleType:
        if self._module is None:
            module = self._modules.load(self._place.file)
            if not hasattr(module, CLASS):
                raise BadInput(f"there is no class {CLASS}", field=f"{self._place.name}/{self._place.file.name}")
            self._module = module
        return self._module

    def _complete(self, config: ModelConfig) -> ModelConfig:
        completer = getattr(getattr(self._loaded(), CLASS), "auto_complete_config", None)
        if completer is None:
            return config
        answer = completer(Completion(config_document(config)))
        if not isinstance(answer, Completion):
            raise BadInput(
                f"auto_complete_config of model '{self._place.name}' must return the ModelConfig it was given",
                field=self._place.file.name,
            )
        try:
            return ParseDict(answer.as_dict(), ModelConfig())
        except ParseError as error:
            raise BadInput(
                f"auto_complete_config of model '{self._place.name}' made no ModelConfig: {foreign_text(error)}",
                field=self._place.file.name,
            ) from error

    def _start(self, config: ModelConfig) -> None:
        self._model = getattr(self._loaded(), CLASS)()
        if hasattr(self._model, "initialize"):
            place = self._place
            self._model.initialize(
                {
                    "model_config": json.dumps(config_document(config)),
                    "model_instance_kind": place.kind,
                    "model_instance_name": place.instance,
                    "model_instance_device_id": str(place.device),
                    "model_repository": str(place.folder.parent),
                    "model_version": place.folder.name,
                    "model_name": place.name,
                }
            )

    def _execute(self, requests: Sequence[InferRequest], queues: Sequence[ResponseQueue]) -> list[Response]:
        kind = self._utils.InferenceRequest
        shown = [
            types.incoming(asked, self._outputs, queue, kind) for asked, queue in zip(requests, queues, strict=True)
        ]
        try:
            answers = self._model.execute(shown)
            if inspect.iscoroutine(answers):
                answers = asyncio.run(answers)
        except BaseException as error:  # a model may raise anything; it must not end the replica
            log.warning("model_failed", model=self._place.name, exc_info=error)
            raise self._failed(f"{type(error).__name__}: {foreign_text(error)}") from error
        return self._checked(answers, len(requests))

    def _checked(self, answers: object, count: int) -> list[Response]:
        if answers is None:
            return [None] * count
        if not isinstance(answers, Sequence):
            raise self._failed(f"Expected a list in the execute return, found type '{type(answers).__name__}'.")
        if len(answers) != count:
            raise self._failed(
                "number of InferenceResponse objects do not match number of InferenceRequest objects. "
                f"InferenceRequest size is:{count}, and InferenceResponse size is:{len(answers)}"
            )
        for answer in answers:
            if answer is not None and not isinstance(answer, types.InferenceResponse):
                raise self._failed(
                    "Expected an 'InferenceResponse' object in the execute function return list, "
                    f"found type '{type(answer).__name__}'."
                )
        return list(answers)

    def _failed(self, problem: str) -> EngineFailed:
        return EngineFailed(
            f"Failed to process the request(s) for model instance '{self._place.instance}', message: {problem}"
        )

    def _finalize(self) -> None:
        finalize, self._model = getattr(self._model, "finalize", None), None
        if finalize is None:
            return
        try:
            finalize()
        except BaseException as error:  # a model may raise anything; it is leaving
            log.warning("model_finalize_failed", model=self._place.name, error=foreign_text(error))

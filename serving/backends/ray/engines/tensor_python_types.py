"""What a python-backend ``model.py`` handles: tensors, requests, responses; used by tensor_python.

These are the classes of Triton's ``triton_python_backend_utils`` with the same names, methods and constants, so that a
model.py runs unchanged; documented at https://github.com/triton-inference-server/python_backend.
The one invariant: what a model does with these objects reaches the mesh only through the response it gives back.
"""

import json
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from serving.backends.ray.engines.tensor_config import Array
from serving.backends.ray.engines.tensor_python_dlpack import CPU, from_capsule, to_capsule
from serving.backends.ray.engines.tensor_python_errors import TritonError, TritonModelException
from serving.protocol import oip

Parameters = Mapping[str, oip.Parameter]

FLAG_START: Final = 1
FLAG_END: Final = 2
FINAL: Final = 1
_RESERVED: Final = frozenset({"sequence_id", "sequence_start", "sequence_end", "priority", "timeout"})
_PARAMETERS: Final = (bool, int, float, str)


class Tensor:
    """A named array; strings are arrays of objects (bytes)."""

    def __init__(self, name: str, array: Array) -> None:
        self._name = name
        self._array = np.asarray(array)

    def name(self) -> str:
        """Its name."""
        return self._name

    def as_numpy(self) -> Array:
        """The array; a model may write into it."""
        return self._array

    def triton_dtype(self) -> str:
        """The datatype as config.pbtxt writes it."""
        return oip.DATATYPES[oip.datatype_of(self._array)].config

    def shape(self) -> list[int]:
        """Sizes."""
        return list(self._array.shape)

    def is_cpu(self) -> bool:
        """Always: Ray replicas hand tensors over in main memory."""
        return True

    def to_dlpack(self) -> Any:  # noqa: ANN401  a capsule
        """A DLPack capsule over the same memory."""
        return to_capsule(self._array)

    def __dlpack__(self, **_options: Any) -> Any:  # noqa: ANN401  as the array standard has it
        return to_capsule(self._array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> "Tensor":  # noqa: ANN401  a capsule or whatever gives one
        """A tensor over the memory of a DLPack capsule, or of an object that has ``__dlpack__``."""
        return Tensor(name, from_capsule(tensor))


class InferenceResponse:
    """What a model answers: tensors, or an error."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: Any = None,  # noqa: ANN401  a TritonError, from code that nobody has checked
        parameters: Any = "",  # noqa: ANN401  JSON text or a mapping, from code that nobody has checked
    ) -> None:
        self._outputs = list(output_tensors or ())
        known = error is None or isinstance(error, TritonError)
        self._error: TritonError | None = error if known else TritonError(str(error))
        found = json.loads(parameters or "{}") if isinstance(parameters, str) else parameters
        if not isinstance(found, Mapping) or any(type(value) not in _PARAMETERS for value in found.values()):
            raise TritonModelException("parameters must be a dictionary of strings, numbers and booleans")
        self._parameters: dict[str, oip.Parameter] = dict(found)

    def output_tensors(self) -> list[Tensor]:
        """The tensors."""
        return self._outputs

    def has_error(self) -> bool:
        """Whether it says what went wrong instead."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """What went wrong."""
        return self._error

    def parameters(self) -> str:
        """The parameters as JSON."""
        return json.dumps(self._parameters)

    def parameter_values(self) -> dict[str, oip.Parameter]:
        """The parameters as they travel; ours, Triton has no such method."""
        return self._parameters


class Sink(Protocol):
    """Where the responses of one request go."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for them any more."""

    def send(self, response: InferenceResponse | None, *, final: bool) -> None:
        """Take one; from any thread."""


class Caller(Protocol):
    """Runs requests that a model makes to other models."""

    def call(self, request: "InferenceRequest", *, decoupled: bool) -> Any:  # noqa: ANN401  one response or an iterator
        """Block until it is answered."""

    async def acall(self, request: "InferenceRequest", *, decoupled: bool) -> Any:  # noqa: ANN401  as call
        """The same without blocking the thread."""


class InferenceResponseSender:
    """Sends any number of responses to one request, from any thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._closed = False
        self._lock = threading.Lock()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response; with the flag TRITONSERVER_RESPONSE_COMPLETE_FINAL, which may come alone, the last one."""
        if flags not in (0, FINAL):
            raise TritonModelException(
                f"Unable to send response. Unsupported flag provided: {flags}. Supported flags are 0 and "
                "TRITONSERVER_RESPONSE_COMPLETE_FINAL."
            )
        if response is None and flags == 0:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        with self._lock:
            if self._closed:
                raise TritonModelException("Unable to send response. Response sender has been closed.")
            self._closed = flags == FINAL
        self._sink.send(response, final=flags == FINAL)

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._sink.cancelled


class InferenceRequest:
    """A request: one that came to the model, or one that it makes to another (``exec``)."""

    caller: ClassVar[Caller | None] = None
    """Set in the class that a model sees."""

    def __init__(  # noqa: PLR0917  Triton's own order
        self,
        model_name: str,
        requested_output_names: Sequence[str],
        inputs: Sequence[Tensor],
        request_id: str = "",
        correlation_id: int | str = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: object = None,
        trace: object = None,
        parameters: str | Parameters = "",
        sink: Sink | None = None,
    ) -> None:
        self._model_name, self._model_version = model_name, model_version
        self._outputs, self._inputs = list(requested_output_names), list(inputs)
        self._request_id, self._correlation_id = request_id, correlation_id
        self._flags, self._timeout = flags, timeout
        self._preferred_memory, self._trace = preferred_memory, trace
        self._parameters = parameters if isinstance(parameters, str) else json.dumps(dict(parameters))
        self._sink = sink

    def inputs(self) -> list[Tensor]:
        """The tensors."""
        return self._inputs

    def requested_output_names(self) -> list[str]:
        """Names of the outputs the client wants."""
        return self._outputs

    def request_id(self) -> str:
        """The client's own id, or empty."""
        return self._request_id

    def correlation_id(self) -> int | str:
        """The sequence the request belongs to; 0 for none."""
        return self._correlation_id

    def model_name(self) -> str:
        """The model."""
        return self._model_name

    def model_version(self) -> int:
        """Its version; -1 lets the server choose."""
        return self._model_version

    def flags(self) -> int:
        """TRITONSERVER_REQUEST_FLAG_*."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Set TRITONSERVER_REQUEST_FLAG_*."""
        self._flags = flags

    def timeout(self) -> int:
        """The request's timeout in microseconds; 0 for none."""
        return self._timeout

    def preferred_memory(self) -> object:
        """What the maker said; results are in main memory whatever it is."""
        return self._preferred_memory

    def trace(self) -> object:
        """What the maker said."""
        return self._trace

    def parameters(self) -> str:
        """The parameters that have no meaning of their own, as JSON."""
        return self._parameters

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._sink is not None and self._sink.cancelled

    def get_response_sender(self) -> InferenceResponseSender:
        """What answers the request, now or later."""
        if self._sink is None:
            raise TritonModelException("this request was made by the model; it has no response sender")
        return InferenceResponseSender(self._sink)

    def exec(self, decoupled: bool = False, execution_timeout: int | None = None) -> Any:  # noqa: ANN401  see Caller
        """Ask another model of this replica and wait: a response, or with ``decoupled`` an iterator of them."""
        return self._caller().call(self, decoupled=decoupled)

    def async_exec(self, decoupled: bool = False) -> Coroutine[Any, Any, Any]:
        """The same, awaited."""
        return self._caller().acall(self, decoupled=decoupled)

    def _caller(self) -> Caller:
        if self.caller is None:
            raise TritonModelException("this replica gives its models no way to call others")
        return self.caller


def incoming(
    request: oip.InferRequest, outputs: Sequence[str], sink: Sink, kind: type[InferenceRequest]
) -> InferenceRequest:
    """A request as its model sees it; the arrays are the model's own copies.

    Args:
        request: as checked.
        outputs: names of all the model's outputs.
        sink: takes the responses.
        kind: the class that the model knows.
    """
    parameters = request.parameters
    correlation = parameters.get("sequence_id", 0)
    flags = (FLAG_START if parameters.get("sequence_start") else 0) | (
        FLAG_END if parameters.get("sequence_end") else 0
    )
    return kind(
        request.model_name,
        [output.name for output in request.outputs] or outputs,
        [Tensor(tensor.name, writable(tensor)) for tensor in request.inputs],
        request.id,
        correlation if isinstance(correlation, str) else int(correlation),
        int(request.model_version or -1),
        flags,
        int(parameters.get("timeout", 0)),
        parameters={name: value for name, value in parameters.items() if name not in _RESERVED},
        sink=sink,
    )


def writable(tensor: oip.Tensor) -> Array:
    """The tensor's elements in memory of their own."""
    array = tensor.array()
    return array if tensor.datatype == "BYTES" else array.copy()

"""TritonRunner: answers a variant's calls by a Triton that serves the part; used where a card says ``runtime: triton``.

Tensors go by gRPC. Shared memory would be faster from 1 MiB on, and Triton maps it for those alone who have the token
of its own replica, which engines have not.

The one invariant: the version that answers is the version that was chosen, whatever else Triton serves.
"""

from collections.abc import Callable
from typing import Final

import grpc

from serving.backends.ray.parts.calls import Tensors
from serving.client.channel import MAX_MESSAGE_BYTES, is_local, parse_address
from serving.client.request import build_request, to_bytes
from serving.client.result import Result, from_bytes
from serving.client.status import error_of
from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, Unavailable
from serving.protocol.oip_grpc import SERVICE
from serving.repository.part_file import Variant

Find = Callable[[str, int], str]
"""Says where Triton serves a version of a model; blocks, and raises :class:`Unavailable`."""

CALL_S: Final = 120.0
"""Bound on one call of a part, as of any inference without a deadline: an engine's step is not cut short."""
_METHOD: Final = f"/{SERVICE}/ModelInfer"
_FIX: Final = "see why with `reelmesh models list`, or set runtime: onnxruntime in model.yaml"


class TritonRunner:
    """A version of a part's model in Triton; a :class:`serving.backends.ray.parts.onnx_runner.Runner`.

    Args:
        model: the part's folder in the repository.
        version: of it.
        variant: its tensors.
        find: where Triton is; asked before the first call, and again whenever it is there no more.
        timeout_s: bound on one call.
    """

    def __init__(self, model: str, version: int, variant: Variant, find: Find, timeout_s: float = CALL_S) -> None:
        self._model, self._version, self._variant = model, version, variant
        self._find, self._timeout_s = find, timeout_s
        self._outputs = [tensor.name for tensor in variant.outputs]
        self._channel: grpc.Channel | None = None

    def run(self, inputs: Tensors) -> Tensors:
        """See :class:`Runner`. Inputs on a CPU are sent as they lie there; outputs are copied once, to be written to.

        Raises:
            Unavailable, DeadlineExceeded: Triton does not answer, or not in time; what was asked may be asked again.
            NotFound: it does not serve this version.
            EngineFailed: it cannot run it.
        """
        import torch

        device = next(iter(inputs.values())).device
        arrays = {tensor.name: inputs[tensor.name].detach().cpu().numpy() for tensor in self._variant.inputs}
        request = build_request(self._model, arrays, version=str(self._version), outputs=self._outputs)
        found = self._asked(to_bytes(request))
        if missing := [name for name in self._outputs if name not in found]:
            raise EngineFailed(f"Triton: no output {missing[0]!r} in the answer", field=self._place, fix=_FIX)
        return {name: torch.tensor(found[name], device=device) for name in self._outputs}

    def close(self) -> None:
        """See :class:`Runner`."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    @property
    def _place(self) -> str:
        return f"{self._model}/{self._version}"

    def _asked(self, message: bytes) -> Result:
        """The answer; asked once more where Triton listens now, if it has started again since the last call."""
        known = self._channel is not None
        try:
            return self._send(message)
        except Unavailable:
            self.close()
            if not known:
                raise
        return self._send(message)

    def _send(self, message: bytes) -> Result:
        if self._channel is None:
            self._channel = _channel(self._find(self._model, self._version))
        try:
            answer: bytes = self._channel.unary_unary(_METHOD)(message, timeout=self._timeout_s)
        except grpc.RpcError as error:
            told = error_of(error.code().name, error.details(), self._place, "Triton")
            raise _as_fault(told) from error
        return from_bytes(answer)


def _channel(address: str) -> grpc.Channel:
    target, _ = parse_address(address)
    options = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        *([("grpc.enable_http_proxy", 0)] if is_local(target) else []),
    ]
    return grpc.insecure_channel(target, options=options)


def _as_fault(told: ReelmeshError) -> ReelmeshError:
    """What Triton says of a call that the mesh made itself: never the client's fault, and with the next step."""
    kind = EngineFailed if isinstance(told, BadInput) else type(told)
    fix = "load this version in Triton, or set runtime: onnxruntime in model.yaml" if kind is NotFound else _FIX
    return kind(told.problem, field=told.field, fix=fix)

"""What config.pbtxt says of a model's tensors, and checks of requests against it; for OIP servers and lint.

The one invariant: a request that passes :func:`check_request` has only tensors the model knows, each of its
datatype and shape, so that an engine never meets a surprise. Error texts follow Triton's wording where
Triton has one.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput
from serving.protocol.oip import DATATYPES, InferRequest, TensorSpec

DATATYPE_OF_CONFIG: Final = {datatype.config: name for name, datatype in DATATYPES.items()}
"""config.pbtxt's name of a datatype to the protocol's, for example TYPE_STRING to BYTES."""


def input_specs(config: pb.ModelConfig) -> tuple[TensorSpec, ...]:
    """The model's inputs as clients see them: with a batch dimension where ``max_batch_size`` is above 0."""
    return tuple(_spec(config, tensor, tensor.optional) for tensor in config.input)


def output_specs(config: pb.ModelConfig) -> tuple[TensorSpec, ...]:
    """The model's outputs as clients see them."""
    return tuple(_spec(config, tensor, False) for tensor in config.output)


def check_request(config: pb.ModelConfig, request: InferRequest) -> None:
    """Raise :class:`BadInput` unless the request fits the model."""
    RequestCheck(config)(request)


class RequestCheck:
    """Checks of requests to one model, whose configuration is read once.

    Args:
        config: as parsed.
    """

    def __init__(self, config: pb.ModelConfig) -> None:
        self._model = config.name
        self.inputs = input_specs(config)
        self._specs = {spec.name: spec for spec in self.inputs}
        self._required = [spec.name for spec in self.inputs if not spec.optional]
        self._outputs = frozenset(output.name for output in config.output)
        self._max_batch_size = int(config.max_batch_size)
        # A tensor that holds a shape has no batch dimension of its own to compare.
        self._unbatched = frozenset(tensor.name for tensor in config.input if tensor.is_shape_tensor)

    def __call__(self, request: InferRequest) -> None:
        """Raise :class:`BadInput` unless the request fits the model."""
        names = [tensor.name for tensor in request.inputs]
        _check_names(request.model_name, "input", names, self._specs)
        if request.outputs:
            _check_names(request.model_name, "output", [output.name for output in request.outputs], self._outputs)
        missing = [name for name in self._required if name not in names]
        if missing:
            raise BadInput(
                f"expected {len(self._specs)} inputs but got {len(request.inputs)} inputs "
                f"for model '{request.model_name}'. Missing inputs: {missing}",
                field=missing[0],
            )
        for tensor in request.inputs:
            self.declared(tensor.name, tensor.datatype, tensor.shape)
        self._check_batch(request)

    def declared(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        """Raise :class:`BadInput` unless the model has such an input; decoders ask before they look at its data."""
        spec = self._specs.get(name)
        if spec is None:
            raise _unexpected(self._model, "input", name)
        if datatype != spec.datatype:
            raise BadInput(
                f"inference input '{name}' data-type is '{datatype}', "
                f"but model '{self._model}' expects '{spec.datatype}'",
                field=name,
            )
        _check_sizes(self._model, shape, spec, self._max_batch_size)

    def _check_batch(self, request: InferRequest) -> None:
        if not self._max_batch_size or len(request.inputs) == 1:
            return
        batched = [tensor for tensor in request.inputs if tensor.name not in self._unbatched]
        for tensor in batched:
            if tensor.shape[0] != batched[0].shape[0]:
                raise BadInput(
                    f"input '{tensor.name}' batch size does not match other inputs for '{request.model_name}'",
                    field=tensor.name,
                )


def _spec(config: pb.ModelConfig, tensor: pb.ModelInput | pb.ModelOutput, optional: bool) -> TensorSpec:
    batch = (-1,) if config.max_batch_size > 0 else ()
    datatype = DATATYPE_OF_CONFIG.get(pb.DataType.Name(tensor.data_type), "")
    return TensorSpec(tensor.name, datatype, (*batch, *tensor.dims), optional)


def _check_names(model: str, kind: str, names: Sequence[str], known: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name not in known:
            raise _unexpected(model, kind, name)
        if name in seen:
            raise BadInput(f"{kind} '{name}' already exists in request", field=name)
        seen.add(name)


def _unexpected(model: str, kind: str, name: str) -> BadInput:
    return BadInput(f"unexpected inference {kind} '{name}' for model '{model}'", field=name)


def _check_sizes(model: str, shape: Sequence[int], spec: TensorSpec, max_batch_size: int) -> None:
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise BadInput(
            f"unexpected shape for input '{spec.name}' for model '{model}'. "
            f"Expected {_list(spec.shape)}, got {_list(shape)}",
            field=spec.name,
        )
    if max_batch_size and not 1 <= shape[0] <= max_batch_size:
        raise BadInput(
            f"inference request batch-size must be <= {max_batch_size} for '{model}', and at least 1",
            field=spec.name,
        )


def _list(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"

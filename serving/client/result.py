"""Result: the answer to an inference as arrays by name; made by serving.client.mesh.

The one invariant: an array is a read-only view of what came, so a big answer is not copied again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from serving.client.regions import Lease
from serving.client.request import Array, Placed
from serving.errors import BadInput, EngineFailed
from serving.protocol.oip import DATATYPES, Parameters, Raw, Tensor, check_elements, check_shape
from serving.protocol.oip_grpc import read_parameters
from serving.protocol.oip_wire import RESPONSE_CONTENTS, split_contents


@dataclass(frozen=True, slots=True)
class Class:
    """One of the classes that the parameter ``classification`` asks for."""

    score: float
    index: int
    label: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Result(Mapping[str, Array]):
    """An answer; ``result["OUTPUT"]`` is an array of the output's own dtype and shape, BYTES an array of ``bytes``."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]
    parameters: Parameters = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def classes(self, name: str) -> list[list[Class]]:
        """The best classes of an output asked for with ``outputs={name: how many}``: for each of the batch, best first.

        Raises:
            BadInput: that output holds no classes.
        """
        array = self.outputs[name]
        rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
        return [[_class(name, element) for element in row] for row in rows.tolist()]


def from_bytes(message: Raw, lease: Lease | None = None, outputs: Mapping[str, Placed] | None = None) -> Result:
    """The result in a serialized ModelInferResponse; what was placed is looked at in the lease's region.

    Raises:
        EngineFailed: the server's answer is not one.
    """
    try:
        rest, contents = split_contents(message, RESPONSE_CONTENTS)
        response = pb.ModelInferResponse.FromString(rest)
        arrays = _arrays(response, contents, lease, outputs or {})
        parameters = read_parameters(response.parameters, "parameters")
    except (DecodeError, BadInput) as error:
        raise EngineFailed(f"the server's answer is broken: {error}") from error
    return Result(response.model_name, response.model_version, response.id, arrays, parameters)


def _arrays(
    response: pb.ModelInferResponse, contents: list[memoryview], lease: Lease | None, placed: Mapping[str, Placed]
) -> dict[str, Array]:
    # Triton sends an empty entry for what it put into shared memory; others may send none.
    all_inline = len(contents) == len(response.outputs)
    inline = iter(contents)
    arrays = {}
    for output in response.outputs:
        place = placed.get(output.name)
        data: Raw | None = next(inline, None) if place is None or all_inline else b""
        if data is None:
            raise BadInput("has no raw contents", field=output.name)
        if lease is not None and place is not None and not len(data):
            data = _shared(output, lease, place)
        arrays[output.name] = Tensor(output.name, output.datatype, tuple(output.shape), data).array()
    return arrays


def _shared(output: pb.ModelInferResponse.InferOutputTensor, lease: Lease, place: Placed) -> Raw:
    elements = check_shape(output.name, output.datatype, output.shape)
    element_bytes = DATATYPES[output.datatype].size_bytes
    if element_bytes is None:
        whole = lease.segment.view(place.offset, place.size)
        return bytes(whole[: check_elements(output.name, whole, elements, whole=False)])
    if elements * element_bytes > place.size:
        raise BadInput(f"is said to have {elements} elements, more than its region holds", field=output.name)
    return lease.read(place.offset, elements * element_bytes)


def _class(name: str, element: object) -> Class:
    words = element.decode(errors="replace").split(":", 2) if isinstance(element, bytes) else []
    try:
        return Class(float(words[0]), int(words[1]), words[2] if len(words) > 2 else "")  # noqa: PLR2004
    except (IndexError, ValueError):
        raise BadInput("holds no classes", field=name, fix=f"ask for them: outputs={{{name!r}: 5}}") from None

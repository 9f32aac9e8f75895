"""Whether shapes are possible, and tensors written as JSON have as many elements; asked by the gateway before Triton.

The one invariant: nothing is allocated by what a shape says. Triton 2.51 does that: a shape of a terabyte ends it
before it looks at the one element that came, and of one whose bytes overflow it counts none and hands it to a model.
"""

from collections.abc import Mapping

from pydantic import JsonValue
from tritonclient.grpc import service_pb2 as pb

from serving.errors import BadInput, shown
from serving.protocol.oip import DATATYPES, MAX_NAME_CHARS, check_shape


def check_json_shapes(request: Mapping[str, JsonValue]) -> None:
    """Raise :class:`BadInput` for an input with an impossible shape, or whose ``data`` do not fit it.

    What else may be wrong with an input, the replica says.

    Args:
        request: an inference request, parsed.
    """
    inputs = request.get("inputs")
    for tensor in inputs if isinstance(inputs, list) else ():
        if isinstance(tensor, dict):
            _check_tensor(tensor)


def check_message_shapes(message: pb.ModelInferRequest) -> None:
    """Raise :class:`BadInput` for an input with an impossible shape."""
    for tensor in message.inputs:
        if tensor.datatype in DATATYPES:
            check_shape(tensor.name[:MAX_NAME_CHARS], tensor.datatype, tensor.shape)


def _check_tensor(tensor: Mapping[str, JsonValue]) -> None:
    name, datatype, shape = str(tensor.get("name"))[:MAX_NAME_CHARS], str(tensor.get("datatype")), tensor.get("shape")
    sizes = [size for size in shape if type(size) is int] if isinstance(shape, list) else []
    whole = isinstance(shape, list) and len(sizes) == len(shape)
    if "data" not in tensor:
        if whole and datatype in DATATYPES:
            check_shape(name, datatype, sizes)
        return
    if not whole:
        raise BadInput(f"must be a list of whole numbers, not {shown(shape)}", field=f"{name}.shape")
    wanted, found = check_shape(name, datatype, sizes), _leaves(tensor["data"])
    if found != wanted:
        raise BadInput(
            f"unexpected number of input elements for '{name}': {found} where the shape {shown(shape)} has {wanted}",
            field=f"{name}.data",
        )


def _leaves(data: JsonValue) -> int:
    count, waiting = 0, [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        else:
            count += 1
    return count

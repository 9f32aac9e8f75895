"""Whether tensors written as JSON have as many elements as their shapes say; asked by the gateway before Triton.

The one invariant: nothing is allocated by what a shape says. Triton 2.51 does that: a shape of a terabyte ends it, or
one whose product overflows, before it looks at the one element that came.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from serving.errors import BadInput, shown
from serving.protocol.oip import MAX_NAME_CHARS, check_shape


def check_json_shapes(request: Mapping[str, JsonValue]) -> None:
    """Raise :class:`BadInput` for an input whose ``data`` and ``shape`` do not fit; others' faults are the replica's.

    Args:
        request: an inference request, parsed.
    """
    inputs = request.get("inputs")
    for tensor in inputs if isinstance(inputs, list) else ():
        if isinstance(tensor, dict) and "data" in tensor:
            _check_tensor(tensor)


def _check_tensor(tensor: Mapping[str, JsonValue]) -> None:
    name, datatype, shape = str(tensor.get("name"))[:MAX_NAME_CHARS], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise BadInput(f"must be a list of whole numbers, not {shown(shape)}", field=f"{name}.shape")
    sizes = [size for size in shape if isinstance(size, int)]
    wanted = check_shape(name, str(datatype), sizes)
    found = _leaves(tensor["data"])
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

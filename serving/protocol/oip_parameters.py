"""Parameters of requests and tensors: their types, the reserved names, deadline and priority; used by the
decoders.

The one invariant: a reserved name with a wrong type is refused, never passed on to an engine.
"""

from typing import Final

from serving.errors import BadInput
from serving.protocol.oip import Parameter, Parameters, RequestedOutput

MAX_PARAMETERS: Final = 256
MAX_SEQUENCE_ID_BYTES: Final = 128
"""As in Triton: it is kept as long as its sequence lives."""
ENABLE_FINAL: Final = "triton_enable_empty_final_response"
"""Of a request in a stream: whether its end is told by a response without outputs."""
FINAL: Final = "triton_final_response"
"""Of a response in a stream: whether it is its request's last."""
_RESERVED_PREFIX: Final = "triton_"
_MICROSECONDS: Final = 1e6
_RESERVED: Final[dict[str, tuple[type, ...]]] = {
    "sequence_id": (int, str),
    "sequence_start": (bool,),
    "sequence_end": (bool,),
    "priority": (int,),
    "timeout": (int,),
    "binary_data_output": (bool,),
    "binary_data": (bool,),
    "binary_data_size": (int,),
    "classification": (int,),
    "shared_memory_region": (str,),
    "shared_memory_byte_size": (int,),
    "shared_memory_offset": (int,),
}


def check_parameters(raw: object, place: str) -> dict[str, Parameter]:
    """Check an object of parameters as it came from the wire; raises :class:`BadInput` naming ``place``."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise BadInput("must be an object", field=place)
    if len(raw) > MAX_PARAMETERS:
        raise BadInput(f"has {len(raw)} entries, more than {MAX_PARAMETERS}", field=place)
    return {name: _check_one(name, value, f"{place}.{name}") for name, value in raw.items()}


def check_request_parameters(raw: object, place: str) -> dict[str, Parameter]:
    """The same for a request's own parameters, which may not have names that are Triton's."""
    parameters = check_parameters(raw, place)
    for name in parameters:
        if name.startswith(_RESERVED_PREFIX) and name != ENABLE_FINAL:
            raise BadInput(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified",
                field=f"{place}.{name[:64]}",
            )
    return parameters


def _check_one(name: str, value: object, place: str) -> Parameter:
    if not isinstance(value, bool | int | float | str):
        raise BadInput("must be a string, a number or a boolean", field=place)
    expected = _RESERVED.get(name)
    if expected is None:
        return value
    # bool is an int to Python, but not to the protocol.
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        raise BadInput(f"must be {' or '.join(_WORDS[kind] for kind in expected)}", field=place)
    if isinstance(value, str) and name == "sequence_id" and len(value.encode(errors="replace")) > MAX_SEQUENCE_ID_BYTES:
        raise BadInput(f"must have at most {MAX_SEQUENCE_ID_BYTES} bytes", field=place)
    if isinstance(value, int) and not 0 <= value < 2**64:
        raise BadInput(f"must be between 0 and 2^64 - 1, not {value}", field=place)
    return value


_WORDS: Final = {int: "an integer", str: "a string", bool: "a boolean"}


def timeout_s(parameters: Parameters) -> float | None:
    """The request's own time limit in seconds; the parameter ``timeout`` is in microseconds, 0 means none."""
    value = parameters.get("timeout")
    return int(value) / _MICROSECONDS if value else None


def wants_binary(output: RequestedOutput | None, request: Parameters) -> bool:
    """Whether an output travels as binary data: its own parameter, or else the request's default."""
    default = bool(request.get("binary_data_output", False))
    return default if output is None else bool(output.parameters.get("binary_data", default))

"""Checks of system shared memory before Triton maps it; used by control.py.

The one invariant: what passes names one object of POSIX shared memory that is there, is long enough, and is not the
mesh's own.
"""

from serving.backends.control import Json
from serving.errors import BadInput
from serving.protocol.shared_memory import FOLDER, key_name, not_there


def check_region(body: Json) -> None:
    """Look at what a registration names.

    Args:
        body: ``key``, ``offset`` and ``byte_size``, in bytes.

    Raises:
        BadInput: naming the field; in Triton's words, which calls the same an internal error.
    """
    key, offset, size = body.get("key"), body.get("offset", 0), body.get("byte_size")
    if not isinstance(key, str) or not key:
        raise BadInput("Shared memory register request has no 'key' field", field="key")
    start, extent = _natural(offset, "offset"), _natural(size, "byte_size")
    try:
        length = (FOLDER / key_name(key)).stat().st_size
    except (OSError, ValueError) as error:
        raise not_there(key) from error
    if extent == 0 or start + extent > length:
        raise BadInput(
            f"Invalid shared memory region: '{key[:256]}' has {length} bytes",
            field="offset" if start > length else "byte_size",
            fix="make the region larger, or register less of it",
        )


def _natural(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadInput("must be a number of bytes", field=field)
    return value

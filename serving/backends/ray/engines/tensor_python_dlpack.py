"""DLPack capsules of arrays, bfloat16 among them, which numpy itself does not exchange; used by tensor_python_types.

The one invariant: a capsule is made and read by numpy; only the byte that names the kind of number is changed, between
bfloat16 and the 16-bit integers that numpy takes it for.
"""

import ctypes
from typing import Any, Final

import ml_dtypes
import numpy as np

from serving.backends.ray.engines.tensor_config import Array

_UINT: Final = 1
_BFLOAT: Final = 4
_NAME: Final = b"dltensor"
_CODE_OFFSET: Final = 20
"""Of ``DLTensor.dtype.code``: behind the data pointer, the device and the number of dimensions (dlpack.h)."""

_is_capsule = ctypes.pythonapi.PyCapsule_IsValid
_is_capsule.restype, _is_capsule.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

CPU: Final = 1
"""DLPack's type of main memory."""


def to_capsule(array: Array) -> Any:  # noqa: ANN401  a capsule
    """A capsule over the array's memory."""
    if array.dtype != ml_dtypes.bfloat16:
        return array.__dlpack__()
    capsule = array.view(np.uint16).__dlpack__()
    _code(capsule).value = _BFLOAT
    return capsule


def from_capsule(source: Any) -> Array:  # noqa: ANN401  a capsule or whatever gives one
    """An array over the memory of a capsule, or of an object that has ``__dlpack__``."""
    capsule = source.__dlpack__() if hasattr(source, "__dlpack__") else source
    if not _is_capsule(capsule, _NAME):
        raise TypeError(f"a DLPack capsule was expected, or an object that gives one, not {type(source).__name__}")
    code = _code(capsule)
    brain_float = code.value == _BFLOAT
    if brain_float:
        code.value = _UINT
    array: Array = np.from_dlpack(_Given(capsule))
    return array.view(ml_dtypes.bfloat16) if brain_float else array


class _Given:
    """Gives a bare capsule the face that numpy wants."""

    def __init__(self, capsule: Any) -> None:  # noqa: ANN401  a capsule
        self._capsule = capsule

    def __dlpack__(self, **_options: Any) -> Any:  # noqa: ANN401  as the array standard has it
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def _code(capsule: Any) -> ctypes.c_uint8:  # noqa: ANN401  a capsule
    return ctypes.c_uint8.from_address(_pointer(capsule, _NAME) + _CODE_OFFSET)

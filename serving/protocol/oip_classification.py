"""OIP's classification extension: the ``k`` largest values of an output as strings; used by planes of Ray replicas.

The one invariant: pure; ordering, formatting and texts are Triton's (``value:index`` or ``value:index:label``, largest
first).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serving.errors import BadInput
from serving.protocol.oip import DATATYPES, Tensor

PARAMETER: Final = "classification"
_CLASSES: Final = frozenset(DATATYPES) - {"BOOL", "FP16", "BF16", "BYTES"}
_FLOATS: Final = ("FP32", "FP64")


def classified(tensor: Tensor, count: int, labels: Sequence[str], *, batched: bool) -> Tensor:
    """The classes of an output.

    Args:
        tensor: the output, numbers.
        count: how many classes are wanted; fewer come back where the output has fewer values.
        labels: by index, maybe fewer than the output has values.
        batched: whether the first dimension is the batch: each of its rows is classified by itself.

    Returns:
        BYTES of shape ``[batch, classes]`` or ``[classes]``.

    Raises:
        BadInput: the output's datatype has no classes.
    """
    if tensor.datatype not in _CLASSES:
        raise BadInput(
            f"class result not available for output due to unsupported type '{tensor.datatype}'", field=tensor.name
        )
    array = tensor.array()
    batch = tensor.shape[0] if batched and tensor.shape else 1
    rows = array.reshape(batch, prod(tensor.shape[1:] if batched else tensor.shape))
    digits = 6 if tensor.datatype in _FLOATS else None
    words = [word for row in rows for word in _classes(row, count, labels, digits)]
    classes = min(count, rows.shape[1])
    return Tensor.from_elements(tensor.name, words, (batch, classes) if batched else (classes,))


def _classes(row: npt.NDArray[Any], count: int, labels: Sequence[str], digits: int | None) -> list[bytes]:
    # Stable, so that equal values come in the order of their indices; reversed for unsigned types' sake.
    order = (len(row) - 1 - np.argsort(row[::-1], kind="stable"))[::-1][:count].tolist()
    words = []
    for index in order:
        value = row[index].item()
        text = f"{value}" if digits is None else f"{value:.{digits}f}"
        label = f":{labels[index]}" if index < len(labels) else ""
        words.append(f"{text}:{index}{label}".encode())
    return words

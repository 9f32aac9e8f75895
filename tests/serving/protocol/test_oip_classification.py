"""Outputs as classes."""

import numpy as np
import pytest

from serving.errors import BadInput
from serving.protocol.oip import Tensor
from serving.protocol.oip_classification import classified

LABELS = ("cat", "dog")
CASES = {
    "floats": (np.array([0.1, 0.7, 0.2], np.float32), 2, False, (2,), [b"0.700000:1:dog", b"0.200000:2"]),
    "rows": (np.array([[1, 2], [4, 3]], np.int32), 1, True, (2, 1), [b"2:1:dog", b"4:0:cat"]),
    "more-than-there-are": (np.array([7, 9], np.uint8), 9, False, (2,), [b"9:1:dog", b"7:0:cat"]),
    "ties-keep-their-order": (np.array([5, 5, 5], np.int64), 2, False, (2,), [b"5:0:cat", b"5:1:dog"]),
    "unsigned": (np.array([0, 2**64 - 1], np.uint64), 1, False, (1,), [b"18446744073709551615:1:dog"]),
    "inner-dimensions-are-one": (
        np.array([[[1, 3], [2, 0]]], np.float64),
        2,
        True,
        (1, 2),
        [b"3.000000:1:dog", b"2.000000:2"],
    ),
    "nothing": (np.zeros((0, 3), np.float32), 2, True, (0, 2), []),
}


@pytest.mark.parametrize(("array", "count", "batched", "shape", "words"), CASES.values(), ids=CASES.keys())
def test_the_largest_come_first_as_triton_writes_them(array, count, batched, shape, words):
    found = classified(Tensor.from_array("Y", array), count, LABELS, batched=batched)
    assert (found.name, found.datatype, found.shape, found.elements()) == ("Y", "BYTES", shape, words)


@pytest.mark.parametrize("array", [np.array([b"a"], object), np.array([True]), np.zeros(2, np.float16)], ids=str)
def test_what_has_no_order_has_no_classes(array):
    with pytest.raises(BadInput, match="class result not available for output due to unsupported type"):
        classified(Tensor.from_array("Y", array), 1, (), batched=False)

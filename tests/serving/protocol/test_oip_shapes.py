"""Tensors in JSON have as many elements as their shapes say."""

import pytest

from serving.errors import BadInput
from serving.protocol.oip_shapes import check_json_shapes


def request(shape, data=(1,), datatype="FP32"):
    return {"inputs": [{"name": "X", "datatype": datatype, "shape": shape, "data": list(data)}]}


@pytest.mark.parametrize(
    "fine",
    [
        request([1, 2], [1, 2]),
        request([1, 2], [[1, 2]]),
        request([0], []),
        request([1], ["text"], "BYTES"),
        {"inputs": [{"name": "X", "shape": [1 << 40], "parameters": {"binary_data_size": 4}}]},
        {"inputs": "others say what is wrong"},
        {},
    ],
)
def test_what_fits_passes(fine):
    check_json_shapes(fine)


@pytest.mark.parametrize(
    "shape", [[1, 1 << 40], [(1 << 63) - 1, 4], [1_000_000_000], [-1], [2], "1", None, [True], [1.0], [1 << 70]]
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_input(shape):
    with pytest.raises(BadInput, match="X"):
        check_json_shapes(request(shape))

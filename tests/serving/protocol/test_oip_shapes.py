"""Shapes are possible, and tensors in JSON have as many elements as theirs say."""

import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.errors import BadInput
from serving.protocol.oip_shapes import check_json_shapes, check_message_shapes


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


@pytest.mark.parametrize("shape", [[1 << 62], [1, 1 << 62], [0, 1 << 62], [1 << 32, 1 << 32], [-1]])
def test_a_shape_that_no_memory_holds_is_refused_whatever_carries_the_data(shape):
    bare = {"name": "X", "datatype": "FP32", "shape": shape}
    for error in (
        lambda: check_json_shapes({"inputs": [{**bare, "parameters": {"binary_data_size": 0}}]}),
        lambda: check_message_shapes(pb.ModelInferRequest(inputs=[bare])),
    ):
        with pytest.raises(BadInput, match=r"shape of 'X'"):
            error()


def test_what_else_is_wrong_with_an_input_that_carries_no_json_the_replica_says():
    check_message_shapes(pb.ModelInferRequest(inputs=[{"name": "X", "datatype": "FP99", "shape": [1 << 62]}]))
    for odd in ({"shape": "x"}, {"shape": [1.5]}, {"shape": [1 << 62]}, {"datatype": "FP32"}, {}):
        check_json_shapes({"inputs": [odd, 5]})

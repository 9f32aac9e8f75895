"""Requests are checked against config.pbtxt, in Triton's words."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput, NotFound
from serving.protocol.oip import InferRequest, RequestedOutput, Tensor
from serving.protocol.oip_config import check_request, input_specs, output_specs
from serving.protocol.oip_errors import check_version, error_body

CONFIG = text_format.Parse(
    """
    name: "m" max_batch_size: 4
    input [ { name: "A" data_type: TYPE_FP32 dims: [ 2, -1 ] },
            { name: "B" data_type: TYPE_STRING dims: [ 1 ] optional: true } ]
    output [ { name: "Y" data_type: TYPE_BF16 dims: [ 3 ] } ]
    """,
    pb.ModelConfig(),
)
A = Tensor("A", "FP32", (1, 2, 3), bytes(24))
B = Tensor.from_elements("B", [b""], (1, 1))


def test_specs_show_the_batch_dimension():
    assert [(spec.name, spec.datatype, spec.shape, spec.optional) for spec in input_specs(CONFIG)] == [
        ("A", "FP32", (-1, 2, -1), False),
        ("B", "BYTES", (-1, 1), True),
    ]
    assert output_specs(CONFIG)[0].datatype == "BF16"


@pytest.mark.parametrize("inputs", [(A,), (A, B)], ids=["without-optional", "with-optional"])
def test_a_request_that_fits_passes(inputs):
    check_request(CONFIG, InferRequest("m", inputs=inputs, outputs=(RequestedOutput("Y"),)))


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (InferRequest("m"), "expected 2 inputs but got 0 inputs for model 'm'"),
        (InferRequest("m", inputs=(A, A)), "input 'A' already exists in request"),
        (
            InferRequest("m", inputs=(A,), outputs=(RequestedOutput("Y"), RequestedOutput("Y"))),
            "output 'Y' already exists in request",
        ),
        (
            InferRequest("m", inputs=(A, Tensor("C", "INT8", (0,), b""))),
            "unexpected inference input 'C' for model 'm'",
        ),
        (
            InferRequest("m", inputs=(A,), outputs=(RequestedOutput("Z"),)),
            "unexpected inference output 'Z' for model 'm'",
        ),
        (
            InferRequest("m", inputs=(Tensor("A", "INT32", (1, 2, 1), bytes(8)),)),
            "inference input 'A' data-type is 'INT32', but model 'm' expects 'FP32'",
        ),
        (
            InferRequest("m", inputs=(Tensor("A", "FP32", (1, 3, 1), bytes(12)),)),
            "unexpected shape for input 'A' for model 'm'. Expected [-1,2,-1], got [1,3,1]",
        ),
        (
            InferRequest("m", inputs=(Tensor("A", "FP32", (5, 2, 1), bytes(40)),)),
            "batch-size must be <= 4 for 'm'",
        ),
        (InferRequest("m", inputs=(Tensor("A", "FP32", (0, 2, 1), b""),)), "at least 1"),
    ],
    ids=[
        "missing",
        "twice",
        "output-twice",
        "unknown",
        "unknown-output",
        "datatype",
        "shape",
        "batch",
        "no-batch",
    ],
)
def test_a_request_that_does_not_fit_is_refused_in_tritons_words(request_, problem):
    with pytest.raises(BadInput) as caught:
        check_request(CONFIG, request_)
    assert problem in error_body(caught.value)["error"]


def test_no_version_means_the_newest():
    assert check_version("m", "", ["9", "10"]) == "10"
    assert check_version("m", "9", ["9", "10"]) == "9"


def test_a_version_that_is_not_served_is_an_unknown_model():
    with pytest.raises(NotFound, match="Request for unknown model: 'm' version 99 is not found"):
        check_version("m", "99", ["1"])
    with pytest.raises(BadInput, match="failed to get model version from specified version string 'one'"):
        check_version("m", "one", ["1"])

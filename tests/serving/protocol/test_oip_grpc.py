"""The gRPC messages, checked against what tritonclient builds and reads."""

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc._utils import _get_inference_request

from serving.errors import BadInput, EngineFailed, ReelmeshError
from serving.protocol.oip import InferRequest, InferResponse, RequestedOutput, Tensor
from serving.protocol.oip_grpc import from_message, from_response_message, to_message, to_request_message

TYPED = [
    ("BOOL", "bool_contents", [True, False]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT32", "int_contents", [-(2**31), 7]),
    ("INT64", "int64_contents", [-(2**63), 7]),
    ("UINT16", "uint_contents", [0, 65535]),
    ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ("FP32", "fp32_contents", [1.5, -2.0]),
    ("FP64", "fp64_contents", [1e300, 0.0]),
]


def message(datatype="INT32", shape=(2,), contents=None, raw=(), **fields):
    entry = pb.ModelInferRequest.InferInputTensor(
        name="X",
        datatype=datatype,
        shape=shape,
        contents=pb.InferTensorContents(**contents) if contents else None,
    )
    return pb.ModelInferRequest(model_name="m", inputs=[entry], raw_input_contents=raw, **fields)


@pytest.mark.parametrize(("datatype", "field", "values"), TYPED, ids=[entry[0] for entry in TYPED])
def test_typed_contents_are_read(datatype, field, values):
    request = from_message(message(datatype, contents={field: values}))
    assert request.inputs[0].array().tolist() == values


def test_typed_byte_strings_are_read():
    request = from_message(message("BYTES", contents={"bytes_contents": [b"a", b""]}))
    assert request.inputs[0].elements() == [b"a", b""]


def test_a_message_of_tritonclient_is_read():
    tensor = triton.InferInput("X", [2], "BF16")
    tensor.set_data_from_numpy(np.array([1.5, -2.0], ml_dtypes.bfloat16))
    output = triton.InferRequestedOutput("Y")
    built = _get_inference_request(
        model_name="m",
        inputs=[tensor],
        model_version="2",
        request_id="r1",
        outputs=[output],
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=3,
        timeout=1_000_000,
        parameters={"own": "x"},
    )
    request = from_message(built)
    assert (request.model_name, request.model_version, request.id) == ("m", "2", "r1")
    assert request.inputs[0].array().tolist() == [1.5, -2.0]
    assert request.outputs == (RequestedOutput("Y"),)
    assert request.parameters == {"priority": 3, "timeout": 1_000_000, "own": "x"}


def test_tritonclient_reads_a_response():
    tensors = (Tensor.from_array("Y", np.array([[1, 2]])), Tensor.from_elements("S", [b"\xff"]))
    result = triton.InferResult(to_message(InferResponse("m", "1", "r1", {"p": 2**63}, tensors)))
    assert result.as_numpy("Y").tolist() == [[1, 2]]
    assert result.as_numpy("S").tolist() == [b"\xff"]
    assert result.get_response().parameters["p"].uint64_param == 2**63


def test_a_request_and_a_response_survive_being_sent_on():
    request = InferRequest("m", "1", "r", {"a": True, "b": -1, "c": 0.5, "d": "x"}, outputs=(RequestedOutput("Y"),))
    assert from_message(to_request_message(request)) == request
    response = from_response_message(to_message(InferResponse("m", outputs=(Tensor("Y", "INT8", (1,), b"a"),))))
    assert response.outputs[0].data == b"a"


def test_a_response_without_raw_outputs_is_the_replicas_fault():
    with pytest.raises(EngineFailed):
        from_response_message(pb.ModelInferResponse(outputs=[{"name": "Y", "datatype": "INT8", "shape": [1]}]))


BAD = {
    "both": (
        message(contents={"int_contents": [1, 2]}, raw=[bytes(8)]),
        "contents field must not be specified",
    ),
    "raw-count": (message(raw=[bytes(8), bytes(8)]), "expected 1 entries"),
    "raw-size": (message(raw=[bytes(7)]), "7 bytes of data"),
    "no-contents": (message(), "has 0 elements"),
    "wrong-field": (message(contents={"fp32_contents": [1, 2]}), "must use int_contents"),
    "out-of-range": (message("INT8", contents={"int_contents": [1, 128]}), "outside the range of INT8"),
    "typed-fp16": (message("FP16"), "must be sent in raw_input_contents"),
    "datatype": (message("INT7", raw=[b""]), "not a datatype"),
    "negative": (message(shape=(-1,), raw=[b""]), "negative size"),
    "overflow": (message(shape=(2**62, 2**62), raw=[b""]), "63 bits"),
    "bytes-prefix": (message("BYTES", (1,), raw=[b"\x09\0\0\0a"]), "past the end"),
    "timeout": (message(raw=[bytes(8)], parameters={"timeout": {"string_param": "1"}}), "must be an integer"),
    "empty-parameter": (message(raw=[bytes(8)], parameters={"own": {}}), "must be a string, a number"),
    "long-id": (message(raw=[bytes(8)], id="x" * 5000), "more than 4096"),
    "many": (pb.ModelInferRequest(inputs=[{"name": "X"}] * 1025), "more than 1024"),
    "no-name": (pb.ModelInferRequest(inputs=[{"name": ""}]), "1 to 256 characters"),
}


@pytest.mark.parametrize(("bad", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_refused(bad, problem):
    with pytest.raises(BadInput) as caught:
        from_message(bad)
    assert problem in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=80),
    st.lists(st.binary(max_size=12), max_size=2),
    st.sampled_from(["INT8", "BYTES", "?"]),
)
def test_whatever_parses_as_a_message_is_converted_or_refused(noise, raw, datatype):
    parsed = message(datatype, raw=raw)
    try:
        parsed.MergeFromString(noise)
    except Exception:
        return
    try:
        request = from_message(parsed)
    except ReelmeshError as error:
        assert error.http_status in (400, 501)
    else:
        assert all(tensor.array().shape == tensor.shape for tensor in request.inputs)


def test_names_that_are_tritons_own_are_no_parameters_of_a_request():
    asked = message(contents={"int_contents": [1, 2]})
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    assert from_message(asked).parameters == {"triton_enable_empty_final_response": True}
    asked.parameters["triton_anything"].string_param = "x"
    with pytest.raises(BadInput, match=r"parameters\.triton_anything: parameter keys starting with 'triton_' are res"):
        from_message(asked)

"""The HTTP wire format, checked against what tritonclient writes and reads."""

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import BadInput, ReelmeshError
from serving.protocol.oip import DATATYPES, InferRequest, InferResponse, RequestedOutput, Tensor, TensorSpec
from serving.protocol.oip_config import RequestCheck
from serving.protocol.oip_http import decode_request, encode_response, header_length

ARRAYS = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "INT64": np.array([[-(2**63), 2**63 - 1]]),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "FP16": np.array([[1.5, -0.25]], np.float16),
    "FP32": np.array([[1.5, -0.1]], np.float32),
    "FP64": np.array([[np.pi, 1e300]]),
    "BF16": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
    "BYTES": np.array([["namaste", "नमस्ते"]], dtype=object),
}
JSON_DATATYPES = sorted(set(ARRAYS) - {"FP16", "BF16"})


def decoded(inputs, outputs=None, **more):
    body, json_bytes = triton.InferenceServerClient.generate_request_body(inputs, outputs=outputs, **more)
    return decode_request(body, len(body) if json_bytes is None else json_bytes, "m", "3")


def triton_input(datatype, *, binary):
    given_input = triton.InferInput("X", [1, 2], datatype)
    given_input.set_data_from_numpy(ARRAYS[datatype], binary_data=binary)
    return given_input


def same(tensor, datatype):
    assert (tensor.datatype, tensor.shape) == (datatype, (1, 2))
    if datatype == "BYTES":
        assert tensor.elements() == [text.encode() for text in ARRAYS[datatype].reshape(-1)]
    else:
        np.testing.assert_array_equal(tensor.array(), ARRAYS[datatype])


@pytest.mark.parametrize("datatype", sorted(ARRAYS))
def test_binary_inputs_of_tritonclient_are_read(datatype):
    request = decoded([triton_input(datatype, binary=True)], request_id="r1", priority=2, timeout=5_000_000)
    same(request.inputs[0], datatype)
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "r1")
    assert (request.parameters["priority"], request.parameters["timeout"]) == (2, 5_000_000)


@pytest.mark.parametrize("datatype", JSON_DATATYPES)
def test_json_inputs_of_tritonclient_are_read(datatype):
    same(decoded([triton_input(datatype, binary=False)]).inputs[0], datatype)


def test_json_and_binary_inputs_may_be_mixed():
    inputs = []
    for name, binary in (("A", True), ("B", False), ("C", True)):
        tensor = triton.InferInput(name, [2], "INT32")
        tensor.set_data_from_numpy(np.array([ord(name), 7], np.int32), binary_data=binary)
        inputs.append(tensor)
    request = decoded(inputs)
    assert [tensor.array()[0] for tensor in request.inputs] == [65, 66, 67]


def test_nested_json_data_is_flattened():
    body = b'{"inputs":[{"name":"X","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[3,4]]}]}'
    assert decode_request(body, len(body), "m").inputs[0].array().tolist() == [[1, 2.5], [3, 4]]


@pytest.mark.parametrize("datatype", sorted(ARRAYS))
def test_tritonclient_reads_binary_outputs(datatype):
    tensor = Tensor.from_array("Y", ARRAYS[datatype], datatype)
    request = InferRequest("m", outputs=(RequestedOutput("Y", {"binary_data": True}),))
    pieces, json_bytes = encode_response(InferResponse("m", "1", "r1", outputs=(tensor,)), request)
    result = triton.InferenceServerClient.parse_response_body(b"".join(pieces), header_length=json_bytes)
    expected = tensor.array()
    np.testing.assert_array_equal(result.as_numpy("Y"), expected)
    assert result.get_response()["id"] == "r1"


@pytest.mark.parametrize("datatype", JSON_DATATYPES)
def test_tritonclient_reads_json_outputs(datatype):
    tensor = Tensor.from_array("Y", ARRAYS[datatype], datatype)
    pieces, json_bytes = encode_response(InferResponse("m", outputs=(tensor,)), InferRequest("m"))
    assert json_bytes is None
    result = triton.InferenceServerClient.parse_response_body(b"".join(pieces))
    np.testing.assert_array_equal(result.as_numpy("Y"), ARRAYS[datatype])


def test_all_outputs_are_binary_when_the_request_says_so():
    tensor = Tensor.from_array("Y", ARRAYS["FP32"])
    request = InferRequest("m", parameters={"binary_data_output": True})
    _, json_bytes = encode_response(InferResponse("m", outputs=(tensor,)), request)
    assert json_bytes is not None


def test_an_output_in_json_must_be_text():
    tensor = Tensor.from_elements("Y", [b"\xff\xfe"])
    with pytest.raises(BadInput, match=r"not UTF-8.*binary_data"):
        encode_response(InferResponse("m", outputs=(tensor,)), InferRequest("m"))


RAW_INPUT_SHAPES = [
    (TensorSpec("X", "FP32", (-1, 4)), bytes(32), (2, 4)),
    (TensorSpec("X", "FP32", (8,)), bytes(32), (8,)),
    (TensorSpec("X", "FP32", (-1, -1)), bytes(32), (1, 8)),
    (TensorSpec("X", "BYTES", (-1,)), b"whole body", (1,)),
]


def check_of(*specs):
    config = ModelConfig(name="m")
    for spec in specs:
        config.input.add(name=spec.name, data_type=DATATYPES[spec.datatype].config, dims=spec.shape)
    return RequestCheck(config)


@pytest.mark.parametrize(("spec", "body", "shape"), RAW_INPUT_SHAPES, ids=["one-free", "none", "two", "bytes"])
def test_a_raw_request_is_the_one_input(spec, body, shape):
    tensor = decode_request(body, 0, "m", "", check_of(spec)).inputs[0]
    assert tensor.shape == shape
    assert body in bytes(tensor.data)


def one_input(**changes):
    entry = {"name": "X", "shape": [2], "datatype": "INT8", "data": [1, 2], **changes}
    return {"inputs": [{key: value for key, value in entry.items() if value is not ...}]}


BINARY = {"data": ..., "parameters": {"binary_data_size": 2}}
BAD = {
    "not-json": (b"{", "request body"),
    "array": ([], "request body"),
    "no-inputs": ({}, "inputs"),
    "inputs-object": ({"inputs": {}}, "inputs"),
    "input-number": ({"inputs": [1]}, "inputs[0]"),
    "too-many": ({"inputs": [{}] * 1025}, "inputs"),
    "no-name": (one_input(name=...), "inputs[0].name"),
    "long-name": (one_input(name="x" * 300), "inputs[0].name"),
    "shape-text": (one_input(shape="2"), "inputs[0].shape"),
    "shape-bool": (one_input(shape=[True]), "inputs[0].shape"),
    "shape-float": (one_input(shape=[2.0]), "inputs[0].shape"),
    "shape-negative": (one_input(shape=[-2]), "X"),
    "shape-overflow": (one_input(shape=[2**62, 2**62]), "X"),
    "datatype": (one_input(datatype="INT7"), "X"),
    "no-data": (one_input(data=...), "inputs[0].data"),
    "too-few": (one_input(data=[1]), "inputs[0].data"),
    "too-many-elements": (one_input(data=[[1, 2], [3]]), "inputs[0].data"),
    "out-of-range": (one_input(data=[1, 128]), "inputs[0].data"),
    "text-for-number": (one_input(data=["1", "2"]), "inputs[0].data"),
    "bool-for-number": (one_input(data=[True, False]), "inputs[0].data"),
    "float-for-int": (one_input(data=[1.5, 2]), "inputs[0].data"),
    "number-for-text": (one_input(datatype="BYTES"), "inputs[0].data"),
    "null": (one_input(data=[None, 1]), "inputs[0].data"),
    "half-precision": (one_input(datatype="FP16"), "inputs[0].data"),
    "binary-missing": (one_input(**BINARY), "inputs[0].parameters.binary_data_size"),
    "binary-negative": (one_input(data=..., parameters={"binary_data_size": -1}), "binary_data_size"),
    "binary-text": (one_input(data=..., parameters={"binary_data_size": "2"}), "binary_data_size"),
    "both": (one_input(parameters={"binary_data_size": 0}), "inputs[0].data"),
    "parameters-list": (one_input(parameters=[]), "inputs[0].parameters"),
    "parameter-nested": ({**one_input(), "parameters": {"a": []}}, "parameters.a"),
    "timeout-text": ({**one_input(), "parameters": {"timeout": "1"}}, "parameters.timeout"),
    "timeout-negative": ({**one_input(), "parameters": {"timeout": -1}}, "parameters.timeout"),
    "priority-bool": ({**one_input(), "parameters": {"priority": True}}, "parameters.priority"),
    "triton-name": ({**one_input(), "parameters": {"triton_x": 1}}, "parameters.triton_x"),
    "id-number": ({**one_input(), "id": 7}, "id"),
    "outputs-text": ({**one_input(), "outputs": "Y"}, "outputs"),
    "output-name": ({**one_input(), "outputs": [{"name": ""}]}, "outputs[0].name"),
    "shared-memory": (one_input(parameters={"shared_memory_region": "r"}), "X"),
}


@pytest.mark.parametrize(("document", "field"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_by_the_name_of_its_field(document, field):
    body = document if isinstance(document, bytes) else to_json(document)
    with pytest.raises(ReelmeshError) as caught:
        decode_request(body, len(body), "m")
    assert 400 <= caught.value.http_status <= 501
    assert field in caught.value.field


def test_binary_data_that_belongs_to_nobody_is_refused():
    header = to_json(one_input(**BINARY))
    with pytest.raises(BadInput, match="1 bytes of binary data belong to no input"):
        decode_request(header + b"abc", len(header), "m")


@pytest.mark.parametrize("text", ["-1", "11", "ten", "", "1e1", "9" * 400, "٣", "0x1"])
def test_a_header_length_that_makes_no_sense_is_refused(text):
    with pytest.raises(BadInput, match="Inference-Header-Content-Length"):
        header_length(text, 10)


def test_without_the_header_the_whole_body_is_json():
    assert header_length(None, 10) == 10
    assert header_length(" 4 ", 10) == 4


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=4) | JSON_VALUES,
        "shape": st.lists(st.integers(-2, 2**64), max_size=3) | JSON_VALUES,
        "datatype": st.sampled_from(sorted(DATATYPES)) | JSON_VALUES,
        "data": st.lists(st.integers(-300, 300) | st.booleans() | st.text(max_size=3), max_size=4) | JSON_VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "classification", "x"]), st.integers(-1, 9) | JSON_VALUES
        ),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRIES, max_size=3), st.binary(max_size=24), st.lists(ENTRIES, max_size=2))
def test_whatever_a_client_sends_is_decoded_or_refused(inputs, binary, outputs):
    header = to_json({"inputs": inputs, "outputs": outputs})
    try:
        request = decode_request(header + binary, len(header), "m")
    except ReelmeshError as error:
        assert error.http_status in (400, 501)
    else:
        assert all(tensor.array().shape == tensor.shape for tensor in request.inputs)

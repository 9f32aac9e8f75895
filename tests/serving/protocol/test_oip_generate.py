"""The generate extension's JSON."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput
from serving.protocol.oip import InferResponse, Tensor, TensorSpec
from serving.protocol.oip_generate import event, generate_document, generate_request

SPECS = (
    TensorSpec("text_input", "BYTES", (-1, 1)),
    TensorSpec("sizes", "INT32", (-1, 2), optional=True),
    TensorSpec("flag", "BOOL", (1,), optional=True),
    TensorSpec("heat", "BF16", (1,), optional=True),
    TensorSpec("small", "UINT8", (1,), optional=True),
)


def read(document):
    return generate_request(json.dumps(document).encode(), SPECS, "m")


def test_keys_that_name_inputs_become_tensors_and_others_parameters():
    request = read(
        {
            "id": "r1",
            "text_input": "hello",
            "sizes": [1, 2, 3, 4],
            "temperature": 0.5,
            "parameters": {"flag": True, "heat": 1.5, "priority": 2},
        }
    )
    shown = {tensor.name: tensor.array().tolist() for tensor in request.inputs}
    assert shown == {"text_input": [[b"hello"]], "sizes": [[1, 2], [3, 4]], "flag": [True], "heat": [1.5]}
    assert (request.id, request.parameters) == ("r1", {"temperature": 0.5, "priority": 2})


BAD = [
    ([], "request body"),
    ({"text_input": 5}, "must be BYTES"),
    ({"text_input": {"a": 1}}, "must be BYTES"),
    ({"sizes": [1, 2, 3]}, "3 elements, which do not fit"),
    ({"sizes": [1, True]}, "must be INT32"),
    ({"flag": 1}, "must be BOOL"),
    ({"small": 256}, "outside the range"),
    ({"extra": {"a": 1}}, "parameter 'extra' has invalid type"),
    ({"parameters": 5}, "parameters: must be an object"),
    ({"priority": "high"}, "priority"),
    ({"triton_x": 1}, "triton_x"),
    ({"id": 7}, "id: must be a string"),
]


@pytest.mark.parametrize(("document", "problem"), BAD)
def test_what_does_not_fit_is_refused_by_name(document, problem):
    with pytest.raises(BadInput, match=problem):
        read(document)


def test_outputs_become_values_and_arrays():
    outputs = (
        Tensor.from_elements("text_output", [b"hi \xff"]),
        Tensor.from_array("scores", np.array([0.5, np.nan], np.float32)),
        Tensor.from_array("heat", np.array([1.5], ml_dtypes.bfloat16)),
    )
    document = generate_document(InferResponse("m", "3", "r1", {"took_ms": 4}, outputs))
    assert document["text_output"] == "hi \ufffd"
    assert document["heat"] == 1.5
    assert (document["id"], document["model_version"], document["took_ms"]) == ("r1", "3", 4)
    assert event(document).startswith(b'data: {"id":"r1"')
    assert event(document).endswith(b"\n\n")
    assert b"NaN" in event(document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from([*(spec.name for spec in SPECS), "id", "parameters", "x"]), inner)
        ),
    )
)
def test_any_json_is_read_or_refused(document):
    try:
        read(document)
    except BadInput as error:
        assert str(error)

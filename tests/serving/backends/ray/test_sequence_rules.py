"""The sequence fields of config.pbtxt."""

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.sequence_rules import sequence_rules_of
from serving.errors import BadInput
from serving.protocol.oip import InferRequest, RequestedOutput, Tensor

CONTROLS = """
control_input [
  { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
  { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] },
  { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] },
  { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: %s } ] } ]
"""


def rules(text, most=4):
    text = f'name: "m" max_batch_size: {most} output [ {{ name: "Y" }} ] sequence_batching {{ {text} }}'
    return sequence_rules_of(text_format.Parse(text, ModelConfig()))


def ask(rows=1, **parameters):
    return InferRequest("m", parameters=parameters, inputs=(Tensor.from_array("X", np.ones((rows, 1), np.int32)),))


@pytest.mark.parametrize(
    ("datatype", "sequence", "values"),
    [("TYPE_UINT64", 2**64 - 1, 2**64 - 1), ("TYPE_INT32", 7, 7), ("TYPE_STRING", "take 3", b"take 3")],
)
def test_control_tensors_are_those_of_the_configuration(datatype, sequence, values):
    given = rules(CONTROLS % datatype).prepared(ask(2, sequence_id=sequence, sequence_start=True), {})
    shown = {tensor.name: tensor.array() for tensor in given.inputs}
    assert shown["START"].tolist() == [[1.0], [1.0]]
    assert shown["START"].dtype == np.float32
    assert shown["END"].tolist() == [[0], [0]]
    assert shown["READY"].tolist() == [[True], [True]]
    assert shown["CORRID"].tolist() == [[values], [values]]


def test_without_a_batch_dimension_control_tensors_have_one_element():
    given = rules(CONTROLS % "TYPE_UINT64", most=0).prepared(ask(sequence_id=1), {})
    assert {tensor.shape for tensor in given.inputs if tensor.name != "X"} == {(1,)}


@pytest.mark.parametrize(
    ("datatype", "sequence", "problem"),
    [("TYPE_UINT32", "word", "not strings"), ("TYPE_INT32", 2**40, "does not fit"), ("TYPE_INT32", 0, "non-zero")],
)
def test_ids_that_do_not_fit_are_refused(datatype, sequence, problem):
    with pytest.raises(BadInput, match=problem):
        rules(CONTROLS % datatype).prepared(ask(sequence_id=sequence), {})


def test_states_start_as_zeros_and_are_asked_for():
    read = rules('state [ { input_name: "SI" output_name: "SO" data_type: TYPE_FP32 dims: [ 2 ] } ]')
    first = read.prepared(ask(sequence_id=1), {})
    assert first.input("SI").array().tolist() == [[0.0, 0.0]]
    assert first.outputs == (RequestedOutput("Y"), RequestedOutput("SO"))
    kept = Tensor.from_array("SI", np.array([[1, 2]], np.float32))
    assert read.prepared(ask(sequence_id=1), {"SI": kept}).input("SI") is kept


@pytest.mark.parametrize(
    ("text", "slots"),
    [("direct {}", 4), ("oldest { max_candidate_sequences: 9 }", 9), ("oldest {}", 1)],
)
def test_slots_follow_the_strategy(text, slots):
    assert rules(text).slots == slots


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('control_input [ { name: "S" control [ { kind: CONTROL_SEQUENCE_START } ] } ]', "two values"),
        ('control_input [ { name: "C" control [ { kind: CONTROL_SEQUENCE_CORRID } ] } ]', "data_type"),
        ('state [ { data_type: TYPE_FP32 initial_state [ { data_file: "../x" } ] } ]', "starts from a file"),
    ],
)
def test_what_cannot_be_served_is_refused_when_the_model_is_added(text, problem):
    with pytest.raises(BadInput, match=problem):
        rules(text)

import json

import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from loadtests import payloads
from loadtests.payloads import HEADER_LENGTH, Payload, split_answer
from serving.protocol.oip_grpc import from_message
from serving.protocol.oip_http import decode_request

ALL = [payloads.log_mel(), payloads.voice_activity(), payloads.speech()]


@pytest.mark.parametrize("payload", ALL, ids=lambda payload: payload.model)
def test_both_wires_carry_what_the_mesh_reads_back(payload: Payload) -> None:
    body, headers = payload.http()
    by_http = decode_request(body, int(headers[HEADER_LENGTH]), payload.model)
    by_grpc = from_message(ModelInferRequest.FromString(payload.grpc()))
    for request in (by_http, by_grpc):
        assert request.model_name == payload.model
        assert [(t.name, t.shape, bytes(t.data)) for t in request.inputs] == [
            (t.name, t.shape, bytes(t.data)) for t in payload.inputs
        ]


def test_payloads_are_the_same_in_every_run() -> None:
    assert payloads.log_mel().http() == payloads.log_mel().http()


def binary_answer(size: int, data: bytes) -> tuple[dict[str, str], bytes]:
    header = json.dumps({"outputs": [{"name": "Y", "parameters": {"binary_data_size": size}}]}).encode()
    return {HEADER_LENGTH.lower(): str(len(header))}, header + data


def test_an_answer_is_split_into_its_outputs() -> None:
    _, outputs = split_answer(*binary_answer(3, b"abc"))
    assert outputs == {"Y": b"abc"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(*binary_answer(3, b"ab"), id="cut short"),
        pytest.param(*binary_answer(3, b"abcd"), id="with a tail"),
        pytest.param({}, b'{"outputs": [{"name": "Y", "data": [1]}]}', id="not binary"),
        pytest.param({}, b"<html>", id="not JSON"),
    ],
)
def test_a_broken_answer_is_not_taken_for_a_right_one(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_answer(headers, body)

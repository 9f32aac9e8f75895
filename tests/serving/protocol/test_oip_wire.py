import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from serving.errors import BadInput
from serving.protocol.oip_wire import REQUEST_CONTENTS, RESPONSE_CONTENTS, join_contents, split_contents


@given(st.text(max_size=300), st.lists(st.binary(max_size=300), max_size=5))
def test_joined_contents_are_what_protobuf_itself_reads_and_writes(name: str, contents: list[bytes]) -> None:
    rest = pb.ModelInferRequest(model_name=name, id="7")
    joined = join_contents(rest.SerializeToString(), REQUEST_CONTENTS, contents)
    whole = pb.ModelInferRequest(model_name=name, id="7", raw_input_contents=contents)
    assert joined == whole.SerializeToString()
    split, found = split_contents(joined, REQUEST_CONTENTS)
    assert split == rest.SerializeToString()
    assert [bytes(content) for content in found] == contents


def test_a_response_is_split_wherever_its_contents_stand() -> None:
    start = pb.ModelInferResponse(model_name="m", raw_output_contents=[b"one"]).SerializeToString()
    end = pb.ModelInferResponse(id="7", raw_output_contents=[b"two"]).SerializeToString()
    rest, contents = split_contents(start + end, RESPONSE_CONTENTS)
    assert pb.ModelInferResponse.FromString(rest) == pb.ModelInferResponse(model_name="m", id="7")
    assert [bytes(content) for content in contents] == [b"one", b"two"]


def test_contents_found_are_views_of_the_message() -> None:
    message = join_contents(b"", RESPONSE_CONTENTS, [np.zeros(1000, np.uint8).data])
    _, [content] = split_contents(message, RESPONSE_CONTENTS)
    assert content.obj is message


@pytest.mark.parametrize(
    "message",
    [b"\x80", b"\x80" * 20, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\x09\x00", b"\x3a"],
    ids=["cut tag", "endless number", "past the end", "unused wire type", "cut number", "no length"],
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(BadInput, match="message"):
        split_contents(message, REQUEST_CONTENTS)


@given(st.binary(max_size=200))
def test_any_bytes_are_split_or_refused(message: bytes) -> None:
    try:
        rest, contents = split_contents(message, REQUEST_CONTENTS)
    except BadInput:
        return
    assert len(rest) + sum(map(len, contents)) <= len(message)


def test_a_message_of_very_many_fields_is_split_in_linear_time() -> None:
    started = time.process_time()
    split_contents(b"\x08\x01\x3a\x00" * 50_000, REQUEST_CONTENTS)
    assert time.process_time() - started < 2

"""gRPC's framing."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput, TooLarge
from serving.protocol.grpc_wire import Frames, frame, status_trailers, timeout_s


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 60))
def test_messages_arrive_whole_however_they_are_cut(messages, step):
    wire = b"".join(map(frame, messages))
    frames = Frames("", 100)
    found = [each for start in range(0, len(wire), step) for each in frames.add(wire[start : start + step])]
    assert found == messages
    frames.end()


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "br"]))
def test_any_bytes_are_messages_or_refused(data, encoding):
    frames = Frames(encoding, 100)
    try:
        list(frames.add(data))
        frames.end()
    except Exception as error:
        assert type(error).__module__ == "serving.errors"


def test_compressed_messages_are_read_as_announced():
    body = gzip.compress(b"hello")
    wire = b"\1" + len(body).to_bytes(4, "big") + body
    assert list(Frames("gzip", 100).add(wire)) == [b"hello"]
    with pytest.raises(BadInput, match="grpc-encoding does not say how"):
        list(Frames("", 100).add(wire))


def test_lengths_are_bounded_before_anything_is_kept_and_unfinished_messages_refused():
    with pytest.raises(TooLarge, match="larger than max"):
        list(Frames("", 100).add(b"\0\xff\xff\xff\xff"))
    bomb = gzip.compress(bytes(1000))
    with pytest.raises(TooLarge, match="when decompressed"):
        list(Frames("gzip", 100).add(b"\1" + len(bomb).to_bytes(4, "big") + bomb))
    frames = Frames("", 100)
    assert list(frames.add(frame(b"hello")[:-1])) == []
    with pytest.raises(BadInput, match="unfinished"):
        frames.end()


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), (b"5S", 5), (b"250m", 0.25), (b"1H", 3600), (b"10u", 1e-5)]
)
def test_deadlines_are_read(header, seconds):
    assert timeout_s(header) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("header", [b"", b"S", b"-5S", b"5", b"5d", b"123456789S"])
def test_broken_deadlines_are_refused(header):
    with pytest.raises(BadInput, match="grpc-timeout"):
        timeout_s(header)


def test_texts_of_statuses_are_percent_encoded():
    assert status_trailers("NOT_FOUND", "no 'm' 100%\n") == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no 'm' 100%25%0A"),
    ]
    assert status_trailers("OK") == [(b"grpc-status", b"0")]


def test_a_long_text_is_cut_to_what_clients_take_as_a_header():
    assert dict(status_trailers("INTERNAL", "x" * 100))[b"grpc-message"] == b"x" * 100
    assert len(dict(status_trailers("INTERNAL", "\N{GRINNING FACE}" * 4096))[b"grpc-message"]) <= 4096

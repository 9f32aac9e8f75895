"""Decoders that are wrong on purpose: the fuzzer must find out."""

from serving.errors import BadInput
from tests.serving.fuzz.targets import Target


def forgets_a_length(data: bytes) -> None:
    """Reads a number behind a word without looking whether it is there."""
    if not data.startswith(b"LEN"):
        raise BadInput("no length")
    assert data[3] >= 0


def says_too_much(data: bytes) -> None:
    """Repeats all of the input in its message."""
    raise BadInput((data * 1000).decode("latin-1"))


def never_ends(data: bytes) -> None:
    """Waits for an end that may not come."""
    while data.startswith(b"LEN"):
        data += b"."


PLANTED = {
    "planted_crash": Target(forgets_a_length, (b"LE", b"x"), ("LEN",)),
    "planted_text": Target(says_too_much, (b"abcdefgh",)),
    "planted_hang": Target(never_ends, (b"LE",), ("LEN",)),
}

"""Hostile JSON costs little and is refused by name."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from serving.errors import BadInput
from serving.protocol.oip_json import parse_json, parse_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=30,
)


@settings(max_examples=80, deadline=None)
@given(VALUES)
def test_what_was_written_is_read(value):
    assert parse_json(to_json(value), "x") == value


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_bad_input(data):
    try:
        parse_json(data, "body")
    except BadInput as error:
        assert error.field == "body"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'], ids=["arrays", "objects", "both"])
def test_deep_nesting_is_refused(opening):
    with pytest.raises(BadInput, match="nested more than 64 deep"):
        parse_json(opening * 100_000, "body")


def test_64_levels_are_taken_and_65_are_not():
    assert parse_json(b"[" * 64 + b"]" * 64, "x")
    with pytest.raises(BadInput):
        parse_json(b"[" * 65 + b"]" * 65, "x")


def test_brackets_inside_strings_are_no_nesting():
    assert parse_json(to_json(["[" * 500, '\\"[' * 100]), "x") == ["[" * 500, '\\"[' * 100]


def test_an_unterminated_string_is_read_once():
    started = time.perf_counter()
    with pytest.raises(BadInput):
        parse_json(b"[" * 65 + b'\\"' * 500_000, "x")
    with pytest.raises(BadInput):
        parse_json(b"[],[]," * 40 + b'"' + b'\\"' * 500_000, "x")
    assert time.perf_counter() - started < 2


def test_an_array_is_not_an_object():
    with pytest.raises(BadInput, match="must be a JSON object"):
        parse_object(b"[]", "body")

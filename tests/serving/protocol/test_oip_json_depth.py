"""Depth of JSON without parsing it, held against a parser that walks byte by byte."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol import oip_json_depth
from serving.protocol.oip_json_depth import deeper_than

DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\ax'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='[{"\\'), inner, max_size=4),
    max_leaves=30,
)


def depth(value):
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@given(document=DOCUMENTS)
def test_it_agrees_with_the_document_wherever_blocks_end(block, document):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oip_json_depth, "_BLOCK", block)
        text = json.dumps(document).encode()
        found = depth(document)
        assert not deeper_than(text, found)
        assert found == 0 or deeper_than(text, found - 1)


@given(text=st.binary(max_size=200))
def test_what_is_no_json_gets_an_answer(text):
    assert deeper_than(text, 3) in (True, False)


@pytest.mark.parametrize(
    ("text", "deep"),
    [(b"", False), (b"[" * 65, True), (b"[" * 64, False), (b'{"a":' * 100_000, True), (b'"' + b"[" * 999, False)],
    ids=["empty", "65", "64", "objects", "in-a-string"],
)
def test_the_bound_is_exact(text, deep):
    assert deeper_than(text, 64) is deep
    assert deeper_than(memoryview(text), 64) is deep


def test_many_shallow_arrays_take_time_of_their_length_only():
    began = time.process_time()
    assert not deeper_than(b"[" + b'["\\\\",0],' * 1_000_000 + b"0]", 64)
    assert time.process_time() - began < 5

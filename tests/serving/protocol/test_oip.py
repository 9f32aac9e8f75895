"""Tensors: what fits is kept exactly, what does not fit is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.errors import BadInput
from serving.protocol.oip import DATATYPES, Tensor, check_shape, datatype_of

NUMERIC = sorted(set(DATATYPES) - {"BYTES", "BF16"})  # hypothesis knows numpy's own types


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NUMERIC).flatmap(
        lambda name: hnp.arrays(DATATYPES[name].numpy, hnp.array_shapes(max_dims=4, max_side=4, min_side=0))
    )
)
def test_numbers_survive_unchanged(array):
    tensor = Tensor.from_array("X", array)
    assert tensor.datatype == datatype_of(array)
    np.testing.assert_array_equal(tensor.array(), array)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_byte_strings_survive_unchanged(elements):
    assert Tensor.from_elements("X", elements).elements() == elements


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(-1, 5), max_size=4))
def test_any_data_makes_a_sound_tensor_or_bad_input(data, datatype, shape):
    try:
        tensor = Tensor("X", datatype, tuple(shape), data)
    except BadInput as error:
        assert error.field == "X"
    else:
        assert tensor.array().shape == tuple(shape)


def test_strings_of_numpy_become_utf8():
    assert Tensor.from_array("X", np.array([["नमस्ते"], ["a"]])).elements() == ["नमस्ते".encode(), b"a"]


@pytest.mark.parametrize(
    ("value", "bits"),
    [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-2.5, 0xC020), (float("inf"), 0x7F80)],
    ids=["exact", "tie-to-even-down", "tie-to-even-up", "negative", "infinity"],
)
def test_bfloat16_rounds_to_the_nearest(value, bits):
    assert Tensor.from_array("X", np.array([value], np.float32), "BF16").data == bits.to_bytes(2, "little")


@pytest.mark.parametrize(
    ("datatype", "shape", "problem"),
    [
        ("FLOAT", [1], "not a datatype"),
        ("FP32", [2**40, 2**40], "does not fit 63 bits"),
        ("FP64", [2**61], "does not fit 63 bits"),
        ("FP32", [0, 2**62, 2**62], "does not fit 63 bits"),
        ("FP32", [2, -1], "negative size"),
        ("FP32", [1] * 33, "33 dimensions"),
    ],
    ids=["datatype", "overflow", "overflow-in-bytes", "overflow-behind-zero", "negative", "dimensions"],
)
def test_an_impossible_shape_is_refused_before_anything_is_allocated(datatype, shape, problem):
    with pytest.raises(BadInput, match=problem):
        check_shape("X", datatype, shape)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x05\0\0\0abc", "claims 5 bytes"),
        (b"\xff\xff\xff\xff", "claims 4294967295 bytes"),
        (b"\0\0", "too few bytes"),
        (b"\0\0\0\0extra", "5 bytes are left"),
    ],
    ids=["past-the-end", "four-gigabytes", "half-a-prefix", "trailing"],
)
def test_a_byte_string_that_does_not_fit_is_refused(data, problem):
    with pytest.raises(BadInput, match=problem):
        Tensor("X", "BYTES", (1,), data)


def test_an_element_without_its_prefix_is_refused():
    with pytest.raises(BadInput, match="element 1 of 'X' lacks"):
        Tensor("X", "BYTES", (2,), b"\x02\0\0\0abXY")

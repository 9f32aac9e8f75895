"""Arrays by DLPack."""

import gc

import ml_dtypes
import numpy as np
import pytest

from serving.backends.ray.engines.tensor_python_dlpack import from_capsule, to_capsule
from serving.backends.ray.engines.tensor_python_types import Tensor

KINDS = [np.float32, np.float16, np.int64, np.uint8, np.bool_, ml_dtypes.bfloat16]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: np.dtype(kind).name)
def test_an_array_passes_without_a_copy_and_outlives_its_maker(kind):
    array = np.array([[1, 0, 1], [0, 1, 1]], kind)
    expected = array.copy()
    found = from_capsule(to_capsule(array))
    assert np.shares_memory(found.view(np.uint8), array.view(np.uint8))
    del array
    gc.collect()
    assert found.dtype == kind
    np.testing.assert_array_equal(found, expected)


def test_tensors_take_one_another_and_numpys_arrays():
    given = Tensor("X", np.array([1, 2], ml_dtypes.bfloat16))
    for source in (given, given.to_dlpack()):
        assert Tensor.from_dlpack("Y", source).as_numpy().dtype == ml_dtypes.bfloat16
    assert Tensor.from_dlpack("Y", np.arange(3)).as_numpy().tolist() == [0, 1, 2]
    assert np.from_dlpack(Tensor("X", np.arange(3))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("source", [7, "x", None], ids=str)
def test_what_is_no_capsule_is_refused(source):
    with pytest.raises(TypeError, match="a DLPack capsule was expected"):
        from_capsule(source)

"""Outputs as their parameters want them."""

import numpy as np
import pytest

from serving.backends.ray.outputs import with_outputs_as_asked
from serving.errors import Unsupported
from serving.protocol.oip import InferRequest, InferResponse, RequestedOutput, Tensor

RESPONSE = InferResponse("m", outputs=(Tensor.from_array("Y", np.array([[1, 3, 2]], np.float32)),))


def asked(**parameters):
    return InferRequest("m", outputs=(RequestedOutput("Y", parameters),))


def test_only_outputs_that_ask_for_it_are_classified():
    found = with_outputs_as_asked(RESPONSE, asked(classification=1), {"Y": ["a", "b"]}, None, batched=True)
    assert found.outputs[0].elements() == [b"3.000000:1:b"]
    for request in (asked(binary_data=True), asked(classification=0), InferRequest("m")):
        assert with_outputs_as_asked(RESPONSE, request, {}, None, batched=True) is RESPONSE


def test_a_region_where_there_is_no_shared_memory_is_refused():
    with pytest.raises(Unsupported, match="shared memory is not supported for 'Y'"):
        with_outputs_as_asked(RESPONSE, asked(shared_memory_region="r"), {}, None, batched=True)

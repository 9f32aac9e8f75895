"""Adds and subtracts numbers written as text."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        left, right = (numbers(request, name) for name in ("INPUT0", "INPUT1"))
        return pb_utils.InferenceResponse([texts("OUTPUT0", left + right), texts("OUTPUT1", left - right)])


def numbers(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().astype(np.int32)


def texts(name, array):
    return pb_utils.Tensor(name, array.astype(str).astype(np.object_))

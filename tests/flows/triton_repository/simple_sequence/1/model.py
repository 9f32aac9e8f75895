"""Adds up what each sequence was sent."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self._totals = {}

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        total = 0
        if number(request, "READY"):
            sequence, before = number(request, "CORRID"), 0
            if not number(request, "START"):
                before = self._totals[sequence]
            total = self._totals[sequence] = before + number(request, "INPUT")
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", np.array([[total]], np.int32))])


def number(request, name):
    return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0])

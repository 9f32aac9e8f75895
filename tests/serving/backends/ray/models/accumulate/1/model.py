"""Adds up what each sequence sends, as Triton's sequence accumulators do."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "INPUT").as_numpy()
            start = pb_utils.get_input_tensor_by_name(request, "START").as_numpy()
            sequence = pb_utils.get_input_tensor_by_name(request, "CORRID").as_numpy().item()
            before = 0 if start.any() else self.totals[sequence]
            self.totals[sequence] = before + int(value.sum())
            output = pb_utils.Tensor("OUTPUT", np.array([[self.totals[sequence]]], np.int32))
            responses.append(pb_utils.InferenceResponse([output]))
        return responses

"""Answers each number of its input by a response of its own, after a delay in milliseconds."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self._stream(request)

    def _stream(self, request):
        sender = request.get_response_sender()
        numbers, delays, wait = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("IN", "DELAY", "WAIT")
        )
        for index, (number, delay) in enumerate(zip(numbers, delays, strict=True)):
            time.sleep(delay / 1000)
            out = pb_utils.Tensor("OUT", np.array([number], np.int32))
            position = pb_utils.Tensor("IDX", np.array([index], np.uint32))
            sender.send(pb_utils.InferenceResponse([out, position]))
        time.sleep(int(wait[0]) / 1000)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

"""Says the prompt back in capitals: at once, or word by word."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            prompt = pb_utils.get_input_tensor_by_name(request, "PROMPT").as_numpy()[0].decode().upper()
            stream = pb_utils.get_input_tensor_by_name(request, "STREAM")
            for part in prompt.split() if stream is not None and stream.as_numpy()[0] else [prompt]:
                text = pb_utils.Tensor("TEXT", np.array([part.encode()], np.object_))
                sender.send(pb_utils.InferenceResponse([text]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

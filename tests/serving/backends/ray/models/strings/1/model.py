"""Gives strings back; its words come from a file beside it."""

import helper
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            if any(b"fail" in word for word in array.reshape(-1)):
                error = pb_utils.TritonError(helper.SORRY, pb_utils.TritonError.INVALID_ARG)
                answers.append(pb_utils.InferenceResponse(error=error))
                continue
            if any(b"raise" in word for word in array.reshape(-1)):
                raise ValueError(helper.SORRY)
            answers.append(
                pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", array)], parameters={"seen": array.size})
            )
        return answers

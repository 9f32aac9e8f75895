"""Twice X, by asking add_sub for X + X: first waiting in its thread, then awaiting."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X")
            inputs = [pb_utils.Tensor(name, x.as_numpy()) for name in ("INPUT0", "INPUT1")]
            asked = pb_utils.InferenceRequest(model_name="add_sub", requested_output_names=["OUTPUT0"], inputs=inputs)
            answer, again = asked.exec(), await asked.async_exec()
            if answer.has_error() or again.has_error():
                raise pb_utils.TritonModelException(answer.error().message())
            y = pb_utils.get_output_tensor_by_name(answer, "OUTPUT0")
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", y.as_numpy())]))
        return responses

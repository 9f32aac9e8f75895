"""Answers what it was given, in datatypes that few clients know how to write."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self._same(request, name) for name in NAMES]) for request in requests]

    def _same(self, request, name):
        # numpy has no bfloat16, so tensors pass as they are.
        given = pb_utils.get_input_tensor_by_name(request, name)
        return pb_utils.Tensor.from_dlpack(f"{name}_OUT", given.to_dlpack())


NAMES = ("FP16", "BF16", "BOOL")

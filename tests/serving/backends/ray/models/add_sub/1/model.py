"""Sum and difference, written as Triton's add_sub example is."""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        config = auto_complete_model_config.as_dict()
        have = [entry["name"] for entry in config["input"] + config["output"]]
        for kind, add in (
            ("INPUT", auto_complete_model_config.add_input),
            ("OUTPUT", auto_complete_model_config.add_output),
        ):
            for name in (f"{kind}0", f"{kind}1"):
                if name not in have:
                    add({"name": name, "data_type": "TYPE_FP32", "dims": [4]})
        auto_complete_model_config.set_max_batch_size(max(config["max_batch_size"], 0))
        return auto_complete_model_config

    def initialize(self, args):
        self.model_config = json.loads(args["model_config"])
        types = [pb_utils.get_output_config_by_name(self.model_config, name) for name in ("OUTPUT0", "OUTPUT1")]
        self.types = [pb_utils.triton_string_to_numpy(config["data_type"]) for config in types]

    def execute(self, requests):
        responses = []
        for request in requests:
            left, right = (pb_utils.get_input_tensor_by_name(request, f"INPUT{i}").as_numpy() for i in (0, 1))
            total = pb_utils.Tensor("OUTPUT0", (left + right).astype(self.types[0]))
            difference = pb_utils.Tensor("OUTPUT1", (left - right).astype(self.types[1]))
            responses.append(pb_utils.InferenceResponse(output_tensors=[total, difference]))
        return responses

    def finalize(self):
        print("Cleaning up...")

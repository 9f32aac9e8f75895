"""What is filled into a configuration where its config.pbtxt is silent."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.backends.ray.config_defaults import with_defaults
from serving.backends.ray.engines.tensor_config import instance_count
from serving.protocol.oip_metadata import config_document


def parsed(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig(name="m"))


@pytest.mark.parametrize(("engine", "file"), [("onnxruntime", "model.onnx"), ("python", "model.py"), ("", "")])
def test_a_silent_configuration_is_told_as_triton_tells_it(engine: str, file: str) -> None:
    document = config_document(with_defaults(parsed(""), engine))
    assert document["version_policy"] == {"latest": {"num_versions": 1}}
    assert document["default_model_filename"] == file
    assert document["optimization"] == {
        "priority": "PRIORITY_DEFAULT",
        "input_pinned_memory": {"enable": True},
        "output_pinned_memory": {"enable": True},
        "gather_kernel_buffer_threshold": 0,
        "eager_batching": False,
    }
    [group] = document["instance_group"]
    assert (group["name"], group["kind"], group["count"], group["gpus"]) == ("m", "KIND_CPU", 1, [])


def test_what_was_set_stays_and_the_given_configuration_is_not_touched() -> None:
    config = parsed("""
        default_model_filename: "net.onnx" version_policy { all {} }
        optimization { input_pinned_memory { enable: false } }
        instance_group [ { count: 3 }, { name: "big" count: 2 kind: KIND_GPU gpus: [ 1 ] } ]
    """)
    before = config.SerializeToString(deterministic=True)
    filled = with_defaults(config, "onnxruntime")
    assert config.SerializeToString(deterministic=True) == before
    assert (filled.default_model_filename, filled.version_policy.HasField("all")) == ("net.onnx", True)
    assert not filled.optimization.input_pinned_memory.enable
    told = [(group.name, group.count, group.kind) for group in filled.instance_group]
    assert told == [("m_0", 3, ModelInstanceGroup.KIND_CPU), ("big", 2, ModelInstanceGroup.KIND_GPU)]
    assert instance_count(filled) == instance_count(config)

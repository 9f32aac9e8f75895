"""Versions of a model as one engine, and the labels of its outputs."""

import shutil

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.control_engines import labels_of, load_versions
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import BadInput
from serving.protocol.oip import InferRequest, RequestedOutput, Tensor
from serving.repository.model import Model
from tests.serving.backends.ray.tensor_models import (
    PLUS_ONE,
    card,
    context,
    onnx_model,
    outputs_of,
    plus_one_graph,
    request,
)


def with_versions(tmp_path, policy, versions=(1, 2)):
    model = onnx_model(tmp_path, "plus_one", PLUS_ONE + policy, plus_one_graph())
    for version in versions[1:]:
        shutil.copytree(model.folder / "1", model.folder / str(version))
    return Model(model.name, model.folder, model.card, model.config, versions)


async def test_every_version_of_the_policy_answers(tmp_path):
    served = await load_versions(with_versions(tmp_path, "version_policy { all {} }"), context(tmp_path))
    assert served.versions == ("1", "2")
    plane = OipPlane([served])
    for asked, answered in (("1", "1"), ("", "2")):
        found = await plane.infer(
            InferRequest("plus_one", asked, inputs=(Tensor.from_array("X", np.zeros((1, 4), np.float32)),)), "http"
        )
        assert (found.model_version, outputs_of(found)["Y"]) == (answered, [[1, 1, 1, 1]])
    await plane.close()


async def test_a_policy_without_versions_is_refused(tmp_path):
    with pytest.raises(BadInput, match="at least one version must be available under the version policy"):
        await load_versions(with_versions(tmp_path, "version_policy { specific { versions: 7 } }"), context(tmp_path))


async def test_a_version_that_does_not_load_takes_the_others_with_it(tmp_path):
    model = with_versions(tmp_path, "version_policy { all {} }")
    (model.folder / "2/model.onnx").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="onnx runtime cannot load"):
        await load_versions(model, context(tmp_path))


async def test_classes_carry_the_labels_of_the_models_file(tmp_path):
    config = PLUS_ONE.replace('output { name: "Y"', 'output { name: "Y" label_filename: "labels.txt"')
    model = onnx_model(tmp_path, "plus_one", config, plus_one_graph())
    (model.folder / "labels.txt").write_text("cat\ndog\n")
    plane = OipPlane([await load_versions(model, context(tmp_path))])
    x = np.array([[0, 5, 2, 1]], np.float32)
    asked = request("plus_one", X=x)
    asked = InferRequest("plus_one", inputs=asked.inputs, outputs=(RequestedOutput("Y", {"classification": 2}),))
    found = await plane.infer(asked, "http")
    assert outputs_of(found)["Y"] == [[b"6.000000:1:dog", b"3.000000:2"]]
    await plane.close()


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "missing.txt"], ids=["up", "absolute", "missing"])
def test_labels_come_from_the_models_folder_alone(tmp_path, name):
    (tmp_path / "secret.txt").write_text("secret")
    config = text_format.Parse(f'output {{ name: "Y" label_filename: "{name}" }}', ModelConfig(name="m"))
    (tmp_path / "m").mkdir()
    with pytest.raises(BadInput, match="there is no file"):
        labels_of(Model("m", tmp_path / "m", card("onnxruntime"), config, (1,)))


async def test_a_model_is_warmed_up_before_it_serves(tmp_path):
    sample = 'model_warmup { name: "s" inputs { key: "X" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }'
    await load_versions(with_versions(tmp_path, sample), context(tmp_path))
    with pytest.raises(BadInput, match="unexpected shape for input 'X'"):
        await load_versions(with_versions(tmp_path / "wrong", sample.replace("4", "5")), context(tmp_path))

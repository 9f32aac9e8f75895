from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from optimize.tensorrt.build import build_plan
from optimize.tensorrt.options import Options
from optimize.tensorrt.triton import card, render, write_config
from serving.backends.ray.parts.gpu import Gpu
from serving.errors import BadInput
from serving.repository.lint import lint
from serving.repository.model import License, ModelCard, Source
from serving.repository.plan_file import PlanFile, PlanTensor

from .files import Standing, declared

Files = Callable[..., Path]
MODEL = ModelCard(
    description="m",
    task="image",
    backend="ray",
    engine="sdxl",
    license=License(name="openrail++", commercial_use="conditional", condition="No harm."),
    source=Source(uri="hf:studio/m", revision="main"),
)


def made(onnx_file: Files, node: Standing, **options: int) -> PlanFile:
    file = onnx_file()
    plans = file.parents[2] / "m_unet_trt" / "1"
    return build_plan(file, declared(), Options(**options), plans, builder=node).made


def read(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_a_configuration_leads_each_compute_capability_to_its_plan(onnx_file: Files, node: Standing) -> None:
    config = read(render("m_unet_trt", made(onnx_file, node)))
    assert (config.name, config.platform, config.max_batch_size) == ("m_unet_trt", "tensorrt_plan", 4)
    assert dict(config.cc_model_filenames) == {"9.0": "model-sm90-trt10.13-nvidia-h200.plan"}
    [x], [y] = config.input, config.output
    assert (x.name, DataType.Name(x.data_type), list(x.dims)) == ("X", "TYPE_FP32", [-1, 8])
    assert (y.name, DataType.Name(y.data_type), list(y.dims)) == ("Y", "TYPE_FP32", [-1, 4])
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 1024
    [group] = config.instance_group
    assert (group.kind, list(group.profile)) == (ModelInstanceGroup.KIND_GPU, [])


def test_every_profile_is_loaded(onnx_file: Files, node: Standing) -> None:
    [group] = read(render("m", made(onnx_file, node, profiles=2))).instance_group
    assert list(group.profile) == ["0", "1"]


def test_without_a_batch_axis_in_every_tensor_there_are_no_batches(onnx_file: Files, node: Standing) -> None:
    step = PlanTensor(name="timestep", dtype="bfloat16", axes=(1,))
    plan = made(onnx_file, node)
    config = read(render("m", plan.model_copy(update={"inputs": (*plan.inputs, step)})))
    assert config.max_batch_size == 0
    assert [(DataType.Name(one.data_type), list(one.dims)) for one in config.input] == [
        ("TYPE_FP32", [-1, -1, 8]),
        ("TYPE_BF16", [1]),
    ]
    assert not config.HasField("dynamic_batching")


def test_one_number_a_request_is_reshaped(onnx_file: Files, node: Standing) -> None:
    plan = made(onnx_file, node)
    score = PlanTensor(name="score", dtype="float16", axes=("batch",))
    [_, entry] = read(render("m", plan.model_copy(update={"outputs": (*plan.outputs, score)}))).output
    assert list(entry.dims) == [1]
    assert entry.HasField("reshape")
    assert list(entry.reshape.shape) == []


def test_a_tensor_that_triton_cannot_have_is_refused(onnx_file: Files, node: Standing) -> None:
    plan = made(onnx_file, node)
    for tensor, said in (
        (PlanTensor(name="timestep", dtype="float32", axes=()), "timestep: has no axis"),
        (PlanTensor(name="noise", dtype="complex64", axes=(1,)), "noise: Triton has no complex64"),
    ):
        with pytest.raises(BadInput, match=said):
            render("m", plan.model_copy(update={"inputs": (tensor,)}))


def test_the_model_of_plans_passes_the_repositorys_lint(onnx_file: Files, node: Standing, tmp_path: Path) -> None:
    plan = made(onnx_file, node)
    folder = tmp_path / "m_unet_trt"
    write_config(folder, plan)
    (folder / "model.yaml").write_text(card(MODEL, plan, "m", "unet"))
    assert [found.render(tmp_path) for found in lint([tmp_path], model="m_unet_trt")] == []
    (folder / "model.yaml").unlink()
    assert [found for found in lint([tmp_path], model="m_unet_trt") if found.severity == "error"] == []


def test_the_card_carries_the_terms_of_the_weights_and_waits_to_be_asked(onnx_file: Files, node: Standing) -> None:
    found = ModelCard.model_validate(yaml.safe_load(card(MODEL, made(onnx_file, node), "m", "unet")))
    assert found.license == MODEL.license
    assert found.source == Source(uri="export:m", revision="main")
    assert (found.precision, found.optional, found.task) == ("fp16", True, "tensor")


def test_another_gpu_adds_its_line_and_leaves_the_rest(onnx_file: Files, node: Standing, tmp_path: Path) -> None:
    write_config(tmp_path / "m_unet_trt", made(onnx_file, node))
    file = tmp_path / "m_unet_trt" / "config.pbtxt"
    file.write_text(f"# kept\n{file.read_text()}".replace("max_batch_size: 4", "max_batch_size: 2"))
    write_config(file.parent, made(onnx_file, Standing(gpu=Gpu(0, "NVIDIA L4", "8.9"))))
    write_config(file.parent, made(onnx_file, node))
    text = file.read_text()
    assert text.startswith("# kept\n")
    assert read(text).max_batch_size == 2
    assert dict(read(text).cc_model_filenames) == {
        "8.9": "model-sm89-trt10.13-nvidia-l4.plan",
        "9.0": "model-sm90-trt10.13-nvidia-h200.plan",
    }
    assert text.count("cc_model_filenames") == 2


def test_a_newer_tensorrt_takes_the_place_of_the_older_on_its_line(
    onnx_file: Files, node: Standing, tmp_path: Path
) -> None:
    plan = made(onnx_file, node)
    write_config(tmp_path / "m", plan)
    write_config(tmp_path / "m", plan.model_copy(update={"plan": "model-sm90-trt11.4.plan"}))
    config = read((tmp_path / "m" / "config.pbtxt").read_text())
    assert dict(config.cc_model_filenames) == {"9.0": "model-sm90-trt11.4.plan"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("TYPE_FP32", "TYPE_FP16", id="type"),
        pytest.param('name: "X"', 'name: "Z"', id="name"),
        pytest.param("max_batch_size: 4", "max_batch_size: 8", id="a larger batch than the profiles take"),
        pytest.param("max_batch_size: 4", "max_batch_size: 0", id="no batches"),
        pytest.param("platform", "platfrom", id="no configuration"),
    ],
)
def test_a_configuration_that_contradicts_the_plan_is_not_touched(
    onnx_file: Files, node: Standing, tmp_path: Path, old: str, new: str
) -> None:
    plan = made(onnx_file, node)
    write_config(tmp_path / "m", plan)
    file = tmp_path / "m" / "config.pbtxt"
    file.write_text(file.read_text().replace(old, new))
    before = file.read_text()
    with pytest.raises(BadInput, match="correct it, or remove it"):
        write_config(tmp_path / "m", plan.model_copy(update={"plan": "model-sm90-trt11.4.plan"}))
    assert file.read_text() == before

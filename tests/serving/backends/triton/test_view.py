from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.triton.install import TritonInstall
from serving.backends.triton.view import adapted, build_backends, check_backend, is_complete, write_model
from serving.errors import BadInput, MissingDependency
from serving.repository.model import Memory, ModelCard, Share

from .conftest import CARD, PLUS_ONE, MakeModel, add_graph

GPU_GROUP = 'backend: "onnxruntime" instance_group { kind: KIND_GPU count: 2 gpus: [ 3 ] }'
TENSORRT = """backend: "onnxruntime"
    optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }"""
MEMORY = Memory(weights_mib=100, peak_mib=400, measured_on="here")


def parsed(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


@pytest.mark.parametrize(
    ("config", "share_gpu", "gpus", "expected"),
    [
        (GPU_GROUP, 0.5, 0, "instance_group { kind: KIND_CPU count: 2 }"),
        (GPU_GROUP, 0.0, 1, "instance_group { kind: KIND_CPU count: 2 }"),
        ("backend: 'onnxruntime'", 0.0, 0, "instance_group { kind: KIND_CPU count: 1 }"),
        (TENSORRT, 0.5, 0, "instance_group { kind: KIND_CPU count: 1 } optimization { execution_accelerators {} }"),
        ("platform: 'ensemble'", 0.0, 0, ""),
    ],
    ids=["no GPU here", "a GPU it did not lease", "nothing said", "TensorRT without a GPU", "ensemble"],
)
def test_a_model_without_a_leased_gpu_runs_on_the_cpu(config: str, share_gpu: float, gpus: int, expected: str) -> None:
    card = ModelCard.model_validate(CARD | {"share": Share(gpu=share_gpu), "memory": MEMORY})
    result = adapted(parsed(config), card, gpus=gpus)
    result.ClearField("backend")
    result.ClearField("platform")
    assert result == parsed(expected)


def test_a_leased_gpu_is_used_within_the_measured_memory() -> None:
    card = ModelCard.model_validate(CARD | {"share": Share(gpu=0.5), "memory": MEMORY})
    result = adapted(parsed(GPU_GROUP), card, gpus=1)
    limit = 'parameters { key: "gpu_mem_limit" value { string_value: "524288000" } }'
    assert result == parsed(f'backend: "onnxruntime" instance_group {{ kind: KIND_GPU count: 2 }} {limit}')


def test_a_limit_in_the_configuration_wins() -> None:
    said = 'parameters { key: "gpu_mem_limit" value { string_value: "7" } }'
    card = ModelCard.model_validate(CARD | {"share": Share(gpu=0.5), "memory": MEMORY})
    assert adapted(parsed(said), card, gpus=1).parameters["gpu_mem_limit"].string_value == "7"


@pytest.mark.parametrize(("config", "expected"), [(PLUS_ONE, True), ('backend: "onnxruntime"', False)])
def test_a_configuration_is_complete_when_it_names_the_tensors(
    make_model: MakeModel, config: str, expected: bool
) -> None:
    assert is_complete(make_model("m", config, add_graph(4))) is expected


@pytest.mark.parametrize(("code", "expected"), [("", True), ("    def auto_complete_config(config): ...", False)])
def test_a_python_model_that_completes_its_configuration_is_asked(
    make_model: MakeModel, code: str, expected: bool
) -> None:
    model = make_model("m", PLUS_ONE.replace("onnxruntime", "python"), b"")
    (model.folder / "1/model.py").write_text(f"class TritonPythonModel:\n{code}\n    pass")
    assert is_complete(model) is expected


@pytest.fixture
def view(tmp_path: Path) -> Path:
    folder = tmp_path / "view"
    folder.mkdir()
    return folder


def test_the_view_links_versions_and_leaves_the_repository_alone(
    make_model: MakeModel, tmp_path: Path, view: Path
) -> None:
    model = make_model("m", PLUS_ONE, add_graph(4))
    write_model(model, view, TritonInstall(tmp_path / "bin", tmp_path), gpus=0)
    assert (view / "m/1").resolve() == model.folder / "1"
    assert parsed((view / "m/config.pbtxt").read_text()).name == "m"
    assert (model.folder / "config.pbtxt").read_text() == PLUS_ONE
    assert [entry.name for entry in view.iterdir()] == ["m"]


def test_a_model_written_again_changes_only_where_the_model_changed(
    make_model: MakeModel, tmp_path: Path, view: Path
) -> None:
    model = make_model("m", PLUS_ONE, add_graph(4))
    install = TritonInstall(tmp_path / "bin", tmp_path)
    (model.folder / "labels.txt").write_text("a")
    write_model(model, view, install, gpus=0)
    before = (view / "m/config.pbtxt").stat()
    write_model(model, view, install, gpus=0)
    assert (view / "m/config.pbtxt").stat() == before
    (model.folder / "labels.txt").unlink()
    (model.folder / "2").mkdir()
    model.config.max_batch_size = 3
    write_model(model, view, install, gpus=0)
    assert sorted(entry.name for entry in (view / "m").iterdir()) == ["1", "2", "config.pbtxt"]
    assert parsed((view / "m/config.pbtxt").read_text()).max_batch_size == 3


def test_a_backend_that_this_triton_lacks_is_named_before_anything_starts(
    make_model: MakeModel, tmp_path: Path, view: Path
) -> None:
    model = make_model("m", 'platform: "tensorrt_plan"', b"")
    install = TritonInstall(tmp_path / "bin", tmp_path)
    problem = (
        r"m/config\.pbtxt:1:platform: Triton's backend 'tensorrt' is not in this install: run the model in NVIDIA's"
    )
    with pytest.raises(MissingDependency, match=problem):
        write_model(model, view, install, gpus=0)


def test_a_backend_that_no_triton_has_is_told_with_its_line_and_the_nearest_one(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("m", 'max_batch_size: 1\nbackend: "pyton"', b"")
    (tmp_path / "backends/python").mkdir(parents=True)
    problem = r"m/config\.pbtxt:2:backend: this Triton has no backend 'pyton', did you mean 'python'\?: use one of onnx"
    with pytest.raises(BadInput, match=problem):
        check_backend(model, TritonInstall(tmp_path / "bin", tmp_path / "backends"))


def test_a_model_may_bring_its_backend_along(make_model: MakeModel, tmp_path: Path, view: Path) -> None:
    model = make_model("m", 'backend: "own"', b"")
    (model.folder / "libtriton_own.so").write_bytes(b"")
    write_model(model, view, TritonInstall(tmp_path / "bin", tmp_path), gpus=0)
    assert (view / "m/libtriton_own.so").is_symlink()


@pytest.mark.parametrize("native", [True, False])
def test_the_python_based_onnxruntime_stands_in_only_where_the_native_one_is_missing(
    tmp_path: Path, native: bool
) -> None:
    backends = tmp_path / "backends"
    (backends / ("onnxruntime" if native else "python")).mkdir(parents=True)
    build_backends(tmp_path / "view", TritonInstall(tmp_path / "bin", backends))
    assert (tmp_path / "view/onnxruntime/model.py").exists() is not native

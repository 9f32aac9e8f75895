from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.derive import served_versions
from serving.repository.load import load_repository


def written(repository: Path, name: str, config: str | None, *files: str) -> None:
    for file in files or ("1/",):
        path = repository / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if file.endswith("/") else path.write_bytes(b"")
    if config is not None:
        (repository / name / "config.pbtxt").write_text(config)


@pytest.mark.parametrize(
    ("config", "file", "backend"),
    [
        pytest.param(None, "1/model.onnx", "onnxruntime", id="onnx without config"),
        pytest.param(None, "1/model.py", "python", id="python without config"),
        pytest.param("max_batch_size: 4", "3/model.py", "python", id="config without backend"),
        pytest.param('platform: "onnxruntime_onnx"', "1/model.onnx", "onnxruntime", id="platform"),
        pytest.param('default_model_filename: "net.onnx"', "1/net.onnx", "onnxruntime", id="file of another name"),
        pytest.param('backend: "python" default_model_filename: "m.py"', "1/m.py", "python", id="named file"),
    ],
)
def test_a_triton_folder_means_what_it_means_to_triton(
    repository: Path, config: str | None, file: str, backend: str
) -> None:
    written(repository, "m", config, file)
    model = load_repository([repository]).get("m")
    assert (model.card.backend, model.card.task) == ("triton", "tensor")
    assert backend in (model.config.backend, {"onnxruntime_onnx": "onnxruntime"}.get(model.config.platform))


def test_an_ensemble_needs_no_file_in_its_version_folder(repository: Path) -> None:
    maps = 'input_map { key: "X" value: "X" } output_map { key: "Y" value: "Y" }'
    step = f'step [ {{ model_name: "other" model_version: -1 {maps} }} ]'
    tensors = " ".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: [1] }}'
        for kind, name in (("input", "X"), ("output", "Y"))
    )
    written(repository, "other", f'backend: "python" {tensors}', "1/model.py")
    written(repository, "e", f'platform: "ensemble" {tensors} ensemble_scheduling {{ {step} }}', "1/")
    assert load_repository([repository]).get("e").replica_group == "triton"


@pytest.mark.parametrize(
    ("file", "engine"), [("1/model.onnx", "onnxruntime"), ("1/model.py", "python"), ("2/model.py", "python")]
)
def test_one_line_makes_a_plain_triton_folder_a_model_of_a_ray_replica(
    repository: Path, file: str, engine: str
) -> None:
    written(repository, "m", 'backend: "ray"', file)
    model = load_repository([repository], {"ray": {}, "triton": {}}).get("m")
    assert (model.card.backend, model.card.task, model.card.engine) == ("ray", "tensor", engine)
    assert model.replica_group == "tensors"


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", (7,)),
        ("version_policy { latest { num_versions: 2 } }", (3, 7)),
        ("version_policy { specific { versions: [1, 5, 7] } }", (1, 7)),
        ("version_policy { all { } }", (1, 3, 7)),
    ],
)
def test_versions_are_served_as_the_policy_says(policy: str, versions: tuple[int, ...]) -> None:
    assert served_versions(text_format.Parse(policy, ModelConfig()), (1, 3, 7)) == versions

import pickle
from pathlib import Path

import pytest

from serving.errors import BadInput, NotFound
from serving.repository.load import load_repository


def test_a_plain_triton_folder_is_a_model(repository: Path, triton_model) -> None:
    triton_model("mlp", versions=(1, 3))
    model = load_repository([repository]).get("mlp")
    assert (model.card.backend, model.card.task, model.versions) == ("triton", "tensor", (1, 3))
    assert model.config.name == "mlp"
    assert model.version_folder() == repository / "mlp" / "3"


def test_version_0_serves_as_it_does_in_triton_and_a_leading_zero_is_no_version(repository: Path, triton_model) -> None:
    folder = triton_model("mlp", versions=(0,))
    (folder / "00").mkdir()
    model = load_repository([repository]).get("mlp")
    assert model.versions == (0,)
    assert model.version_folder() == folder / "0"


def test_an_onnx_file_without_config_is_a_model_that_triton_completes(repository: Path) -> None:
    (repository / "bare" / "1").mkdir(parents=True)
    (repository / "bare" / "1" / "model.onnx").write_bytes(b"")
    assert load_repository([repository]).get("bare").config.backend == "onnxruntime"


def test_the_first_repository_wins(tmp_path: Path, repository: Path, ray_model) -> None:
    ray_model("anna")
    second = tmp_path / "second"
    (second / "anna").mkdir(parents=True)
    (second / "anna" / "config.pbtxt").write_text("broken {")
    assert load_repository([repository, second]).get("anna").folder == repository / "anna"


def test_a_model_answers_to_its_alias(repository: Path, ray_model) -> None:
    ray_model("anna", more="aliases: [tts-1]")
    assert load_repository([repository]).get("tts-1").name == "anna"


def test_an_unknown_model_is_answered_with_the_nearest_name(repository: Path, ray_model) -> None:
    ray_model("anna")
    with pytest.raises(NotFound, match="did you mean 'anna'"):
        load_repository([repository]).get("ana")


def test_the_default_comes_first_then_names_decide(repository: Path, ray_model) -> None:
    ray_model("c")
    ray_model("a")
    ray_model("b", more="default: true")
    ray_model("other", task="music")
    assert [model.name for model in load_repository([repository]).for_task("speech")] == ["b", "a", "c"]


def test_groups_hold_ray_models_only(repository: Path, ray_model, triton_model) -> None:
    ray_model("anna", more="replica_group: audio")
    ray_model("bed", task="music", more="replica_group: audio")
    ray_model("alone", task="image")
    triton_model("mlp")
    loaded = load_repository([repository])
    groups = {name: [model.name for model in models] for name, models in loaded.groups().items()}
    assert groups == {"alone": ["alone"], "audio": ["anna", "bed"]}
    assert [model.name for model in loaded.triton()] == ["mlp"]


def test_a_repository_survives_pickling(repository: Path, ray_model) -> None:
    ray_model("anna", more="aliases: [tts-1]")
    again = pickle.loads(pickle.dumps(load_repository([repository])))  # noqa: S301
    assert again.get("tts-1").config.backend == "ray"


def test_one_broken_model_refuses_the_whole_start(repository: Path, ray_model) -> None:
    ray_model("anna")
    ray_model("bob", more="colour: red\n")
    with pytest.raises(BadInput) as caught:
        load_repository([repository])
    assert str(caught.value).endswith("model.yaml:7:colour: no such field: " + caught.value.fix)


def test_several_errors_are_one_line_that_says_so(repository: Path, ray_model) -> None:
    ray_model("bob", more="colour: red\nsize: 3\n")
    with pytest.raises(BadInput, match=r"1 more: `reelmesh models lint`"):
        load_repository([repository])


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        load_repository([tmp_path / "nowhere"])


def test_hidden_folders_and_files_are_no_models(repository: Path) -> None:
    (repository / ".git").mkdir()
    (repository / "__pycache__").mkdir()
    (repository / "README.md").write_text("hello")
    assert dict(load_repository([repository]).models) == {}

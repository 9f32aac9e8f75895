import pickle
from pathlib import Path

import pytest

from serving.errors import BadInput, NotFound
from serving.repository.served import check_served, load_one, load_served, replica_groups, requested
from serving.settings import InferenceSettings, Settings

ENSEMBLE = """\
platform: "ensemble"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [4] } ]
output [ { name: "A" data_type: TYPE_FP32 dims: [2] }, { name: "B" data_type: TYPE_FP32 dims: [2] } ]
ensemble_scheduling {
  step [
    { model_name: "mlp" model_version: -1 input_map { key: "X" value: "X" } output_map { key: "Y" value: "A" } },
    { model_name: "other" model_version: -1 input_map { key: "X" value: "X" } output_map { key: "Y" value: "B" } }
  ]
}
"""


def settings_of(repository: Path, **inference: object) -> Settings:
    return Settings(model_repositories=[repository], inference=InferenceSettings.model_validate(inference)).resolved()


def plain_triton(triton_model) -> None:
    triton_model("mlp")
    triton_model("other")
    triton_model("both", config=ENSEMBLE)


@pytest.mark.parametrize(
    ("mode", "loaded", "expected"),
    [
        ("none", [], ["both", "mlp", "other"]),
        ("poll", [], ["both", "mlp", "other"]),
        ("explicit", [], []),
        ("explicit", ["*"], ["both", "mlp", "other"]),
        ("explicit", ["mlp"], ["mlp"]),
        ("explicit", ["both"], ["both", "mlp", "other"]),
        ("explicit", ["nobody"], ["nobody"]),
    ],
)
def test_what_is_asked_for_at_start(
    repository: Path, triton_model, mode: str, loaded: list[str], expected: list[str]
) -> None:
    plain_triton(triton_model)
    settings = settings_of(repository, model_control_mode=mode, load_models=loaded)
    assert requested(load_served(settings), settings.inference) == expected


def test_a_broken_model_harms_no_other_where_models_come_and_go(repository: Path, triton_model) -> None:
    triton_model("mlp")
    triton_model("bad", config="max_batch_size: many")
    settings = settings_of(repository, model_control_mode="explicit")
    found = load_served(settings)
    assert list(found.models) == ["mlp"]
    assert "max_batch_size" in str(found.broken["bad"]) or "config.pbtxt" in str(found.broken["bad"])
    assert list(pickle.loads(pickle.dumps(found)).broken) == ["bad"]  # noqa: S301
    check_served(found, settings.inference)
    with pytest.raises(BadInput):
        load_served(settings_of(repository))


@pytest.mark.parametrize(("mode", "loaded"), [("explicit", ["bad"]), ("explicit", ["*"]), ("poll", [])])
def test_a_broken_model_that_is_asked_for_refuses_the_start(
    repository: Path, triton_model, mode: str, loaded: list[str]
) -> None:
    triton_model("mlp")
    triton_model("bad", config="max_batch_size: many")
    settings = settings_of(repository, model_control_mode=mode, load_models=loaded)
    with pytest.raises(BadInput, match=r"config\.pbtxt"):
        check_served(load_served(settings), settings.inference)


@pytest.mark.parametrize(
    "inference",
    [
        {"model_control_mode": "explicit", "load_models": ["mpl"]},
        {"replicas": {"mpl": 2}},
    ],
)
def test_a_model_that_is_not_there_is_named(repository: Path, triton_model, inference: dict[str, object]) -> None:
    triton_model("mlp")
    settings = settings_of(repository, **inference)
    with pytest.raises(NotFound, match=r"'mpl'.*the repository has mlp"):
        check_served(load_served(settings), settings.inference)


def test_without_triton_its_models_are_served_by_ray(repository: Path, triton_model) -> None:
    triton_model("mlp")
    folder = triton_model("doubler", config='backend: "python" input { name: "X" data_type: TYPE_FP32 dims: 1 }')
    (folder / "1" / "model.py").write_text("")
    found = load_served(settings_of(repository, triton="off"))
    assert found.triton() == []
    assert {name: model.card.engine for name, model in found.models.items()} == {
        "doubler": "python",
        "mlp": "onnxruntime",
    }
    assert list(found.groups()) == ["tensors"]


def test_without_triton_an_ensemble_is_refused_by_name(repository: Path, triton_model) -> None:
    plain_triton(triton_model)
    with pytest.raises(BadInput, match=r"both: an ensemble needs Triton, which is off.*--triton auto"):
        load_served(settings_of(repository, triton="off"))
    settings = settings_of(repository, triton="off", model_control_mode="explicit", load_models=["mlp"])
    found = load_served(settings)
    assert list(found.broken) == ["both"]
    check_served(found, settings.inference)


@pytest.mark.parametrize(
    ("inference", "expected"),
    [
        ({}, ["triton"]),
        ({"triton": "off"}, ["tensors"]),
        ({"model_control_mode": "explicit"}, ["triton", "tensors"]),
        ({"model_control_mode": "poll", "triton": "off"}, ["tensors"]),
    ],
)
def test_where_models_may_come_there_is_a_place_for_them(
    repository: Path, triton_model, inference: dict[str, object], expected: list[str]
) -> None:
    triton_model("mlp")
    settings = settings_of(repository, **inference)
    assert list(replica_groups(load_served(settings), settings.inference)) == expected


def test_one_model_is_read_as_its_folder_is_now(repository: Path, triton_model) -> None:
    settings = settings_of(repository, model_control_mode="explicit")
    with pytest.raises(NotFound, match="failed to load 'late', failed to poll from model repository"):
        load_one(settings, "late")
    folder = triton_model("late")
    assert load_one(settings, "late").versions == (1,)
    (folder / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(BadInput, match=r"config\.pbtxt"):
        load_one(settings, "late")


@pytest.mark.parametrize("name", ["../models/mlp", "mlp/../mlp", "/etc", "", ".", "x" * 5000, "mlp\x00"])
def test_a_name_is_never_a_path(repository: Path, triton_model, name: str) -> None:
    triton_model("mlp")
    with pytest.raises(NotFound) as caught:
        load_one(settings_of(repository), name)
    assert len(str(caught.value)) < 300


def test_one_model_is_moved_to_ray_like_all_where_triton_is_off(repository: Path, triton_model) -> None:
    triton_model("mlp")
    assert load_one(settings_of(repository, triton="off"), "mlp").replica_group == "tensors"

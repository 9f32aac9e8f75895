"""Before a mesh starts: models that lease a GPU are refused without one, and weights are fetched, which is told."""

from pathlib import Path
from typing import Any

import pytest

from serving.cli import networks
from serving.cli.networks import check_gpus, fetch_weights
from serving.errors import BadInput, MissingDependency
from serving.repository.serve_config import deployment_options
from serving.repository.served import load_served
from serving.settings import EngineSettings, InferenceSettings, Settings
from serving.weights.cache import WeightsCache
from tests.serving.backends.ray.engines.network.toy import toy_model


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "gpu_memories_mib", list)


def mesh(folder: Path, **changes: Any) -> Settings:
    values = {"home": folder / "home", "model_repositories": [folder / "models"], **changes}
    return Settings.model_validate(values).resolved()


def test_a_model_that_leases_a_gpu_is_refused_where_there_is_none(tmp_path: Path) -> None:
    toy_model(tmp_path, share={"gpu": 0.5})
    settings = mesh(tmp_path)
    with pytest.raises(MissingDependency) as caught:
        check_gpus(settings, load_served(settings))
    assert str(caught.value) == (
        "toy/model.yaml:share.gpu: toy leases 0.5 of a GPU, and this machine has none: start it where there is one; "
        "on the CPU, slowly: REELMESH_ENGINES__DEVICE=cpu REELMESH_ENGINES__PRECISION=fp32"
    )


def test_on_the_cpu_by_choice_no_gpu_is_leased(tmp_path: Path) -> None:
    toy_model(tmp_path, share={"gpu": 0.5})
    settings = mesh(tmp_path, engines=EngineSettings(device="cpu"))
    repository = load_served(settings)
    check_gpus(settings, repository)
    assert "num_gpus" not in deployment_options(repository, settings)["toy"]["ray_actor_options"]
    assert deployment_options(repository, mesh(tmp_path))["toy"]["ray_actor_options"]["num_gpus"] == 0.5


def test_models_that_are_loaded_later_need_nothing_yet(tmp_path: Path) -> None:
    toy_model(tmp_path, share={"gpu": 0.5}, source={"uri": "file:nowhere"})
    settings = mesh(tmp_path, inference=InferenceSettings(model_control_mode="explicit"))
    repository = load_served(settings)
    check_gpus(settings, repository)
    fetch_weights(settings, repository, lambda text, done: None)


def test_weights_are_in_the_cache_afterwards_and_the_way_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model(tmp_path, source={"uri": "file:weights", "copied": True})
    monkeypatch.setattr(networks, "_QUIET_S", 0.0)
    settings, said = mesh(tmp_path), list[str]()
    assert WeightsCache.of(settings).locate(model) is None
    fetch_weights(settings, load_served(settings), lambda text, done: said.append(text))
    assert WeightsCache.of(settings).locate(model) is not None
    assert said[-1] == "fetching toy: 100% of 0 MB"


def test_damaged_weights_stop_the_start(tmp_path: Path) -> None:
    model = toy_model(tmp_path)
    file = model.folder / "weights" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    settings = mesh(tmp_path)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        fetch_weights(settings, load_served(settings), lambda text, done: None)

"""Coqui's checkpoints, read as numbers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from serving.backends.ray.engines.coqui.files import coqui, fill, read_pickle, read_state
from serving.errors import BadInput, MissingDependency
from serving.repository.load import load_repository
from serving.repository.model import Model, Source
from tests.servers.tiny import REPOSITORY, changed

STATE = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


@pytest.fixture(scope="module")
def model() -> Model:
    source = Source(uri="file:/nowhere", allow_pickles=["model.pth", "model_file.pth"])
    return changed(load_repository([REPOSITORY]).get("xtts_v2"), source=source)


@pytest.mark.parametrize("held", [STATE, {"model": STATE, "step": 3, "config": {"model": "vits"}}])
def test_a_state_is_found_by_itself_or_beside_what_training_keeps(held: dict, model: Model, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "model_file.pth")
    assert torch.equal(read_state(model, tmp_path)["a"], STATE["a"])


def test_safetensors_go_before_pickles(model: Model, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "model.pth").write_bytes(b"anything")
    assert torch.equal(read_state(model, tmp_path)["b"], STATE["b"])


def test_settings_that_xtts_was_published_with_are_read(model: Model, tmp_path: Path) -> None:
    with coqui("tts.models.xtts")._legacy_safe_globals():  # their classes had another place then
        config = coqui("tts.configs.xtts_config").XttsConfig()
        torch.save({"model": STATE, "config": config}, tmp_path / "model.pth")
    assert set(read_state(model, tmp_path)) == {"a", "b"}


def test_a_pickle_that_the_card_does_not_name_is_not_read(model: Model, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "best_model.pth")
    with pytest.raises(BadInput, match=r"best_model\.pth"):
        read_state(model, tmp_path)


def test_a_pickle_that_holds_code_is_not_run(model: Model, tmp_path: Path) -> None:
    torch.save({"model": STATE, "hook": Path("x")}, tmp_path / "model.pth")
    with pytest.raises(BadInput, match=r"xtts_v2: model\.pth: .*more than numbers, such as pathlib") as caught:
        read_state(model, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_told_in_one_line(content: bytes, model: Model, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.pth") as caught:
        read_pickle(model, tmp_path / "model.pth")
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_is_no_network(model: Model, tmp_path: Path) -> None:
    torch.save({"epochs": 3}, tmp_path / "model.pth")
    with pytest.raises(BadInput, match="the file holds no network"):
        read_state(model, tmp_path)


def test_a_folder_without_a_checkpoint_says_what_it_may_be_called(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no checkpoint: the file is one of model\.safetensors"):
        read_state(model, tmp_path)


def test_a_network_is_filled_with_tensors_that_fit(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 3)
    fill(network, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, field="voice: model.pth")
    assert torch.equal(network.weight.data, torch.ones(3, 2))
    with pytest.raises(BadInput, match=r"voice: model\.pth: .* misshapen bias is 2 and not 3"):
        fill(network, {"weight": torch.ones(3, 2), "bias": torch.zeros(2)}, field="voice: model.pth")
    with pytest.raises(BadInput, match=r"model\.pth: an unsupported dtype: the checkpoint has bias in torch\.int8"):
        fill(network, {"weight": torch.ones(3, 2), "bias": torch.zeros(3).char()}, field="voice: model.pth")


def test_a_module_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(MissingDependency, match="scripts/bootstrap full"):
        coqui("tts.models.no_such_network")

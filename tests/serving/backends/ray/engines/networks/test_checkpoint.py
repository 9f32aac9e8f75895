"""Checkpoints are read without running code in them, and fit a network key by key or not at all."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from serving.backends.ray.engines.networks.checkpoint import build, part, read_checkpoint
from serving.errors import BadInput, MissingDependency

SMALL = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


def small() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".p"])
def test_a_torch_file_is_read_where_pickles_are_allowed(tmp_path: Path, suffix: str) -> None:
    torch.save({"state_dict": SMALL, "epoch": 3}, tmp_path / f"a{suffix}")
    held = read_checkpoint(tmp_path / f"a{suffix}", pickles=True)
    assert torch.equal(part(held, "state_dict")["weight"], SMALL["weight"])


def test_a_torch_file_is_refused_where_pickles_are_not_allowed(tmp_path: Path) -> None:
    torch.save(SMALL, tmp_path / "a.pth")
    with pytest.raises(BadInput, match=r"a\.pth is a pickle"):
        read_checkpoint(tmp_path / "a.pth")


def test_safetensors_need_no_permission(tmp_path: Path) -> None:
    save_file(SMALL, tmp_path / "a.safetensors")
    assert torch.equal(part(read_checkpoint(tmp_path / "a.safetensors"))["bias"], SMALL["bias"])


class Evil:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"weight": Evil(trace)}, tmp_path / "a.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(trace), protocol=2))
    for name in ("a.pth", "plain.pth"):
        with pytest.raises(BadInput, match="cannot be read as weights"):
            read_checkpoint(tmp_path / name, pickles=True)
    assert not trace.exists()


def test_a_pickled_whole_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "whole.p")
    with pytest.raises(BadInput, match="cannot be read as weights") as refused:
        read_checkpoint(tmp_path / "whole.p", pickles=True)
    assert "state_dict alone" in str(refused.value)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("kept", [0, 5, 60, 300])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, kept: int) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(SMALL, path)
    else:
        save_file({"weight": torch.ones(200)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match="cannot be read as weights"):
        read_checkpoint(path, pickles=True)


def test_a_file_that_is_not_there_is_a_missing_dependency(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match=r"no file gone\.pth"):
        read_checkpoint(tmp_path / "gone.pth")


def test_a_list_of_tensors_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "a.pth")
    with pytest.raises(BadInput, match="holds a list"):
        read_checkpoint(tmp_path / "a.pth", pickles=True)


@pytest.mark.parametrize(
    "held",
    [
        SMALL,
        {"state_dict": SMALL},
        {f"module.{key}": value for key, value in SMALL.items()},
        {"state_dict": {f"module.{key}": value for key, value in SMALL.items()}, "optimizer": {"lr": 1}},
        {f"net.{key}": value for key, value in SMALL.items()} | {"other.weight": torch.ones(1)},
    ],
    ids=["names alone", "nested", "of DataParallel", "nested, of DataParallel", "before the keys"],
)
def test_a_part_is_found_however_it_is_held(held: dict) -> None:
    assert part(held, "net", "state_dict").keys() == SMALL.keys()


def test_a_network_runs_with_the_weights_it_was_given() -> None:
    network = build(small, SMALL, "it")
    assert network(torch.ones(1, 3)).tolist() == [[3, 3]]
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({"weight": SMALL["weight"]}, "lacks bias"),
        (SMALL | {f"k{n}": torch.ones(1) for n in range(5)}, "has besides k0, k1, k2 and 2 more"),
        (SMALL | {"bias": torch.ones(3)}, r"has in another shape bias \[3\], not \[2\]"),
        (SMALL | {"bias": torch.ones(2, dtype=torch.int64)}, "has in another type bias torch.int64"),
        ({}, "lacks bias, weight"),
    ],
    ids=["missing", "extra", "misshapen", "integers", "empty"],
)
def test_what_does_not_fit_is_named(weights: dict, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        build(small, weights, "it")


def test_what_only_training_needed_is_left_out() -> None:
    network = build(small, SMALL | {"critic.weight": torch.ones(1)}, "it", unused=("critic.",))
    assert network.state_dict().keys() == SMALL.keys()

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from optimize.onnx_export import export
from serving.errors import EngineFailed

Function = Callable[[torch.Tensor], torch.Tensor]


class Layer(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.function(values)


def flow(function: Function) -> nn.Module:
    """A network whose layer ``flow.layers.1`` holds the function."""
    network = nn.Sequential()
    network.add_module("flow", nn.Sequential())
    network.flow.add_module("layers", nn.Sequential(nn.Linear(4, 4), Layer(function)))
    return network.eval()


def message(function: Function, folder: Path) -> str:
    with pytest.raises(EngineFailed) as raised:
        export(flow(function), (torch.randn(3, 4),), ["x"], ["y"], [{0: "batch"}], folder / "model.onnx")
    assert raised.value.field == "export"
    assert list(folder.iterdir()) == []
    return str(raised.value)


def in_loop(values: torch.Tensor) -> torch.Tensor:
    def body(step: torch.Tensor, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return step + 1, sums.cummax(0)[0] + 1

    start = torch.zeros((), dtype=torch.int64)
    return torch.while_loop(lambda step, sums: step < 3, body, (start, values))[1]


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        pytest.param(lambda x: x.cummax(0)[0], "aten.cummax.default", id="known before translating"),
        pytest.param(lambda x: torch.linalg.svd(x)[1], "aten._linalg_svd.default", id="found by translating"),
    ],
)
def test_an_operator_without_translation_is_named_with_its_layer(
    tmp_path: Path, function: Function, operator: str
) -> None:
    said = message(function, tmp_path)
    assert said.startswith(f"export: {operator} in flow.layers.1 (Layer) has no translation to ONNX: ")
    assert "\n" not in said


def test_what_is_known_before_translating_costs_no_translation(tmp_path: Path) -> None:
    steps: list[str] = []
    network = flow(lambda x: x.cummax(0)[0])
    with pytest.raises(EngineFailed):
        export(network, (torch.randn(3, 4),), ["x"], ["y"], [{}], tmp_path / "model.onnx", notify=steps.append)
    assert steps == ["capture"]


def test_an_operator_in_the_body_of_a_loop_is_found(tmp_path: Path) -> None:
    assert "aten.cummax.default in flow.layers.1 (Layer)" in message(in_loop, tmp_path)


def test_a_layer_that_torch_cannot_capture_is_named(tmp_path: Path) -> None:
    said = message(lambda x: x if x.sum() > 0 else -x, tmp_path)
    assert said.startswith("export: flow.layers.1 (Layer) cannot be exported: Could not guard on data-dependent")
    assert "\n" not in said


def test_a_network_that_fails_at_its_example_is_named_by_layer(tmp_path: Path) -> None:
    said = message(lambda x: x @ torch.ones(3, 3), tmp_path)
    assert said.startswith("export: flow.layers.1 (Layer) cannot be exported: a and b must have same reduction dim")


def test_onnx_that_is_invalid_is_told_with_the_layer_that_it_came_from(tmp_path: Path) -> None:
    said = message(lambda x: x.squeeze(1) * 2, tmp_path)
    assert said.startswith("export: the exporter made invalid ONNX of aten.squeeze.dim in flow.layers.1 (Layer): ")


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: (x * 2).mul_(3).relu_(), id="in place"),
        pytest.param(lambda x: x.index_fill(1, torch.tensor([1]), 0.0), id="composed of others"),
        pytest.param(torch.nn.functional.gelu, id="translated"),
    ],
)
def test_what_can_be_exported_is_not_refused(tmp_path: Path, function: Function) -> None:
    export(flow(function), (torch.randn(3, 4),), ["x"], ["y"], [{0: "batch"}], tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()

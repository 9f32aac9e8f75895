import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from optimize.external import check_file
from optimize.onnx_export import export
from serving.errors import BadInput, EngineFailed, ReelmeshError


class Network(nn.Module):
    """Two dynamic inputs, a fixed one, tied weights, and outputs of every kind of axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.convolution = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, tokens: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        frames, scale = rest
        hidden = self.second(self.first(tokens)) * scale
        return hidden, self.convolution(frames)[:, :, ::2], torch.cat([hidden, tokens]), hidden.nonzero(), frames


OUTPUTS = ["hidden", "halved", "both", "found", "frames_again"]


def inputs(batch: int = 4, clips: int = 5, time: int = 7) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    shapes = {"tokens": (batch, 3), "frames": (clips, 2, time), "scale": ()}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def dynamic() -> list[Mapping[int, str]]:
    return [{0: "batch"}, {0: "clips", 2: "time"}, {}]


def export_network(file: Path, **options: object) -> object:
    example = inputs()
    return export(Network().eval(), list(example.values()), list(example), OUTPUTS, dynamic(), file, **options)


def axes_of(file: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(file, load_external_data=False).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("network") / "model.onnx"
    export_network(file)
    return file


@pytest.mark.parametrize("sizes", [(4, 5, 7), (2, 3, 10), (1, 1, 1)], ids=str)
def test_the_file_equals_the_module_at_every_size(network: Path, sizes: tuple[int, int, int]) -> None:
    values = inputs(*sizes)
    session = ort.InferenceSession(network, providers=["CPUExecutionProvider"])
    found = session.run(OUTPUTS, {name: value.numpy() for name, value in values.items()})
    with torch.no_grad():
        expected = Network().eval()(*values.values())
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-6)


def test_axes_have_the_names_that_were_declared_and_outputs_formulas_of_them(network: Path) -> None:
    assert axes_of(network) == {
        "tokens": ["batch", 3],
        "frames": ["clips", 2, "time"],
        "scale": [],
        "hidden": ["batch", 3],
        "halved": ["clips", 2, "((time + 1)//2)"],
        "both": ["2*batch", 3],
        "found": ["found_0", 2],
        "frames_again": ["clips", 2, "time"],
    }


def test_weights_keep_their_names_and_tied_ones_are_written_once(network: Path) -> None:
    names = {tensor.name for tensor in onnx.load(network).graph.initializer}
    assert {"first.bias", "second.bias", "convolution.weight", "convolution.bias"} <= names
    assert len(names & {"first.weight", "second.weight"}) == 1


def test_outputs_can_be_given_names_of_axes(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    report = export_network(file, output_axes=[{}, {2: "half"}, {}, {0: "hits"}, {}])
    assert axes_of(file)["halved"] == ["clips", 2, "half"]
    assert report.outputs == (("batch", 3), ("clips", 2, "half"), ("2*batch", 3), ("hits", 2), ("clips", 2, "time"))


def test_the_report_names_tools_and_size(tmp_path: Path) -> None:
    steps: list[str] = []
    file = tmp_path / "model.onnx"
    report = export_network(file, opset=18, notify=steps.append)
    assert steps == ["capture", "translate", "write"]
    assert {"torch", "onnx", "onnxscript", "onnx-ir", "exporter"} < report.tools.keys()
    assert report.tools["opset"] == "18"
    assert onnx.load(file).opset_import[0].version == 18
    assert (report.bytes, report.external, report.fixes) == (file.stat().st_size, False, ())


CHILD = """
import sys
from pathlib import Path
from tests.optimize.test_onnx_export import export_network
export_network(Path(sys.argv[1]), external_above=0)
"""


def test_another_process_with_other_hashes_makes_the_same_bytes(network: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    root = Path(__file__).parents[2]
    environment = {"PYTHONHASHSEED": "77", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", CHILD, str(file)], check=True, env=environment, cwd=tmp_path)
    assert digest(file) == digest(network)
    assert b"test_onnx_export" not in file.read_bytes()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Fixes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 6)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Buffer(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


class ReturnsMore(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return x * 2, None


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        pytest.param(Fixes().eval(), {}, "axis batch of x was specialised to 2: declare it static", id="fixed axis"),
        pytest.param(Counts().eval(), {}, "the module changes its buffer calls: give what it keeps", id="state"),
        pytest.param(ReturnsMore().eval(), {}, "returns ('mul', None), 1 are named", id="no tensor"),
        pytest.param(nn.Sequential(nn.Dropout()), {}, "0 is in training mode: call eval()", id="training"),
        pytest.param(nn.ReLU().eval(), {"input_names": ["x", "z"]}, "1 inputs, 2 names, axes of 1", id="counts"),
        pytest.param(nn.ReLU().eval(), {"output_axes": [{}, {}]}, "1 outputs, axes of 2", id="output axes"),
        pytest.param(nn.ReLU().eval(), {"output_names": ["x"]}, "named twice: x", id="names"),
        pytest.param(nn.ReLU().eval(), {"dynamic": [{2: "time"}]}, "x: 2 axes, none is 2", id="axis"),
    ],
)
def test_what_cannot_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, module: nn.Module, options: dict[str, object], message: str
) -> None:
    file = tmp_path / "model.onnx"
    declared = {"input_names": ["x"], "output_names": ["y"], "dynamic": [{0: "batch"}], "target": file}
    with pytest.raises(ReelmeshError) as raised:
        export(module, (torch.randn(2, 6),), **{**declared, **options})
    assert isinstance(raised.value, BadInput | EngineFailed)
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from optimize.onnx_export import export

def network(layers):
    return nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(layers))).eval()

def run(module, file):
    return export(module, (torch.randn(2, 2048),), ["x"], ["y"], [{0: "batch"}], file)

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

folder = Path(sys.argv[1])
run(network(1), folder / "small.onnx")
module = network(10)
if sys.argv[2] == "mapped":
    save_file(module.state_dict(), folder / "weights.safetensors")
    module = module.to("meta")
    module.load_state_dict(load_file(folder / "weights.safetensors"), assign=True)
    sum(float(weight.detach().sum()) for weight in module.parameters())
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
report = run(module, folder / "model.onnx")
weights = sum(weight.nbytes for weight in module.parameters())
print(report.external, weights, report.bytes, (status("VmHWM") - before) / weights)
"""


@pytest.mark.parametrize("weights", ["in_memory", "mapped"])
def test_an_export_of_many_weights_takes_little_memory_beside_them(tmp_path: Path, weights: str) -> None:
    """168 MB in a child process whose peak is counted from when the module is there."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEMORY, str(tmp_path), weights]
    said = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout.split()
    external, total, written, more = said[0], int(said[1]), int(said[2]), float(said[3])
    assert external == "True"
    assert total <= written < total + 100_000
    assert more < 0.35
    assert check_file(tmp_path / "model.onnx") == (tmp_path / "model.onnx.data",)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((3, 2048), np.float32)})[0].shape == (3, 2048)

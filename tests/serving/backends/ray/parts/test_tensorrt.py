"""The runner on the host's memory, with the module that stands for TensorRT (tests/optimize/tensorrt/fake.py)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from optimize.tensorrt.build import build_plan
from optimize.tensorrt.options import Options
from serving.backends.ray.parts.tensorrt import TensorRTRunner, open_plan
from serving.errors import BadInput, EngineFailed, MissingDependency
from tests.optimize.tensorrt.fake import VERSIONS, fake_tensorrt
from tests.optimize.tensorrt.files import Standing, declared, node, onnx_file

__all__ = ["node", "onnx_file"]
Files = Callable[..., Path]
WEIGHTS = torch.from_numpy(np.linspace(-1, 1, 32).reshape(8, 4).astype("float32"))


def opened(onnx: Path, node: Standing, **options: object) -> TensorRTRunner:
    plans = onnx.parents[2] / "m_unet_trt" / "1"
    chosen = Options(**{"precision": "fp32", **options})  # type: ignore[arg-type]
    plan = build_plan(onnx, declared(), chosen, plans, builder=node)
    return TensorRTRunner(plan.file, device="cpu", onnx=onnx, module=node.module)


def torch_says(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x @ WEIGHTS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", [(1, 4, 8), (4, 64, 8), (2, 5, 8)], ids=str)
def test_a_plan_answers_what_the_module_does_at_every_size_inside(
    onnx_file: Files, version: str, shape: tuple[int, ...]
) -> None:
    runner = opened(onnx_file(), Standing(version))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(runner.run({"X": x})["Y"], torch_says(x), atol=1e-6)


def test_calls_follow_one_another_and_keep_their_own_results(onnx_file: Files, node: Standing) -> None:
    runner = opened(onnx_file(), node)
    first, second = torch.ones(1, 4, 8), -torch.ones(2, 16, 8)
    one = runner.run({"X": first})["Y"]
    two = runner.run({"X": second})["Y"]
    assert torch.allclose(one, torch_says(first))
    assert torch.allclose(two, torch_says(second))


def test_the_profile_follows_the_sizes(onnx_file: Files, node: Standing) -> None:
    runner = opened(onnx_file(), node, profiles=2)
    for shape in ((4, 64, 8), (1, 4, 8), (2, 16, 8)):
        x = torch.randn(shape)
        assert torch.allclose(runner.run({"X": x})["Y"], torch_says(x), atol=1e-6)


def test_tensors_that_do_not_lie_in_order_are_put_in_order(onnx_file: Files, node: Standing) -> None:
    runner = opened(onnx_file(), node)
    x = torch.randn(2, 8, 16).transpose(1, 2)
    assert torch.allclose(runner.run({"X": x})["Y"], torch_says(x), atol=1e-6)


def test_a_stripped_plan_takes_its_weights_from_the_onnx_file(onnx_file: Files, node: Standing) -> None:
    x = torch.randn(1, 4, 8)
    file = onnx_file()
    runner = opened(file, node, weight_stripped=True)
    assert torch.allclose(runner.run({"X": x})["Y"], torch_says(x), atol=1e-6)
    plan = file.parents[2] / "m_unet_trt" / "1" / "model-sm90-trt10.13-nvidia-h200.plan"
    with pytest.raises(BadInput, match="was built without its weights: name the ONNX file"):
        TensorRTRunner(plan, device="cpu", module=node.module)


def test_a_version_compatible_plan_may_run_the_code_that_it_carries(onnx_file: Files, node: Standing) -> None:
    runner = opened(onnx_file(), node, version_compatible=True)
    assert runner.run({"X": torch.zeros(1, 4, 8)})["Y"].shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        pytest.param(
            {"X": torch.zeros(1, 65, 8)}, r"X: axis 'length' \(axis 1\) has size 65, outside .* 4 to 64", id="size"
        ),
        pytest.param(
            {"X": torch.zeros(1, 4, 8).half()}, r"X: is torch.float16, and the plan takes torch.float32", id="dtype"
        ),
        pytest.param(
            {"X": torch.zeros(1, 4, 8, device="meta")}, "X: lies on meta, and the plan runs on cpu", id="device"
        ),
        pytest.param({}, "inputs differ from the plan's: X", id="missing"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_name(
    onnx_file: Files, node: Standing, inputs: dict[str, torch.Tensor], said: str
) -> None:
    runner = opened(onnx_file(), node)
    with pytest.raises(BadInput, match=said):
        runner.run(inputs)
    assert runner.run({"X": torch.zeros(1, 4, 8)})["Y"].shape == (1, 4, 4)


def test_a_plan_of_another_tensorrt_is_refused(onnx_file: Files, node: Standing) -> None:
    file = onnx_file()
    opened(file, node)
    plan = file.parents[2] / "m_unet_trt" / "1" / "model-sm90-trt10.13-nvidia-h200.plan"
    with pytest.raises(EngineFailed, match=r"was built by TensorRT 10.13.0.35, and this is 11.4.0.106"):
        TensorRTRunner(plan, device="cpu", module=fake_tensorrt("11.4.0.106"))


@pytest.mark.parametrize("data", [b"half of it", b""], ids=["half", "empty"])
def test_a_broken_plan_is_refused(onnx_file: Files, node: Standing, data: bytes) -> None:
    file = onnx_file()
    opened(file, node)
    plan = file.parents[2] / "m_unet_trt" / "1" / "model-sm90-trt10.13-nvidia-h200.plan"
    plan.write_bytes(data)
    with pytest.raises(EngineFailed, match="TensorRT does not load the plan: build the plan again"):
        TensorRTRunner(plan, device="cpu", module=node.module)


def test_on_a_cpu_there_is_no_tensorrt(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="device: TensorRT runs on no 'cpu'"):
        open_plan(tmp_path / "model.onnx", tmp_path, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a node with a GPU")
def test_without_a_gpu_what_is_missing_is_named(onnx_file: Files, node: Standing) -> None:
    file = onnx_file()
    opened(file, node)
    plans = file.parents[2] / "m_unet_trt" / "1"
    with pytest.raises(MissingDependency, match=r"there is no NVIDIA driver|shows 0 GPUs|tensorrt does not import"):
        open_plan(file, plans, "cuda:0")
    with pytest.raises(MissingDependency, match=r"torch .* sees no CUDA device"):
        TensorRTRunner(next(plans.glob("*.plan")), device="cuda:0", module=node.module)

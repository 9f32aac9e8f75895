from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from serving.backends.ray.parts.providers import CPU, CUDA, TENSORRT, Shapes, check_available, providers, shapes_of
from serving.errors import BadInput, MissingDependency
from serving.repository.part_file import PartTensor, Variant
from serving.repository.plan_file import PlanTensor, Range

ALL = [TENSORRT, CUDA, CPU]
CACHE = Path("/cache/m_unet-1")

TENSORRT_OPTIONS = {
    "device_id", "user_compute_stream", "trt_engine_cache_enable", "trt_engine_cache_path", "trt_timing_cache_enable",
    "trt_timing_cache_path", "trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_max_workspace_size",
    "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes",
}  # fmt: skip
"""Names found in libonnxruntime_providers_tensorrt.so of onnxruntime-gpu 1.31.1, of those that may be used."""
CUDA_OPTIONS = {"device_id", "user_compute_stream", "arena_extend_strategy", "use_tf32", "gpu_mem_limit"}
"""The same of libonnxruntime_providers_cuda.so."""

SHAPES = Shapes(
    inputs=(
        PlanTensor(name="sample", dtype="float16", axes=("batch", 4, "height")),
        PlanTensor(name="timestep", dtype="int64", axes=(1,)),
    ),
    profiles=(
        {
            "sample": Range(min=(1, 4, 8), opt=(2, 4, 64), max=(2, 4, 96)),
            "timestep": Range(min=(1,), opt=(1,), max=(1,)),
        },
        {"sample": Range(min=(4, 4, 8), opt=(4, 4, 8), max=(8, 4, 8)), "timestep": Range(min=(1,), opt=(1,), max=(1,))},
    ),
)


def test_a_cpu_needs_no_options() -> None:
    assert providers("cpu", "onnxruntime", CACHE) == [(CPU, {})]


def test_what_is_given_for_a_cpu_opens_a_session(tmp_path: Path) -> None:
    check_available([name for name, _ in providers("cpu", "onnxruntime", tmp_path)])
    assert CPU in onnxruntime.get_available_providers()


def test_cuda_keeps_to_its_share_and_to_full_products_in_fp32() -> None:
    found = providers("cuda:1", "onnxruntime", CACHE, 4 << 30, available=ALL)
    assert found == [
        (
            CUDA,
            {
                "device_id": "1",
                "arena_extend_strategy": "kSameAsRequested",
                "use_tf32": "0",
                "gpu_mem_limit": str(4 << 30),
            },
        ),
        (CPU, {}),
    ]
    assert providers("cuda", "onnxruntime", CACHE, precision="fp16", available=ALL)[0][1]["use_tf32"] == "1"


def test_tensorrt_comes_first_with_its_caches_precision_and_profiles() -> None:
    found = providers(
        "cuda:0", "tensorrt-ep", CACHE, 1 << 30, precision="fp16", shapes=SHAPES, stream=77, available=ALL
    )
    assert [name for name, _ in found] == [TENSORRT, CUDA, CPU]
    assert found[0][1] == {
        "device_id": "0",
        "user_compute_stream": "77",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(CACHE),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(CACHE),
        "trt_fp16_enable": "True",
        "trt_max_workspace_size": str(1 << 30),
        "trt_profile_min_shapes": "sample:1x4x8,sample:4x4x8",
        "trt_profile_opt_shapes": "sample:2x4x64,sample:4x4x8",
        "trt_profile_max_shapes": "sample:2x4x96,sample:8x4x8",
    }
    assert found[1][1]["user_compute_stream"] == "77"


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        pytest.param("fp32", set(), id="fp32"),
        pytest.param("bf16", {"trt_bf16_enable"}, id="bf16"),
        pytest.param("int8", {"trt_int8_enable", "trt_fp16_enable"}, id="int8"),
    ],
)
def test_a_precision_is_its_flags(precision: Any, flags: set[str]) -> None:
    options = providers("cuda:0", "tensorrt-ep", CACHE, precision=precision, available=ALL)[0][1]
    assert {name for name in options if name.endswith(("16_enable", "8_enable"))} == flags


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_only_options_that_exist_are_given_as_text(precision: Any) -> None:
    found = providers("cuda:0", "tensorrt-ep", CACHE, 1, precision=precision, shapes=SHAPES, stream=1, available=ALL)
    known = {TENSORRT: TENSORRT_OPTIONS, CUDA: CUDA_OPTIONS, CPU: set()}
    for name, options in found:
        assert set(options) <= known[name]
        assert all(isinstance(value, str) for value in options.values())


def test_a_file_without_dynamic_axes_has_no_profiles() -> None:
    fixed = Shapes((SHAPES.inputs[1],), SHAPES.profiles)
    options = providers("cuda:0", "tensorrt-ep", CACHE, shapes=fixed, available=ALL)[0][1]
    assert not [name for name in options if "profile" in name]


@pytest.mark.parametrize(
    ("device", "runtime", "given", "said"),
    [
        pytest.param("mps", "onnxruntime", {}, "device: there is no device 'mps'", id="device"),
        pytest.param("cuda:x", "onnxruntime", {}, "device: there is no device 'cuda:x'", id="number"),
        pytest.param("cpu", "tensorrt-ep", {}, "runtime: TensorRT runs on no CPU", id="tensorrt on a cpu"),
        pytest.param("cuda:0", "onnxruntime", {"gpu_mem_limit": 0}, "gpu_mem_limit: 0 bytes", id="limit"),
        pytest.param("cuda:0", "tensorrt-ep", {"precision": "fp8"}, "precision: .* has no fp8: build a plan", id="fp8"),
        pytest.param(
            "cuda:0",
            "tensorrt-ep",
            {"shapes": Shapes((PlanTensor(name="a:0", dtype="float32", axes=("n",)),), ())},
            "a:0: .* takes no ':' and ','",
            id="name",
        ),
    ],
)
def test_what_goes_nowhere_is_refused(device: str, runtime: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        providers(device, runtime, CACHE, available=ALL, **given)


@pytest.mark.parametrize(
    ("runtime", "available", "said"),
    [
        pytest.param(
            "onnxruntime", [CPU], "has no CUDAExecutionProvider, only CPU.*pip install onnxruntime-gpu", id="cpu build"
        ),
        pytest.param(
            "tensorrt-ep", [CUDA, CPU], "has no TensorrtExecutionProvider.*and TensorRT 10 beside it", id="no trt"
        ),
    ],
)
def test_a_build_without_the_provider_says_what_to_install(runtime: Any, available: list[str], said: str) -> None:
    with pytest.raises(MissingDependency, match=said):
        providers("cuda:0", runtime, CACHE, available=available)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed")
def test_the_build_that_is_installed_is_asked() -> None:
    with pytest.raises(MissingDependency, match="this onnxruntime has no CUDAExecutionProvider"):
        providers("cuda:0", "onnxruntime", CACHE)


def test_the_profile_spans_the_sizes_that_a_part_was_exported_with() -> None:
    variant = Variant(
        file="model.onnx",
        call={},
        answer={},
        inputs=[PartTensor(name="sample", dtype="float16", axes=["batch", 4, "height"])],
        outputs=[PartTensor(name="out", dtype="float16", axes=["batch"])],
        sizes=[{"batch": 2, "height": 8}, {"batch": 1, "height": 32}],
    )
    shapes = shapes_of(variant)
    assert shapes.profiles == [{"sample": Range(min=(1, 4, 8), opt=(2, 4, 32), max=(2, 4, 32))}]
    options = dict(providers("cuda:0", "tensorrt-ep", CACHE, shapes=shapes, available=ALL))[TENSORRT]
    assert options["trt_profile_min_shapes"] == "sample:1x4x8"

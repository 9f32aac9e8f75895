import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from optimize.tensorrt.build import STEPS, build_plan
from optimize.tensorrt.options import Options
from serving.backends.ray.parts.gpu import Gpu
from serving.errors import BadInput, EngineFailed, MissingDependency
from serving.repository.plan_file import PlanFile, read_plan

from .fake import VERSIONS
from .files import H200, Standing, declared, graph

Files = Callable[..., Path]


def plans(onnx_file: Path) -> Path:
    return onnx_file.parents[2] / "m_unet_trt" / "1"


def test_a_plan_is_built_and_describes_itself(onnx_file: Files, node: Standing) -> None:
    file, told = onnx_file(), []
    plan = build_plan(file, declared(), Options(precision="fp32", workspace_mib=512), plans(file), told.append, node)
    assert plan.status == "built"
    assert plan.file == plans(file) / "model-sm90-trt10.13-nvidia-h200.plan"
    assert plan.made == read_plan(plan.file)
    assert plan.made.plan_sha256 == hashlib.sha256(plan.file.read_bytes()).hexdigest()
    assert plan.made.onnx_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (plan.made.compute_capability, plan.made.tensorrt) == ("9.0", "10.13.0.35")
    assert [step for step in told if step in STEPS] == list(STEPS)
    assert "build: Building Engine, 50 %" in told
    assert not [step for step in told if "Tactics" in step], "inner phases are no progress"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_builder_is_asked_for_what_the_options_say(onnx_file: Files, version: str) -> None:
    node = Standing(version)
    options = Options(
        precision="fp16",
        profiles=2,
        workspace_mib=512,
        level=4,
        version_compatible=True,
        weight_stripped=True,
        hardware="ampere_plus",
    )
    file = onnx_file("float16")
    build_plan(file, declared("float16"), options, plans(file), builder=node)
    [asked] = node.calls
    assert asked["strong"]
    assert asked["flags"] == ["REFIT_IDENTICAL", "STRIP_PLAN", "VERSION_COMPATIBLE"]
    assert (asked["level"], asked["hardware"], asked["limits"]) == (4, "AMPERE_PLUS", {"WORKSPACE": 512 << 20})
    assert asked["profiles"] == [
        {"X": [[1, 4, 8], [1, 4, 8], [1, 4, 8]]},
        {"X": [[2, 16, 8], [2, 16, 8], [4, 64, 8]]},
    ]


def test_tensorrt_chooses_types_where_the_file_has_others(onnx_file: Files, node: Standing) -> None:
    file = onnx_file()
    build_plan(file, declared(), Options(precision="fp16"), plans(file), builder=node)
    [asked] = node.calls
    assert (asked["strong"], asked["flags"]) == (False, ["FP16"])


def test_the_same_plan_is_not_built_twice(onnx_file: Files, node: Standing) -> None:
    file = onnx_file()
    first, second = (build_plan(file, declared(), Options(), plans(file), builder=node) for _ in range(2))
    assert (first.status, second.status) == ("built", "cached")
    assert first.made == second.made
    assert len(node.calls) == 1


def changed_onnx(file: Path) -> None:
    model = onnx.load(file)
    model.producer_name = "somebody else"
    onnx.save(model, file)


def broken_plan(file: Path) -> None:
    (plans(file) / "model-sm90-trt10.13-nvidia-h200.plan").write_bytes(b"half of it")


def broken_description(file: Path) -> None:
    (plans(file) / "model-sm90-trt10.13-nvidia-h200.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        pytest.param(changed_onnx, Options(), "its onnx_sha256 is", id="another file"),
        pytest.param(None, Options(precision="fp32"), "its precision is fp16, and fp32 is wanted", id="precision"),
        pytest.param(None, Options(profiles=2), "its profiles are others", id="profiles"),
        pytest.param(None, Options(level=5), "its level is 3, and 5 is wanted", id="level"),
        pytest.param(broken_plan, Options(), "its bytes are not those that were built", id="bytes"),
        pytest.param(broken_description, Options(), "Field required", id="description"),
    ],
)
def test_a_stale_plan_is_built_again_with_the_reason(
    onnx_file: Files, node: Standing, change: Callable[[Path], None] | None, options: Options, said: str
) -> None:
    file, told = onnx_file(), []
    build_plan(file, declared(), Options(), plans(file), builder=node)
    if change is not None:
        change(file)
    again = build_plan(file, declared(), options, plans(file), told.append, node)
    assert again.status == "built"
    assert [line for line in told if "built again" in line and said in line], told


def test_every_gpu_and_version_has_a_plan_of_its_own(onnx_file: Files) -> None:
    file = onnx_file("float16")
    nodes = [Standing(version, gpu) for version in VERSIONS for gpu in (H200, Gpu(0, "NVIDIA L4", "8.9"))]
    for node in nodes:
        build_plan(file, declared("float16"), Options(), plans(file), builder=node)
    assert sorted(path.name for path in plans(file).glob("*.plan")) == [
        "model-sm89-trt10.13-nvidia-l4.plan",
        "model-sm89-trt11.4-nvidia-l4.plan",
        "model-sm90-trt10.13-nvidia-h200.plan",
        "model-sm90-trt11.4-nvidia-h200.plan",
    ]


def test_a_plan_for_all_of_a_capability_is_one_and_a_sister_finds_it(onnx_file: Files) -> None:
    file, options = onnx_file(), Options(hardware="same_capability")
    first = build_plan(file, declared(), options, plans(file), builder=Standing(gpu=Gpu(0, "NVIDIA L4", "8.9")))
    again = build_plan(file, declared(), options, plans(file), builder=Standing(gpu=Gpu(0, "NVIDIA L40S", "8.9")))
    assert (first.file.name, again.status) == ("model-sm89-trt10.13.plan", "cached")


def test_measurements_of_kernels_are_kept_for_other_parts(onnx_file: Files, node: Standing, tmp_path: Path) -> None:
    options = Options(timing_cache=tmp_path / "timing")
    for part in ("m_unet", "m_vae"):
        file = onnx_file(part=part)
        build_plan(file, declared(), options, tmp_path / f"{part}_trt" / "1", builder=node)
    [cache] = (tmp_path / "timing").glob("*.cache")
    assert cache.name == "timing-sm90-trt10.13.0.35.cache"
    assert json.loads(cache.read_bytes())["kernels"] == ["m_unet", "m_vae"]


def test_caches_of_two_builds_are_joined_by_tensorrt(node: Standing) -> None:
    builder = node()
    there, found = (json.dumps({"version": "10.13.0.35", "kernels": [name]}).encode() for name in ("there", "found"))
    assert json.loads(builder.merge(there, found))["kernels"] == ["found", "there"]
    other = json.dumps({"version": "10.9", "kernels": ["old"]}).encode()
    assert builder.merge(other, found) == found


def test_a_cache_that_tensorrt_does_not_take_is_begun_anew(onnx_file: Files, node: Standing, tmp_path: Path) -> None:
    file = onnx_file()
    cache = tmp_path / "timing-sm90-trt10.13.0.35.cache"
    cache.write_bytes(b"of something else")
    plan = build_plan(file, declared(), Options(timing_cache=tmp_path), plans(file), builder=node)
    assert plan.status == "built"
    assert json.loads(cache.read_bytes())["version"] == "10.13.0.35"


def unknown_operator() -> onnx.ModelProto:
    return graph("float32", [helper.make_node("NonZero", ["X"], ["Y"], "encoder.mask.nonzero")])


def test_an_operator_that_does_not_parse_is_named_with_its_node(onnx_file: Files, node: Standing) -> None:
    file = onnx_file(unknown_operator())
    with pytest.raises(
        EngineFailed, match=r"cannot parse it: node 'encoder.mask.nonzero' \(NonZero\): Assertion failed"
    ):
        build_plan(file, declared(), Options(precision="fp32"), plans(file), builder=node)
    assert not plans(file).exists()


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        pytest.param("build", "built no plan: Could not find any implementation.*lower the profiles'", id="build"),
        pytest.param("start", "does not start: CUDA initialization failure", id="start"),
    ],
)
def test_tensorrts_own_words_say_why_it_failed(onnx_file: Files, node: Standing, fails: str, said: str) -> None:
    node.module.fails = fails
    file = onnx_file()
    with pytest.raises(EngineFailed, match=said):
        build_plan(file, declared(), Options(), plans(file), builder=node)
    assert not plans(file).exists()


def test_an_older_plan_stays_when_a_build_fails(onnx_file: Files, node: Standing) -> None:
    file = onnx_file()
    before = build_plan(file, declared(), Options(), plans(file), builder=node)
    node.module.fails = "build"
    with pytest.raises(EngineFailed):
        build_plan(file, declared(), Options(level=5), plans(file), builder=node)
    assert read_plan(before.file) == before.made


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        pytest.param(Options(precision="fp8"), {}, id="precision"),
        pytest.param(Options(), {"sizes": []}, id="sizes"),
    ],
)
def test_nothing_is_built_of_what_does_not_go_together(
    onnx_file: Files, node: Standing, options: Options, changes: dict[str, Any]
) -> None:
    file = onnx_file()
    with pytest.raises(BadInput):
        build_plan(file, declared(**changes), options, plans(file), builder=node)
    assert node.calls == []


def test_without_a_gpu_everything_up_to_the_builder_is_checked_and_then_each_lack_is_named(onnx_file: Files) -> None:
    """The real node: this runs where there is no driver, no GPU and no TensorRT; elsewhere a plan is built."""
    file = onnx_file()
    with pytest.raises(BadInput, match="no case was captured"):
        build_plan(file, declared(sizes=[]), Options(), plans(file))
    try:
        plan = build_plan(file, declared(), Options(precision="fp32"), plans(file))
    except MissingDependency as error:
        assert error.field is not None
        assert set(error.field.split(", ")) <= {"driver", "gpu", "tensorrt"}
        assert "reelmesh k8s job-tensorrt" in str(error)
    else:
        assert isinstance(plan.made, PlanFile)

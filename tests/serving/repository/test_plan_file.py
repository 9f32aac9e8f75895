import hashlib
from pathlib import Path

import pytest

from serving.errors import BadInput, NotFound
from serving.repository.plan_file import (
    PlanFile,
    PlanTensor,
    Range,
    check_onnx,
    check_whole,
    find_plan,
    onnx_digest,
    plan_name,
    profile_of,
    read_plan,
    unfit,
)

SMALL = {"X": Range(min=(1, 8), opt=(1, 16), max=(1, 32)), "t": Range(min=(1,), opt=(1,), max=(1,))}
LARGE = {"X": Range(min=(1, 32), opt=(2, 64), max=(4, 128)), "t": Range(min=(1,), opt=(1,), max=(1,))}
MADE = PlanFile(
    plan="model-sm90-trt10.13.plan",
    plan_sha256="0" * 64,
    onnx_sha256="1" * 64,
    precision="fp16",
    strongly_typed=True,
    flags=(),
    compute_capability="9.0",
    gpu="NVIDIA H200",
    tensorrt="10.13.2.6",
    hardware="this",
    version_compatible=False,
    weight_stripped=False,
    tf32=False,
    level=3,
    workspace_mib=None,
    profiles=(SMALL, LARGE),
    inputs=(
        PlanTensor(name="X", dtype="float16", axes=("batch", "length")),
        PlanTensor(name="t", dtype="int64", axes=(1,)),
    ),
    outputs=(PlanTensor(name="Y", dtype="float16", axes=("batch", 4)),),
    seconds=61.5,
)


def written(folder: Path, **changes: object) -> Path:
    made = MADE.model_copy(update=changes)
    folder.mkdir(exist_ok=True)
    (folder / made.plan).write_bytes(b"plan")
    (folder / made.plan).with_suffix(".json").write_text(made.model_dump_json())
    return folder / made.plan


def test_a_plans_name_says_capability_and_version() -> None:
    assert plan_name("model", "9.0", "10.13.2.6") == "model-sm90-trt10.13.plan"
    assert plan_name("step", "12.1", "11.4.0.106") == "step-sm121-trt11.4.plan"
    assert plan_name("m", "8.9", "10.13.2.6", "NVIDIA L40S (48 GB)") == "m-sm89-trt10.13-nvidia-l40s-48-gb.plan"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_plan(written(tmp_path)) == MADE


@pytest.mark.parametrize(
    ("shapes", "index"),
    [
        pytest.param({"X": (1, 8), "t": (1,)}, 0, id="small"),
        pytest.param({"X": (1, 32), "t": (1,)}, 0, id="both take it"),
        pytest.param({"X": (4, 128), "t": (1,)}, 1, id="large"),
    ],
)
def test_the_first_profile_that_takes_the_shapes_is_used(shapes: dict[str, tuple[int, ...]], index: int) -> None:
    assert profile_of(MADE, shapes) == index


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        pytest.param(
            {"X": (1, 7), "t": (1,)},
            r"X: axis 'length' \(axis 1\) has size 7, outside the profile's 8 to 32",
            id="axis",
        ),
        pytest.param({"X": (1, 8), "t": (2,)}, "t: axis 0 has size 2, outside the profile's 1 to 1", id="fixed axis"),
        pytest.param({"X": (1, 8, 3), "t": (1,)}, r"X: has 3 axes, and the plan takes 2", id="axes"),
        pytest.param({"X": (1, 8)}, "inputs: inputs differ from the plan's: t", id="missing"),
        pytest.param({"X": (1, 8), "t": (1,), "z": (1,)}, "inputs differ from the plan's: z", id="unknown"),
    ],
)
def test_shapes_outside_are_refused_with_input_axis_size_and_range(
    shapes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        profile_of(MADE, shapes)


@pytest.mark.parametrize(
    ("changes", "capability", "version", "why"),
    [
        pytest.param({}, "9.0", "10.13.2.6", None, id="its own"),
        pytest.param({"gpu": "NVIDIA H100"}, "9.0", "10.13.2.6", "for NVIDIA H100 alone, and this is", id="a sister"),
        pytest.param(
            {"gpu": "NVIDIA H100", "hardware": "same_capability"}, "9.0", "10.13.2.6", None, id="for all sisters"
        ),
        pytest.param({}, "8.9", "10.13.2.6", "compute capability 9.0, and this GPU has 8.9", id="another GPU"),
        pytest.param({"hardware": "ampere_plus"}, "8.0", "10.13.2.6", None, id="ampere and newer"),
        pytest.param({"hardware": "ampere_plus"}, "7.5", "10.13.2.6", "and this GPU has 7.5", id="older than ampere"),
        pytest.param({"hardware": "same_capability"}, "8.9", "10.13.2.6", "this GPU has 8.9", id="same capability"),
        pytest.param({}, "9.0", "10.13.3.9", "TensorRT 10.13.2.6, and this is 10.13.3.9", id="another patch"),
        pytest.param({"version_compatible": True}, "9.0", "10.14.1.0", None, id="a later minor"),
        pytest.param({"version_compatible": True}, "9.0", "10.9.0.34", "this is 10.9.0.34", id="an earlier minor"),
        pytest.param({"version_compatible": True}, "9.0", "11.4.0.106", "this is 11.4.0.106", id="another major"),
    ],
)
def test_who_may_run_a_plan(changes: dict[str, object], capability: str, version: str, why: str | None) -> None:
    found = unfit(MADE.model_copy(update=changes), capability, version, "NVIDIA H200")
    assert found is None if why is None else found is not None and why in found


def test_a_gpu_finds_its_own_plan_before_others_that_fit(tmp_path: Path) -> None:
    own = written(tmp_path, plan="model-sm90-trt10.13-nvidia-h200.plan")
    other = written(tmp_path, plan="model-sm80-trt10.13.plan", compute_capability="8.0", hardware="ampere_plus")
    assert find_plan(tmp_path, "model", "9.0", "10.13.2.6", "NVIDIA H200") == own
    assert find_plan(tmp_path, "model", "8.9", "10.13.2.6", "NVIDIA L4") == other


def test_where_none_fits_each_says_why(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(NotFound, match=r"capability 8.9 .*: model-sm90-trt10.13.plan was built for .* 9.0") as caught:
        find_plan(tmp_path, "model", "8.9", "10.13.2.6", "NVIDIA L4")
    assert "reelmesh k8s job-tensorrt" in str(caught.value)
    with pytest.raises(NotFound, match="no TensorRT plan fits"):
        find_plan(tmp_path / "none", "model", "9.0", "10.13.2.6", "NVIDIA H200")


def test_a_plan_without_its_description_is_none(tmp_path: Path) -> None:
    plan = written(tmp_path)
    plan.with_suffix(".json").unlink()
    with pytest.raises(NotFound, match="there is no TensorRT plan"):
        read_plan(plan)


def test_a_description_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    plan = written(tmp_path)
    plan.with_suffix(".json").write_text(MADE.model_copy(update={"plan": "../other.plan"}).model_dump_json())
    with pytest.raises(BadInput, match="plan: String should match pattern"):
        read_plan(plan)


def test_a_huge_description_is_not_read(tmp_path: Path) -> None:
    plan = written(tmp_path)
    with plan.with_suffix(".json").open("wb") as stream:
        stream.truncate(5 << 20)
    with pytest.raises(BadInput, match="larger than 4 MiB"):
        read_plan(plan)


def test_a_plan_of_another_onnx_file_is_stale(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(b"graph")
    made = MADE.model_copy(update={"onnx_sha256": onnx_digest(onnx)})
    check_onnx(made, onnx)
    onnx.with_name("model.onnx.data").write_bytes(b"other weights")
    with pytest.raises(BadInput, match=r"model-sm90-trt10.13.plan: is stale: built of an ONNX file [0-9a-f]{12}, and"):
        check_onnx(made, onnx)
    with pytest.raises(NotFound, match="there is no ONNX file"):
        check_onnx(made, tmp_path / "none.onnx")


def test_a_plan_of_other_bytes_is_refused(tmp_path: Path) -> None:
    plan = written(tmp_path, plan_sha256=hashlib.sha256(b"plan").hexdigest())
    check_whole(read_plan(plan), plan)
    plan.write_bytes(b"pla")
    with pytest.raises(BadInput, match="its bytes are not those that were built"):
        check_whole(read_plan(plan), plan)

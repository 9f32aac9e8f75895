"""PlanFile (``model-sm90-trt10.13.json``): what a TensorRT plan was built of and for; beside the plan.

Written by `reelmesh optimize --target tensorrt`, read by whoever runs the plan. The one invariant: a plan is used only
by the GPU, the TensorRT and the ONNX file that it was built for, and for shapes inside one of its profiles.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import BadInput, NotFound

Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
Hardware = Literal["this", "same_capability", "ampere_plus"]
"""Which GPUs a plan is made for: the model that builds it, all of its compute capability, or all from 8.0 on."""

_BUILD: Final = (
    "run `reelmesh optimize MODEL --part PART --target tensorrt` on that GPU; "
    "`reelmesh k8s job-tensorrt` renders the Job"
)
_MOST_BYTES: Final = 4 << 20
_AMPERE: Final = (8, 0)
_DATA: Final = ".data"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(_Part):
    """Shapes of one input in one profile; the three have one length, and ``min <= opt <= max`` on every axis."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = dict[str, Range]
"""One optimisation profile: the shapes of every input, by name."""


class PlanTensor(_Part):
    """An input or output: numpy's name of the dtype or ``bfloat16``; a str names a dynamic axis."""

    name: str = Field(min_length=1, max_length=256)
    dtype: str
    axes: tuple[int | str, ...]


class PlanFile(_Part):
    """What stands beside a plan.

    Attributes:
        plan: name of the plan's file, in the same folder.
        plan_sha256: of that file.
        onnx_sha256: of what it was built from; see :func:`onnx_digest`.
        precision: that was asked for.
        strongly_typed: whether the types are the ONNX file's; else TensorRT chose among those of its flags.
        flags: builder flags that were set.
        compute_capability: of the GPU that built it, such as ``9.0``.
        gpu: its name.
        tensorrt: version that built it.
        hardware: which GPUs may run it.
        version_compatible: whether later minor versions of TensorRT may run it.
        weight_stripped: whether its weights come from the ONNX file when it is loaded.
        tf32: whether float32 products may round to 10 bits of mantissa.
        level: builder optimisation level, 0 to 5.
        workspace_mib: most scratch memory of a layer; None is all that the GPU has.
        profiles: shapes that it takes.
        inputs: in the file's order.
        outputs: in the file's order.
        seconds: that the build took.
    """

    plan: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.plan$")
    plan_sha256: str
    onnx_sha256: str
    precision: Precision
    strongly_typed: bool
    flags: tuple[str, ...]
    compute_capability: str = Field(pattern=r"^\d+\.\d+$")
    gpu: str
    tensorrt: str = Field(pattern=r"^\d+\.\d+")
    hardware: Hardware
    version_compatible: bool
    weight_stripped: bool
    tf32: bool
    level: int
    workspace_mib: int | None
    profiles: tuple[Profile, ...] = Field(min_length=1)
    inputs: tuple[PlanTensor, ...] = Field(min_length=1)
    outputs: tuple[PlanTensor, ...] = Field(min_length=1)
    seconds: float


def plans_folder(version: Path) -> Path:
    """Where the plans of a part's version are: ``<model>_<part>_trt/<version>``, beside the part's own folder."""
    return version.parent.with_name(f"{version.parent.name}_trt") / version.name


def plan_name(stem: str, capability: str, tensorrt: str, gpu: str = "") -> str:
    """File name of a plan: ``plan_name("model", "9.0", "10.13.2.6")`` is ``model-sm90-trt10.13.plan``.

    Args:
        stem: of the ONNX file.
        capability: of the GPU.
        tensorrt: version that builds it.
        gpu: the GPU's name, of a plan for this model of GPU alone: ``model-sm90-trt10.13-nvidia-h200.plan``.
    """
    major, minor = _minor(tensorrt)
    product = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")[:48]
    return f"{stem}-sm{capability.replace('.', '')}-trt{major}.{minor}{f'-{product}' if product else ''}.plan"


def onnx_digest(onnx: Path) -> str:
    """SHA-256 over an ONNX file and, where it has one, ``<file>.data`` with its weights, in hex.

    Raises:
        NotFound: there is no such file.
    """
    total = hashlib.sha256()
    for file in (onnx, onnx.with_name(onnx.name + _DATA)):
        if file == onnx and not file.is_file():
            raise NotFound("there is no ONNX file", field=str(onnx), fix="publish the part first, with --target onnx")
        if file.is_file():
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    total.update(block)
    return total.hexdigest()


def read_plan(plan: Path) -> PlanFile:
    """What stands beside a plan.

    Raises:
        NotFound: the plan or its description is missing.
        BadInput: the description cannot be read.
    """
    file = plan.with_suffix(".json")
    try:
        if not plan.is_file():
            raise FileNotFoundError(plan)
        if file.stat().st_size > _MOST_BYTES:
            raise BadInput(f"larger than {_MOST_BYTES >> 20} MiB", field=str(file), fix=_BUILD)
        return PlanFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise NotFound("there is no TensorRT plan", field=str(plan), fix=_BUILD) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", field=str(file), fix=_BUILD) from error


def find_plan(folder: Path, stem: str, capability: str, tensorrt: str, gpu: str) -> Path:
    """The plan in a version folder that a GPU can run: its own first, then one that others built for it as well.

    Args:
        folder: with plans and their descriptions.
        stem: of the ONNX file, such as ``model``.
        capability: of the GPU, such as ``9.0``.
        tensorrt: version that is to run it.
        gpu: name of the GPU, as its driver tells it.

    Raises:
        NotFound: there is none; says why each that is there does not fit.
    """
    own = folder / plan_name(stem, capability, tensorrt, gpu)
    there = sorted(folder.glob(f"{stem}-sm*-trt*.plan")) if folder.is_dir() else []
    refused = []
    for plan in sorted(there, key=lambda file: (file != own, file.name)):
        why = unfit(read_plan(plan), capability, tensorrt, gpu)
        if why is None:
            return plan
        refused.append(f"{plan.name} {why}")
    problem = f"no TensorRT plan fits compute capability {capability} and TensorRT {tensorrt}"
    tail = f": {'; '.join(refused)}" if refused else ""
    raise NotFound(problem + tail, field=str(folder), fix=_BUILD)


def unfit(made: PlanFile, capability: str, tensorrt: str, gpu: str) -> str | None:
    """Why a GPU or a TensorRT cannot run a plan; None where both can."""
    elsewhere = made.hardware == "ampere_plus" and _minor(capability) >= _AMPERE
    if capability != made.compute_capability and not elsewhere:
        return f"was built for compute capability {made.compute_capability}, and this GPU has {capability}"
    if made.hardware == "this" and gpu != made.gpu:
        return f"was built for {made.gpu} alone, and this is {gpu}"
    ours, theirs = _minor(tensorrt), _minor(made.tensorrt)
    same = made.tensorrt == tensorrt
    later = made.version_compatible and ours[0] == theirs[0] and ours >= theirs
    if not same and not later:
        return f"was built by TensorRT {made.tensorrt}, and this is {tensorrt}"
    return None


def check_whole(made: PlanFile, plan: Path) -> None:
    """Raise :class:`BadInput` if a plan's bytes are not those that were built."""
    with plan.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != made.plan_sha256:
        raise BadInput("its bytes are not those that were built", field=str(plan), fix=_BUILD)


def check_onnx(made: PlanFile, onnx: Path) -> None:
    """Raise :class:`BadInput` if a plan was built of another ONNX file; :class:`NotFound` without any."""
    found = onnx_digest(onnx)
    if found != made.onnx_sha256:
        problem = f"is stale: built of an ONNX file {made.onnx_sha256[:12]}, and {onnx.name} is {found[:12]}"
        raise BadInput(problem, field=made.plan, fix=_BUILD)


def profile_of(made: PlanFile, shapes: Mapping[str, Sequence[int]]) -> int:
    """Index of the first profile that takes these shapes.

    Args:
        made: of the plan.
        shapes: of every input, by name.

    Raises:
        BadInput: an input is missing or not known, or no profile takes the shapes; names input, axis, size and range.
    """
    named = {tensor.name for tensor in made.inputs}
    if named != set(shapes):
        odd = sorted(named ^ set(shapes))
        raise BadInput(f"inputs differ from the plan's: {', '.join(odd)}", field="inputs", fix="give each once")
    misfits = [misfit(made.inputs, profile, shapes) for profile in made.profiles]
    for index, found in enumerate(misfits):
        if found is None:
            return index
    raise next(found for found in misfits if found is not None)


def misfit(inputs: Sequence[PlanTensor], profile: Profile, shapes: Mapping[str, Sequence[int]]) -> BadInput | None:
    """The first size of a call that lies outside a profile, as an error to raise; None where all lie inside."""
    for tensor in inputs:
        shape, allowed = shapes[tensor.name], profile[tensor.name]
        if len(shape) != len(allowed.min):
            problem = f"has {len(shape)} axes, and the plan takes {len(allowed.min)}"
            return BadInput(problem, field=tensor.name, fix=f"give it the axes {list(tensor.axes)}")
        for index, (size, low, high) in enumerate(zip(shape, allowed.min, allowed.max, strict=True)):
            if not low <= size <= high:
                axis = tensor.axes[index]
                name = f"{axis!r} (axis {index})" if isinstance(axis, str) else str(index)
                return BadInput(
                    f"axis {name} has size {size}, outside the profile's {low} to {high}",
                    field=tensor.name,
                    fix="ask for a size inside, or build the plan again with a case of this size",
                )
    return None


def _minor(version: str) -> tuple[int, int]:
    """Major and minor number of a version or of a compute capability."""
    major, minor, *_ = (*re.findall(r"\d+", version), "0", "0")
    return int(major), int(minor)

"""build_plan: from an ONNX file to a TensorRT plan in the model repository, or to the plan that is there already.

Called by optimize.cli on the GPU that will run the plan. The one invariant: what can be refused is refused before the
builder is called, and a plan appears whole, with its description, or not at all.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple
from uuid import uuid4

from optimize.tensorrt.builder import Builder, Built, Notify, NvidiaBuilder, Request
from optimize.tensorrt.contents import look
from optimize.tensorrt.flags import Flags, Target, flags
from optimize.tensorrt.options import Options
from optimize.tensorrt.profiles import Declaration, plan_tensors, profiles
from optimize.tensorrt.timing import TimingCache
from serving.backends.ray.parts.gpu import require
from serving.errors import BadInput, NotFound
from serving.repository.plan_file import PlanFile, Profile, check_whole, onnx_digest, plan_name, read_plan

STEPS: Final = ("check", "parse", "build", "write")
"""What ``notify`` is told, in order; between them ``build: PHASE, N %`` and why a plan that is there is stale."""

_MADE_BY_BUILD: Final = frozenset({"plan_sha256", "seconds"})
"""Fields of a description that do not say what was asked for; and so is ``gpu`` of a plan for several GPUs."""


_SHOWN: Final = 16
"""Characters of a value in the reason why a plan is stale, which tell two digests apart."""


class Plan(NamedTuple):
    """What came of it."""

    status: Literal["built", "cached"]
    file: Path
    made: PlanFile


def nvidia() -> Builder:
    """TensorRT on the first GPU that this process sees; ``CUDA_VISIBLE_DEVICES`` chooses another.

    Raises:
        MissingDependency: names each that is missing: driver, GPU, package.
    """
    return NvidiaBuilder(*require())


def build_plan(
    onnx: Path,
    declaration: Declaration,
    options: Options,
    cache: Path,
    notify: Notify = lambda step: None,
    builder: Callable[[], Builder] = nvidia,
) -> Plan:
    """Build the plan of an ONNX file, unless the same one is there.

    Args:
        onnx: ``model.onnx`` of a published part, with its ``.data`` beside it.
        declaration: its tensors and the sizes it was captured with.
        options: how to build it.
        cache: version folder of the plans' model, ``<repository>/<model>_<part>_trt/<version>``.
        notify: told each of :data:`STEPS`.
        builder: gives what builds.

    Raises:
        NotFound: there is no such file.
        BadInput: file, sizes, precision, GPU and TensorRT do not go together; before anything is built.
        MissingDependency: driver, GPU or package are missing; after the file and the shapes were checked.
        EngineFailed: TensorRT does not parse the file or builds no plan.
    """
    notify("check")
    contents = look(onnx, declaration)
    shapes = profiles(declaration, options.profiles)
    ready = builder()
    chosen = flags(options, contents, ready.target)
    wanted = _wanted(onnx, declaration, options, ready.target, chosen, shapes)
    file = cache / wanted.plan
    if (there := _there(file, wanted, notify)) is not None:
        return Plan("cached", file, there)
    timing = TimingCache(options.timing_cache or cache.parent, ready.target)
    before = timing.read()
    began = time.perf_counter()
    built = ready.build(Request(onnx, shapes, chosen, options, before), notify)
    seconds = round(time.perf_counter() - began, 3)
    notify("write")
    timing.write(built.timing, before, ready.merge)
    return Plan("built", file, _write(file, built, wanted, seconds))


def _wanted(
    onnx: Path,
    declaration: Declaration,
    options: Options,
    target: Target,
    chosen: Flags,
    shapes: tuple[Profile, ...],
) -> PlanFile:
    """The description of the plan, without what only its build says."""
    return PlanFile(
        plan=plan_name(onnx.stem, target.capability, target.tensorrt, target.gpu if options.hardware == "this" else ""),
        plan_sha256="",
        onnx_sha256=onnx_digest(onnx),
        precision=options.precision,
        strongly_typed=chosen.strong,
        flags=chosen.on,
        compute_capability=target.capability,
        gpu=target.gpu,
        tensorrt=target.tensorrt,
        hardware=options.hardware,
        version_compatible=options.version_compatible,
        weight_stripped=options.weight_stripped,
        tf32=options.tf32,
        level=options.level,
        workspace_mib=options.workspace_mib,
        profiles=shapes,
        inputs=plan_tensors(declaration.inputs),
        outputs=plan_tensors(declaration.outputs),
        seconds=0.0,
    )


def stale(there: PlanFile, wanted: PlanFile) -> str | None:
    """Why a plan is not the wanted one, naming the first difference; None where it is."""
    for name in PlanFile.model_fields:
        old, new = getattr(there, name), getattr(wanted, name)
        if name in _MADE_BY_BUILD or old == new or (name == "gpu" and wanted.hardware != "this"):
            continue
        if isinstance(old, tuple):
            return f"its {name} are others"
        return f"its {name} is {str(old)[:_SHOWN]}, and {str(new)[:_SHOWN]} is wanted"
    return None


def _there(file: Path, wanted: PlanFile, notify: Notify) -> PlanFile | None:
    """The description of the plan that is there, if it is the wanted one and whole."""
    try:
        found = read_plan(file)
        check_whole(found, file)
    except NotFound:
        return None
    except BadInput as error:
        notify(f"{file.name} is built again: {error.problem}")
        return None
    if (why := stale(found, wanted)) is not None:
        notify(f"{file.name} is built again: {why}")
        return None
    return found


def _write(file: Path, built: Built, wanted: PlanFile, seconds: float) -> PlanFile:
    """Both files by renaming; the description goes first and comes last, since a plan without one is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = wanted.model_copy(update={"plan_sha256": hashlib.sha256(built.plan).hexdigest(), "seconds": seconds})
    file.with_suffix(".json").unlink(missing_ok=True)
    for target, data in (
        (file, built.plan),
        (file.with_suffix(".json"), (made.model_dump_json(indent=2) + "\n").encode()),
    ):
        part = target.with_name(f".{target.name}.{uuid4().hex}")  # process numbers are equal in containers
        part.write_bytes(data)
        part.replace(target)
    return made

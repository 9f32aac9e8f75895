"""ONNX Runtime's providers and their options for a device: CPU, CUDA, or TensorRT inside ONNX Runtime.

Used where an engine opens an exported part. The one invariant: a provider that this build of ONNX Runtime lacks is
refused by name; ONNX Runtime itself would warn and fall back to the CPU.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from serving.errors import BadInput, MissingDependency
from serving.repository.part_file import Variant
from serving.repository.plan_file import PlanTensor, Precision, Profile, Range

Runtime = Literal["onnxruntime", "tensorrt-ep"]
Providers = list[tuple[str, dict[str, str]]]
"""As ``onnxruntime.InferenceSession(providers=...)`` takes them, the most wanted first."""

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

_INSTALL: Final = {
    CUDA: "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
    TENSORRT: "pip uninstall -y onnxruntime && pip install onnxruntime-gpu, and TensorRT 10 beside it",
}
"""onnxruntime-gpu 1.31's TensorRT provider is linked to libnvinfer.so.10, and both packages have the same modules."""
_TENSORRT_PRECISION: Final = {
    "fp32": (),
    "fp16": ("trt_fp16_enable",),
    "bf16": ("trt_bf16_enable",),
    "int8": ("trt_int8_enable", "trt_fp16_enable"),
}


class Shapes(NamedTuple):
    """What the TensorRT provider must know of a file with dynamic axes: its inputs, and the profiles to build for."""

    inputs: Sequence[PlanTensor]
    profiles: Sequence[Profile]


def shapes_of(variant: Variant) -> Shapes:
    """Of a variant with axes that vary: one profile from the smallest to the largest size it was exported with."""
    inputs = [PlanTensor(name=one.name, dtype=one.dtype, axes=tuple(one.axes)) for one in variant.inputs]

    def at(tensor: PlanTensor, of: Callable[[Iterable[int]], int]) -> tuple[int, ...]:
        return tuple(
            axis if isinstance(axis, int) else of(sizes[axis] for sizes in variant.sizes) for axis in tensor.axes
        )

    return Shapes(inputs, [{one.name: Range(min=at(one, min), opt=at(one, max), max=at(one, max)) for one in inputs}])


def providers(
    device: str,
    runtime: Runtime,
    cache: Path,
    gpu_mem_limit: int | None = None,
    *,
    precision: Precision = "fp32",
    shapes: Shapes | None = None,
    stream: int | None = None,
    available: Sequence[str] | None = None,
) -> Providers:
    """Providers for a session.

    Args:
        device: ``cpu`` or ``cuda:N``.
        runtime: ``tensorrt-ep`` puts ONNX Runtime's TensorRT provider before CUDA's.
        cache: folder for engines and timings that the TensorRT provider builds on the first call; one for each file.
        gpu_mem_limit: bytes that CUDA's provider may hold, and that a layer of TensorRT may use; None is no limit.
        precision: of the layers, for the TensorRT provider; CUDA's takes the file's, and rounds float32 products to
            10 bits of mantissa (TF32) unless it is ``fp32``.
        shapes: for the TensorRT provider, which without them builds again whenever a new size comes.
        stream: handle of the CUDA stream to work on, such as torch's current one; None is ONNX Runtime's own.
        available: providers of this build; None asks onnxruntime.

    Raises:
        BadInput: the runtime needs a GPU and the device is none, or the limit is not positive.
        MissingDependency: this build lacks the provider, or onnxruntime is not installed.
    """
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or not (number or "0").isdigit():
        raise BadInput(f"there is no device {device!r}", field="device", fix="use cpu or cuda:N")
    if gpu_mem_limit is not None and gpu_mem_limit < 1:
        raise BadInput(f"{gpu_mem_limit} bytes", field="gpu_mem_limit", fix="use 1 or more, or leave it out")
    if kind == "cpu":
        if runtime != "onnxruntime":
            raise BadInput("TensorRT runs on no CPU", field="runtime", fix="use runtime: onnxruntime, or a GPU")
        return [(CPU, {})]
    common = {"device_id": number or "0", **({"user_compute_stream": str(stream)} if stream is not None else {})}
    found: Providers = [(CUDA, {**common, **_cuda(precision, gpu_mem_limit)}), (CPU, {})]
    if runtime == "tensorrt-ep":
        options = {**common, **_tensorrt(precision, cache, gpu_mem_limit), **_profiles(shapes)}
        found.insert(0, (TENSORRT, options))
    check_available([name for name, _ in found], available)
    return found


def check_available(wanted: Sequence[str], available: Sequence[str] | None = None) -> None:
    """Raise :class:`MissingDependency` for the first provider that this build of ONNX Runtime lacks.

    Args:
        wanted: names of providers.
        available: of this build; None asks onnxruntime.
    """
    if available is None:
        try:
            import onnxruntime
        except ImportError as error:
            fix = "pip install onnxruntime-gpu"
            raise MissingDependency("onnxruntime does not import", field="onnxruntime", fix=fix) from error
        available = onnxruntime.get_available_providers()
    for name in wanted:
        if name not in available:
            problem = f"this onnxruntime has no {name}, only {', '.join(available)}"
            raise MissingDependency(problem, field="onnxruntime", fix=_INSTALL.get(name, "pip install onnxruntime"))


def _cuda(precision: Precision, limit: int | None) -> dict[str, str]:
    return {
        # Grows by what is asked for, where the default doubles, so that a share of a GPU is not overrun.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0" if precision == "fp32" else "1",
        **({"gpu_mem_limit": str(limit)} if limit is not None else {}),
    }


def _tensorrt(precision: Precision, cache: Path, limit: int | None) -> dict[str, str]:
    if precision not in _TENSORRT_PRECISION:
        fix = "build a plan: `reelmesh optimize MODEL --part PART --target tensorrt`"
        raise BadInput(f"ONNX Runtime's TensorRT provider has no {precision}", field="precision", fix=fix)
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
        **dict.fromkeys(_TENSORRT_PRECISION[precision], "True"),
        **({"trt_max_workspace_size": str(limit)} if limit is not None else {}),
    }


def _profiles(shapes: Shapes | None) -> dict[str, str]:
    """Shapes as ``name:1x4x64,name:2x4x96``; inputs without dynamic axes have none, as the provider wants it.

    Several profiles name an input again, in their order (ONNX Runtime, TensorRT provider, ParseProfileShapes).
    """
    if shapes is None:
        return {}
    dynamic = [one.name for one in shapes.inputs if any(isinstance(axis, str) for axis in one.axes)]
    odd = [name for name in dynamic if set(name) & set(":,")]
    if odd:
        fix = "rename it, or build a plan with --target tensorrt"
        raise BadInput("ONNX Runtime's TensorRT provider takes no ':' and ',' in names", field=odd[0], fix=fix)
    rows = [(name, profile[name]) for profile in shapes.profiles for name in dynamic]
    if not rows:
        return {}
    return {
        f"trt_profile_{which}_shapes": ",".join(f"{name}:{'x'.join(map(str, _of(row, which)))}" for name, row in rows)
        for which in ("min", "opt", "max")
    }


def _of(row: Range, which: str) -> tuple[int, ...]:
    found: tuple[int, ...] = getattr(row, which)
    return found

"""Builder flags and the kind of network for a precision, on one GPU and one version of TensorRT; used by build.

The one invariant: it is pure, and what a GPU, a TensorRT or an ONNX file cannot do is refused here, before minutes are
spent.
"""

import re
from typing import Final, NamedTuple

from optimize.tensorrt.contents import Contents
from optimize.tensorrt.options import Options
from serving.errors import BadInput

FIRST_CAPABILITY: Final = {"fp32": (5, 0), "fp16": (5, 3), "bf16": (8, 0), "int8": (6, 1), "fp8": (8, 9)}
"""Compute capability from which on a precision runs in hardware (NVIDIA's TensorRT support matrix)."""
OLDEST: Final = (10, 0)
TYPED_ONLY: Final = (11, 0)
"""From here on TensorRT has no flags of precision: every network is strongly typed (read in the bindings of 11.4)."""
_WEAK: Final = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16")}
"""Flags of networks whose types TensorRT chooses; beside int8 it may keep layers in fp16."""
_QUANTISED: Final = ("int8", "fp8")
_EXPORT: Final = "publish the part in that precision first: `reelmesh optimize MODEL --part PART --precision {}`"


class Target(NamedTuple):
    """Where a plan is built: compute capability (``9.0``), the GPU's name, version of TensorRT (``10.13.2.6``)."""

    capability: str
    gpu: str
    tensorrt: str


class Flags(NamedTuple):
    """Whether the network is strongly typed, and the names of the builder's flags to set and to clear."""

    strong: bool
    on: tuple[str, ...]
    off: tuple[str, ...]


def flags(options: Options, contents: Contents, target: Target) -> Flags:
    """What to set.

    Raises:
        BadInput: the GPU, the TensorRT or the file cannot have the precision.
    """
    version = _pair(target.tensorrt)
    if version < OLDEST:
        problem = f"TensorRT {target.tensorrt} is too old"
        raise BadInput(problem, field="tensorrt", fix="use an image with TensorRT 10 or newer")
    _check_gpu(options, target)
    _check_file(options, contents)
    strong = _strong(options, contents, version)
    chosen = () if strong else _WEAK[options.precision]
    also = [
        *(["VERSION_COMPATIBLE"] if options.version_compatible else []),
        *(["STRIP_PLAN", "REFIT_IDENTICAL"] if options.weight_stripped else []),
        *(["TF32"] if options.tf32 else []),
    ]
    # TensorRT sets TF32 by itself.
    return Flags(strong, (*chosen, *also), () if options.tf32 else ("TF32",))


def _check_gpu(options: Options, target: Target) -> None:
    first = FIRST_CAPABILITY[options.precision]
    if _pair(target.capability) < first:
        fix = "use fp16, or a newer GPU" if options.precision in ("bf16", "fp8") else "use fp32, or a newer GPU"
        needs = f"{options.precision} needs compute capability {first[0]}.{first[1]}"
        problem = f"{needs}, and {target.gpu} has {target.capability}"
        raise BadInput(problem, field="precision", fix=fix)
    if options.hardware == "ampere_plus" and _pair(target.capability) < (8, 0):
        problem = f"{target.gpu} is older than Ampere"
        raise BadInput(problem, field="hardware", fix="build on a GPU of compute capability 8.0 or newer")


def _check_file(options: Options, contents: Contents) -> None:
    wanted = options.precision
    if "asymmetric" in contents.quantized:
        problem = "the ONNX file is quantised with zero points that are not a signed 0, which TensorRT refuses"
        raise BadInput(problem, field="precision", fix="quantise it symmetrically to int8, or build of the float file")
    if wanted in _QUANTISED and wanted not in contents.quantized:
        fix = _EXPORT.format(wanted) if wanted == "int8" else "quantise it to FLOAT8E4M3FN with QuantizeLinear nodes"
        problem = f"the ONNX file has no {wanted} Q/DQ nodes, from which TensorRT takes scales and types"
        raise BadInput(problem, field="precision", fix=fix)
    if wanted not in _QUANTISED and contents.quantized:
        held = ", ".join(sorted(contents.quantized))
        fix = f"use precision: {held}, or build of the float file"
        raise BadInput(f"the ONNX file is quantised to {held}", field="precision", fix=fix)
    lower = contents.floats - {"fp32"}
    if wanted == "fp32" and lower:
        held = ", ".join(sorted(lower))
        problem = f"the ONNX file has weights in {held}, which no plan makes exact again"
        raise BadInput(problem, field="precision", fix=f"use precision: {held}, or build of the fp32 file")


def _strong(options: Options, contents: Contents, version: tuple[int, int]) -> bool:
    """Whether the file's types hold."""
    has_it = options.precision in contents.floats | contents.quantized
    strong = options.typing == "strong" or (options.typing == "auto" and has_it)
    if strong and not has_it:
        held = ", ".join(sorted(contents.floats))
        problem = f"the ONNX file holds {held}, and a strongly typed network keeps its types"
        raise BadInput(problem, field="precision", fix=_EXPORT.format(options.precision))
    if not strong and version >= TYPED_ONLY:
        problem = (
            f"TensorRT {version[0]} takes types from the ONNX file alone, so it cannot make {options.precision} of it"
        )
        fix = "use typing: auto" if has_it else _EXPORT.format(options.precision)
        raise BadInput(problem, field="precision", fix=fix)
    return strong


def _pair(text: str) -> tuple[int, int]:
    major, minor, *_ = (*re.findall(r"\d+", text), "0", "0")
    return int(major), int(minor)

from typing import Any

import pytest

from optimize.tensorrt.contents import Contents
from optimize.tensorrt.flags import Flags, Target, flags
from optimize.tensorrt.options import Options
from serving.errors import BadInput

H200 = Target("9.0", "NVIDIA H200", "10.13.2.6")
NEW = Target("9.0", "NVIDIA H200", "11.4.0.106")
A100 = Target("8.0", "NVIDIA A100", "10.13.2.6")
T4 = Target("7.5", "Tesla T4", "10.13.2.6")


def holds(*names: str) -> Contents:
    return Contents(frozenset(names) & {"fp32", "fp16", "bf16"}, frozenset(names) - {"fp32", "fp16", "bf16"})


@pytest.mark.parametrize(
    ("given", "contents", "target", "expected"),
    [
        pytest.param({"precision": "fp32"}, holds("fp32"), H200, Flags(True, (), ("TF32",)), id="fp32"),
        pytest.param(
            {"precision": "fp16"}, holds("fp16", "fp32"), NEW, Flags(True, (), ("TF32",)), id="fp16 of its own"
        ),
        pytest.param({"precision": "fp16"}, holds("fp32"), H200, Flags(False, ("FP16",), ("TF32",)), id="fp16 by flag"),
        pytest.param({"precision": "bf16"}, holds("fp32"), A100, Flags(False, ("BF16",), ("TF32",)), id="bf16 by flag"),
        pytest.param({"precision": "int8"}, holds("fp32", "int8"), T4, Flags(True, (), ("TF32",)), id="int8"),
        pytest.param(
            {"precision": "int8", "typing": "weak"},
            holds("fp32", "int8"),
            T4,
            Flags(False, ("INT8", "FP16"), ("TF32",)),
            id="int8 by flag",
        ),
        pytest.param({"precision": "fp8"}, holds("fp16", "fp8"), H200, Flags(True, (), ("TF32",)), id="fp8"),
        pytest.param({"precision": "fp32", "tf32": True}, holds("fp32"), H200, Flags(True, ("TF32",), ()), id="tf32"),
        pytest.param(
            {"precision": "fp32", "version_compatible": True, "weight_stripped": True},
            holds("fp32"),
            H200,
            Flags(True, ("VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT_IDENTICAL"), ("TF32",)),
            id="stripped",
        ),
    ],
)
def test_flags_of_a_precision(given: dict[str, Any], contents: Contents, target: Target, expected: Flags) -> None:
    assert flags(Options(**given), contents, target) == expected


@pytest.mark.parametrize(
    ("given", "contents", "target", "said"),
    [
        pytest.param(
            {"precision": "fp8"},
            holds("fp32", "fp8"),
            A100,
            "fp8 needs compute capability 8.9, and NVIDIA A100 has 8.0: use fp16, or a newer GPU",
            id="old GPU for fp8",
        ),
        pytest.param({"precision": "bf16"}, holds("bf16"), T4, "bf16 needs compute capability 8.0", id="old for bf16"),
        pytest.param(
            {"precision": "fp8"}, holds("fp32"), H200, "no fp8 Q/DQ nodes.*FLOAT8E4M3FN", id="fp8 without nodes"
        ),
        pytest.param(
            {"precision": "int8"}, holds("fp32"), H200, "no int8 Q/DQ.*--precision int8", id="int8 without nodes"
        ),
        pytest.param(
            {"precision": "int8"}, holds("fp32", "asymmetric"), H200, "zero points that are not", id="asymmetric"
        ),
        pytest.param(
            {"precision": "fp16"}, holds("fp32", "int8"), H200, "is quantised to int8: use precision: int8", id="q"
        ),
        pytest.param(
            {"precision": "fp32"}, holds("fp16"), H200, "weights in fp16.*use precision: fp16", id="fp32 of fp16"
        ),
        pytest.param(
            {"precision": "fp16"},
            holds("fp32"),
            NEW,
            "TensorRT 11 takes types from the ONNX file alone.*--precision fp16",
            id="no flags any more",
        ),
        pytest.param(
            {"precision": "fp16", "typing": "weak"},
            holds("fp16"),
            NEW,
            "TensorRT 11 takes types.*use typing: auto",
            id="weak",
        ),
        pytest.param(
            {"precision": "fp16", "typing": "strong"},
            holds("fp32"),
            H200,
            "holds fp32, and a strongly typed",
            id="strong",
        ),
        pytest.param(
            {"hardware": "ampere_plus"}, holds("fp16"), T4, "hardware: Tesla T4 is older than Ampere", id="ampere"
        ),
        pytest.param(
            {}, holds("fp16"), H200._replace(tensorrt="8.6.1"), "TensorRT 8.6.1 is too old", id="old TensorRT"
        ),
    ],
)
def test_what_cannot_be_built_is_refused(given: dict[str, Any], contents: Contents, target: Target, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        flags(Options(**given), contents, target)

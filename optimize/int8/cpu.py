"""What a processor's 8-bit dot product is like; asked by whoever chooses ``reduce_range`` for optimize.int8.

The one invariant: only the kernel's own list of features counts; a processor that is not known has none.
"""

from pathlib import Path
from typing import Final

DOT_PRODUCT_FLAGS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Linux's names of the x86 instructions that add products of u8 and s8 into 32 bits without saturation."""


def has_dot_product(cpuinfo: str) -> bool:
    """Whether the text of ``/proc/cpuinfo`` lists one of :data:`DOT_PRODUCT_FLAGS`.

    Without one, ONNX Runtime multiplies u8 by s8 with ``VPMADDUBSW``, which saturates in 16 bits: weights then need the
    7 bits of ``reduce_range`` (onnxruntime.ai, "Quantize ONNX models", section on data types).
    """
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = {flag for key, _, value in lines if key.strip() == "flags" for flag in value.split()}
    return not flags.isdisjoint(DOT_PRODUCT_FLAGS)


def this_cpu_has_dot_product() -> bool:
    """The same for this machine; False where there is no ``/proc/cpuinfo``."""
    try:
        return has_dot_product(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        return False

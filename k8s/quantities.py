"""Kubernetes quantities ("500m", "4Gi") as numbers; used by the checks.

The one invariant: whole units are rounded up, as KubeRay and Ray's autoscaler round what a pod's limits say.
"""

import math
from decimal import Decimal
from typing import Final

SUFFIXES: Final = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


def quantity(text: str | float) -> Decimal:
    """The number a quantity stands for; raises ArithmeticError when it is none."""
    written = str(text)
    suffix = next((ending for ending in sorted(SUFFIXES, key=len, reverse=True) if written.endswith(ending)), "")
    return Decimal(written.removesuffix(suffix)) * SUFFIXES.get(suffix, Decimal(1))


def whole(text: str | float) -> int:
    """The quantity, rounded up to whole units."""
    return math.ceil(quantity(text))

"""The gates an exported file passes before it is published: it loads, it equals its reference, its speed is
known.

Called by optimize.run, in this order. The one invariant: a gate only measures or raises; it never changes the
file.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import onnxruntime as ort

from optimize.recipe import Array, Arrays, Built, Case, Recipe
from optimize.report import ParityRow, TimingRow
from optimize.threads import THREADS
from serving.errors import EngineFailed, foreign_text

ROUNDS: Final = 40
CASE_SECONDS: Final = 1.5
"""Bounds of one case's benchmark: whichever comes first, but at least three rounds."""

TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
"""ONNX Runtime's type names and numpy's."""


class Session:
    """A file in ONNX Runtime on the CPU.

    Raises:
        EngineFailed: the file does not load, or its tensors are not the declared ones.
    """

    def __init__(self, file: Path, recipe: Recipe) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            problem = f"the exported file does not load in ONNX Runtime: {foreign_text(error)}"
            raise EngineFailed(problem, field="load") from error
        declared = [(t.name, t.dtype, len(t.axes)) for t in (*recipe.inputs, *recipe.outputs)]
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        found = [(node.name, TYPES.get(node.type, node.type), len(node.shape)) for node in nodes]
        if found != declared:
            raise EngineFailed(f"the exported file has tensors {found}, the recipe declares {declared}", field="load")
        self._outputs = [tensor.name for tensor in recipe.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name; EngineFailed where ONNX Runtime refuses the inputs."""
        try:
            results = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            shapes = {name: array.shape for name, array in inputs.items()}
            problem = f"the exported file fails at {shapes}: {foreign_text(error)}"
            raise EngineFailed(problem, field="parity", fix="correct the recipe's dynamic axes") from error
        return {name: np.asarray(result) for name, result in zip(self._outputs, results, strict=True)}


def compare(case: str, output: str, expected: Array, found: Array) -> ParityRow:
    """How far ``found`` is from ``expected``, relative to the largest value expected.

    Shapes or types that differ, values that are not finite and references that are constant (against which
    any constant would pass) make the row fail with a reason.
    """
    reason = ""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        reason = f"{found.dtype} {found.shape} instead of {expected.dtype} {expected.shape}"
        return ParityRow(case=case, output=output, shape=list(found.shape), relative=float("inf"), reason=reason)
    wanted, got = expected.astype(np.float64), found.astype(np.float64)
    scale = float(np.abs(wanted).max(initial=0.0))
    difference = float(np.abs(wanted - got).max(initial=0.0))
    relative = difference / scale if scale else float("inf")
    if not np.isfinite(got).all() or not np.isfinite(wanted).all():
        reason, relative = "values that are not finite", float("inf")
    elif wanted.size == 0 or (wanted.size > 1 and np.ptp(wanted) == 0):
        reason, relative = "the reference is constant here, so parity would prove nothing", float("inf")
    return ParityRow(case=case, output=output, shape=list(found.shape), relative=relative, reason=reason)


def check_parity(session: Session, built: Built, cases: Sequence[Case], tolerance: float) -> list[ParityRow]:
    """Compare every output at every case.

    Raises:
        EngineFailed: the worst row is over ``tolerance``; names case, output, difference and what is allowed.
    """
    rows = []
    for case in cases:
        expected, found = built.reference(case.inputs).outputs, session.run(case.inputs)
        rows += [compare(case.name, name, expected[name], found[name]) for name in found]
    worst = max(rows, key=lambda row: row.relative)
    if not worst.relative <= tolerance:
        what = worst.reason or f"differs by {worst.relative:.2e} of the output's scale, {tolerance:.0e} is allowed"
        raise EngineFailed(
            f"parity failed at {worst.case}: {worst.output}: {what}",
            field="parity",
            fix="nothing was published; mend the recipe or the module it exports",
        )
    return rows


def benchmark(session: Session, built: Built, cases: Sequence[Case]) -> list[TimingRow]:
    """Median milliseconds of reference and export per case, measured in turns so that noise hits both."""
    rows = []
    for case in cases:
        reference: list[float] = []
        exported: list[float] = []
        built.reference(case.inputs)
        session.run(case.inputs)
        began = time.perf_counter()
        while len(exported) < ROUNDS and (len(exported) < 3 or time.perf_counter() - began < CASE_SECONDS):  # noqa: PLR2004
            reference.append(built.reference(case.inputs).seconds)
            started = time.perf_counter()
            session.run(case.inputs)
            exported.append(time.perf_counter() - started)
        rows.append(
            TimingRow(
                case=case.name,
                rounds=len(exported),
                ms={"reference": round(median(reference) * 1000, 4), "fp32": round(median(exported) * 1000, 4)},
            )
        )
    return rows

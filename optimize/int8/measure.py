"""Runs float and INT8 files side by side and says how far apart and how fast they are; used by optimize.int8.

The one invariant: both run on the same threads over the same feeds, and times are taken in turns.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import onnxruntime as ort

from optimize.int8.feeds import Array, Feed
from optimize.threads import THREADS
from serving.errors import BadInput, EngineFailed, foreign_text

ROUNDS: Final = 9
SECONDS: Final = 2.0
"""Bounds of one comparison of speed: whichever comes first, but at least three rounds."""

LEAST_ROUNDS: Final = 3

Outputs = Mapping[str, Array]


class Runner:
    """A file in ONNX Runtime on the CPU; EngineFailed if it does not load."""

    def __init__(self, file: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            problem = f"this file does not load in ONNX Runtime: {foreign_text(error)}"
            raise EngineFailed(problem, field=str(file)) from error
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feed: Feed) -> Outputs:
        """Outputs by name; EngineFailed where ONNX Runtime refuses the feed."""
        try:
            results = self._session.run(None, dict(feed))
        except Exception as error:
            shapes = {name: array.shape for name, array in feed.items()}
            raise EngineFailed(f"ONNX Runtime fails at {shapes}: {foreign_text(error)}", field="feeds") from error
        return dict(zip(self._names, map(np.asarray, results), strict=True))


def snr_db(expected: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """The signal-to-noise ratio in dB of the worst floating output, its energy summed over all runs.

    Equal outputs are ``inf``; another shape or a value that is not finite is ``-inf``.

    Raises:
        BadInput: no floating output has any energy, so that nothing can be compared.
    """
    names = [name for name, array in expected[0].items() if np.issubdtype(array.dtype, np.floating)]
    pairs = {name: [(a[name], b[name]) for a, b in zip(expected, found, strict=True)] for name in names}
    signals = {name: sum(_energy(wanted) for wanted, _ in pairs[name]) for name in names}
    if not any(signals.values()):
        problem = "every output of the float file is zero over the feeds, so quality cannot be measured"
        raise BadInput(problem, field="feeds", fix="capture calls of real requests, or pass a quality of the task")
    noises = {name: sum(_noise(wanted, got) for wanted, got in pairs[name]) for name in names}
    return min(_ratio_db(signals[name], noises[name]) for name in names)


def _energy(array: Array) -> float:
    return float(np.square(array, dtype=np.float64).sum())


def _noise(expected: Array, found: Array) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return _energy(expected.astype(np.float64) - found.astype(np.float64))


def _ratio_db(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 and np.isfinite(noise) else float("-inf")


def in_turns(first: Runner, second: Runner, feeds: Sequence[Feed]) -> tuple[float, float]:
    """Median milliseconds that each takes for all ``feeds`` one after the other, warm, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for runner in (first, second):
        seconds_of(runner, feeds)
    began = time.perf_counter()
    while len(times[0]) < ROUNDS and (len(times[0]) < LEAST_ROUNDS or time.perf_counter() - began < SECONDS):
        for runner, taken in zip((first, second), times, strict=True):
            taken.append(seconds_of(runner, feeds))
    return median(times[0]) * 1000, median(times[1]) * 1000


def seconds_of(runner: Runner, feeds: Sequence[Feed]) -> float:
    """Seconds of one pass."""
    started = time.perf_counter()
    for feed in feeds:
        runner.run(feed)
    return time.perf_counter() - started

"""Quantises an ONNX file to INT8 within a bound on quality; called by optimize's command for parts.

The one invariant: ``target`` is written only when a file reached the bound; until then all work is in a scratch folder.
"""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, get_args

from optimize.external import size_with_data
from optimize.int8 import graph, methods
from optimize.int8.feeds import Feed, check_feeds
from optimize.int8.graph import Mode
from optimize.int8.measure import Runner, in_turns, snr_db
from optimize.int8.search import Found, Sensitivity, Trial, search
from serving.errors import BadInput, EngineFailed

Notify = Callable[[str], None]
Quality = Callable[[Path], float]
"""Scores a quantised file; higher is better."""

SHORT_RUNS: Final = 4
"""Feeds that rank layers and take times; all of them calibrate and are scored."""

NAMED: Final = 8
"""Layers that a message lists."""


class Quantized(NamedTuple):
    """What was accepted and how it was found.

    ``bytes`` counts external data too; ``ms`` and ``float_ms`` are medians over the same feeds in turns; ``seconds`` is
    what the whole search took; ``sensitivity`` is empty where nothing had to stay in float.
    """

    mode: Mode
    kept_float: tuple[str, ...]
    nodes_quantized: int
    quality: float
    ms: float
    float_ms: float
    bytes: int
    seconds: float
    trials: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...]


def quantize(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    *,
    mode: Mode,
    bound: float,
    quality: Quality | None = None,
    reduce_range: bool = False,
    notify: Notify = lambda step: None,
) -> Quantized:
    """Write ``source`` in INT8 to ``target``, with as few layers in float as reach ``bound``.

    The same file, feeds and arguments give the same bytes, as long as ``quality`` gives the same scores.

    Args:
        source: a float32 ONNX file, with its ``.data`` beside it if it has one.
        target: the file to make; weights beyond 512 MiB go beside it, into ``<target>.data``.
        feeds: captured real calls, every input by name. They calibrate (mode static), rank layers and are compared.
        mode: ``dynamic`` for transformers over many tokens, ``weight_only`` for decoder steps over few rows,
            ``static`` for convolutions; see :func:`optimize.int8.methods.write`.
        bound: the least quality that is accepted.
        quality: scores a file, higher is better; default: :func:`optimize.int8.measure.snr_db` against ``source``.
        reduce_range: weights of 7 bits, for processors without VNNI; see :mod:`optimize.int8.cpu`.
        notify: told of every step in a few words.

    Raises:
        BadInput: the file, the feeds, the mode or the bound cannot be used; said before anything is quantised.
        EngineFailed: ONNX Runtime fails, or no trial reached the bound.
    """
    began = time.perf_counter()
    _check_arguments(mode, bound)
    check_feeds(graph.inputs_in(source), feeds)
    with tempfile.TemporaryDirectory(prefix="reelmesh-int8-") as scratch:
        notify("prepare")
        bench = Bench(
            source, Path(scratch), target.name, mode, feeds, quality=quality, reduce_range=reduce_range, notify=notify
        )
        found = search(bench.prepared.nodes, bound, bench.try_without, bench.alone_db)
        if found.accepted is None:
            raise _missed(found, mode, len(bench.prepared.nodes), bound)
        notify("write")
        graph.place(bench.file_of(found.accepted), target)
    return _quantized(found, found.accepted, mode, len(bench.prepared.nodes), time.perf_counter() - began)


class Bench:
    """Makes and measures files for the search, in a scratch folder.

    Keeps the float file's outputs for all feeds in memory.
    """

    def __init__(
        self,
        source: Path,
        scratch: Path,
        name: str,
        mode: Mode,
        feeds: Sequence[Feed],
        *,
        quality: Quality | None,
        reduce_range: bool,
        notify: Notify,
    ) -> None:
        self._float = Runner(source)
        self._expected = [self._float.run(feed) for feed in feeds]
        self.prepared = graph.prepare(source, scratch, mode)
        self._name = name
        self._mode: Mode = mode
        self._feeds = feeds
        self._short = range(0, len(feeds), -(-len(feeds) // SHORT_RUNS))
        self._quality = quality
        self._reduce_range = reduce_range
        self._notify = notify
        self._files: dict[tuple[str, ...], Path] = {}
        self._made = 0

    def try_without(self, kept: tuple[str, ...]) -> Trial:
        """Score, time and weigh the file in which ``kept`` stay in float."""
        left = set(kept)
        nodes = [name for name in self.prepared.nodes if name not in left]
        self._notify(f"quantize {len(nodes)} of {len(self.prepared.nodes)} layers")
        file = self._files[kept] = self._make(nodes)
        runner = Runner(file)
        score = self._quality(file) if self._quality else self._snr_db(runner, range(len(self._feeds)))
        float_ms, ms = in_turns(self._float, runner, [self._feeds[index] for index in self._short])
        return Trial(
            kept_float=kept,
            quality=float("-inf") if math.isnan(score) else score,
            ms=ms,
            float_ms=float_ms,
            bytes=size_with_data(file),
        )

    def alone_db(self, nodes: tuple[str, ...]) -> float:
        """Outputs' signal-to-noise ratio in dB with ``nodes`` alone in INT8, over a few feeds."""
        self._notify(f"rank {nodes[0]}" if len(nodes) == 1 else f"rank {nodes[0]} to {nodes[-1]}")
        file = self._make(nodes)
        ratio = self._snr_db(Runner(file), self._short)
        shutil.rmtree(file.parent)
        return ratio

    def file_of(self, trial: Trial) -> Path:
        """The file that was measured."""
        return self._files[trial.kept_float]

    def _make(self, nodes: Sequence[str]) -> Path:
        self._made += 1
        file = self.prepared.file.parent / str(self._made) / self._name
        file.parent.mkdir()
        methods.write(self._mode, self.prepared, nodes, self._feeds, file, reduce_range=self._reduce_range)
        return file

    def _snr_db(self, runner: Runner, indices: range) -> float:
        return snr_db([self._expected[i] for i in indices], [runner.run(self._feeds[i]) for i in indices])


def _missed(found: Found, mode: Mode, layers: int, bound: float) -> EngineFailed:
    best = max(found.trials, key=lambda trial: trial.quality)
    names = ", ".join(best.kept_float[:NAMED]) + (", ..." if len(best.kept_float) > NAMED else "")
    kept = f"{len(best.kept_float)} of {layers} layers in float ({names})" if names else "no layer in float"
    return EngineFailed(
        f"INT8 ({mode}) reaches a quality of {best.quality:.4g} at best, with {kept}; {bound:.4g} is wanted",
        field="int8",
        fix="nothing was written; lower the bound, try another mode, or calibrate on more requests",
    )


def _check_arguments(mode: str, bound: float) -> None:
    if mode not in get_args(Mode):
        raise BadInput(f"no mode is called {mode!r}", field="mode", fix=f"use one of: {', '.join(get_args(Mode))}")
    if not math.isfinite(bound):
        fix = "give the least quality to accept, in dB or as the task scores it"
        raise BadInput(f"the bound is {bound}", field="bound", fix=fix)


def _quantized(found: Found, best: Trial, mode: Mode, layers: int, seconds: float) -> Quantized:
    return Quantized(
        mode=mode,
        kept_float=best.kept_float,
        nodes_quantized=layers - len(best.kept_float),
        quality=best.quality,
        ms=best.ms,
        float_ms=best.float_ms,
        bytes=best.bytes,
        seconds=seconds,
        trials=found.trials,
        sensitivity=found.sensitivity,
    )

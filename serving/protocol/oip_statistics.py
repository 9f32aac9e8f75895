"""ModelStatistics: what one replica counts of a version of a model, as the protocol's statistics show it.

The one invariant: requests are counted when they are answered, executions when a batch was; so with batching there are
fewer executions than requests. Times are kept in seconds and written in nanoseconds.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final

_NS: Final = 1e9


@dataclass(slots=True)
class Times:
    """Seconds of one batch or request, by phase.

    Args:
        queue_s: from the request's arrival to its batch's start.
        input_s: preparing the batch.
        infer_s: the engine's own work.
        output_s: handing out the answers.
    """

    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0


@dataclass(slots=True)
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def document(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.seconds * _NS)}


@dataclass(slots=True)
class _Phases:
    """The phases that both requests and batches have."""

    input: _Sum = field(default_factory=_Sum)
    infer: _Sum = field(default_factory=_Sum)
    output: _Sum = field(default_factory=_Sum)

    def add(self, times: Times) -> None:
        self.input.add(times.input_s)
        self.infer.add(times.infer_s)
        self.output.add(times.output_s)

    def document(self) -> dict[str, Any]:
        return {
            "compute_input": self.input.document(),
            "compute_infer": self.infer.document(),
            "compute_output": self.output.document(),
        }


@dataclass(slots=True)
class _Responses:
    """Of the n-th response of a decoupled model's requests."""

    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    empty: _Sum = field(default_factory=_Sum)

    def document(self) -> dict[str, Any]:
        nothing = _Sum().document()
        return {
            "compute_infer": self.success.document(),
            "compute_output": nothing,
            "success": self.success.document(),
            "fail": self.fail.document(),
            "empty_response": self.empty.document(),
            "cancel": nothing,
        }


@dataclass(slots=True)
class ModelStatistics:
    """Counts of one version of a model."""

    inferences: int = 0
    executions: int = 0
    last_unix_ms: int = 0
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    phases: _Phases = field(default_factory=_Phases)
    batches: dict[int, _Phases] = field(default_factory=dict)
    responses: dict[int, _Responses] = field(default_factory=dict)

    def succeeded(self, rows: int, seconds: float, times: Times) -> None:
        """One request of ``rows`` inferences was answered after ``seconds``."""
        self.inferences += rows
        self.last_unix_ms = int(time.time() * 1000)
        self.success.add(seconds)
        self.queue.add(times.queue_s)
        self.phases.add(times)

    def failed(self, seconds: float) -> None:
        """One request was answered with an error."""
        self.fail.add(seconds)

    def batch(self, rows: int, times: Times) -> None:
        """One batch was executed."""
        self.executions += 1
        self.batches.setdefault(rows, _Phases()).add(times)

    def response(self, index: int, seconds: float, outcome: str) -> None:
        """The ``index``-th response of a request came ``seconds`` after the one before: success, fail or empty."""
        counted: _Sum = getattr(self.responses.setdefault(index, _Responses()), outcome)
        counted.add(seconds)

    def document(self, name: str, version: str) -> dict[str, Any]:
        """One entry of ``model_stats``; a Ray replica has no response cache and no counts of memory by model."""
        nothing = _Sum().document()
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_unix_ms,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self.success.document(),
                "fail": self.fail.document(),
                "queue": self.queue.document(),
                **self.phases.document(),
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "response_stats": {str(index): each.document() for index, each in sorted(self.responses.items())},
            "batch_stats": [{"batch_size": rows, **phases.document()} for rows, phases in sorted(self.batches.items())],
            "memory_usage": [],
        }

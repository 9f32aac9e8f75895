"""Traces: timelines of chosen requests, written as Triton writes them; held by RayControl, fed by the plane.

The one invariant: the file never grows beyond :data:`MAX_BYTES`: the older half of it gives way.
"""

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import structlog

from serving.backends.ray.control_trace_settings import TraceSettings
from serving.protocol.oip import InferRequest
from serving.protocol.oip_statistics import Times

log = structlog.get_logger()

MAX_BYTES: Final = 16 << 20
"""Largest trace file."""
BUFFERED: Final = 256
"""Traces kept in memory before they are written, where ``log_frequency`` says nothing."""
MOST_BUFFERED: Final = 8192
"""The same, whatever ``log_frequency`` says."""
_NS: Final = 1_000_000_000


class Traces:
    """Traces of one replica.

    Args:
        file: where they go; its folder is made when the first is written.
    """

    def __init__(self, file: Path) -> None:
        self.settings = TraceSettings(file=str(file))
        self._file = file
        self._seen: Counter[str] = Counter()
        self._left: dict[str, int] = {}
        self._number = 0
        self._waiting: list[dict[str, Any]] = []
        self._writing = threading.Lock()
        self._active = False

    def change(self, settings: TraceSettings) -> None:
        """Trace by other settings from now on; counts begin anew."""
        self.settings = settings
        self._active = any(settings.timestamps(model) for model in ("", *settings.own))
        self._seen.clear()
        self._left.clear()

    def record(self, request: InferRequest, started_ns: int, times: Times) -> bool:
        """Take a finished request; whether :meth:`flush` should be called.

        Args:
            request: what was answered.
            started_ns: when it came, by ``time.monotonic_ns``.
            times: how long it waited and ran.
        """
        model = request.model_name
        if not self._active or not self.settings.timestamps(model) or not self._chosen(model):
            return False
        self._number += 1
        self._waiting.extend(timeline(self._number, request, started_ns, times))
        frequency = self.settings.number(model, "log_frequency")
        return len(self._waiting) // 2 >= min(frequency or BUFFERED, MOST_BUFFERED)

    def flush(self) -> None:
        """Write what waits; blocks."""
        with self._writing:
            waiting, self._waiting = self._waiting, []
            if not waiting:
                return
            try:
                kept = _read(self._file)
                write(self._file, [*kept, *waiting])
            except OSError as error:
                log.warning("traces_not_written", file=str(self._file), error=str(error))

    def _chosen(self, model: str) -> bool:
        """Every ``trace_rate``-th request, until ``trace_count`` were traced."""
        key = model if model in self.settings.own else ""
        self._seen[key] += 1
        if (self._seen[key] - 1) % self.settings.number(model, "trace_rate"):
            return False
        left = self._left.setdefault(key, self.settings.number(model, "trace_count"))
        if left == 0:
            return False
        self._left[key] = left - 1 if left > 0 else left
        return True


def timeline(number: int, request: InferRequest, started_ns: int, times: Times) -> list[dict[str, Any]]:
    """One trace as Triton's JSON has it: what it is of, then its timestamps in nanoseconds."""
    queued = started_ns
    began = queued + round(times.queue_s * _NS)
    fed = began + round(times.input_s * _NS)
    ran = fed + round(times.infer_s * _NS)
    ended = ran + round(times.output_s * _NS)
    stamps = (
        ("REQUEST_START", started_ns), ("QUEUE_START", queued), ("COMPUTE_START", began), ("COMPUTE_INPUT_END", fed),
        ("COMPUTE_OUTPUT_START", ran), ("COMPUTE_END", ended), ("REQUEST_END", max(ended, time.monotonic_ns())),
    )  # fmt: skip
    version = int(request.model_version) if request.model_version.isdigit() else 0
    head: dict[str, Any] = {"id": number, "model_name": request.model_name, "model_version": version}
    if request.id:
        head["request_id"] = request.id
    return [head, {"id": number, "timestamps": [{"name": name, "ns": ns} for name, ns in stamps]}]


def write(file: Path, entries: list[dict[str, Any]]) -> None:
    """Replace the file by one of these entries, the older ones left out where they are too many."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(entries)
    while len(text) > MAX_BYTES and len(entries) > 1:
        entries = entries[len(entries) // 4 * 2 or 1 :]
        text = json.dumps(entries)
    fresh = file.with_suffix(".part")
    fresh.write_text(text)
    fresh.replace(file)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    return found

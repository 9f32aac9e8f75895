"""Writes a run's figures and errors to a file when locust ends; imported by the locust files, read by
loadtests.runner.

The one invariant: without ``REELMESH_LOAD_REPORT`` in the environment nothing is written, so the files work
with plain locust too.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

from locust import events

VARIABLE: Final = "REELMESH_LOAD_REPORT"
"""Path of the file."""

_raised: Counter[str] = Counter()


def _count(exception: Exception, **_: object) -> None:
    """An error in a user's own code: locust logs it and counts it nowhere."""
    _raised[f"{type(exception).__name__}: {exception}"] += 1


def _write(environment: Any, **_: object) -> None:  # noqa: ANN401  locust's own
    target = os.environ.get(VARIABLE)
    if not target:
        return
    stats = environment.stats
    failed = [f"{error.occurrences} x {error.name}: {error.error}" for error in stats.errors.values()]
    raised = [f"{count} x {text}" for text, count in _raised.most_common()]
    report = {
        "started": stats.total.start_time,
        "ended": stats.total.last_request_timestamp or stats.total.start_time,
        "entries": stats.serialize_stats(),
        "problems": failed + raised,
    }
    Path(target).write_text(json.dumps(report), encoding="utf-8")


events.user_error.add_listener(_count)
events.quitting.add_listener(_write)

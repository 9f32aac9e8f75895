"""Options of the locust files, and the report that loadtests.runner reads; imported by every locust file.

The one invariant: without ``--report`` nothing is written, so the files work with plain locust too.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from locust import events

_raised: Counter[str] = Counter()


def _options(parser: Any, **_: object) -> None:  # noqa: ANN401  locust's own
    parser.add_argument("--report", default="", help="file to write figures and errors to")
    parser.add_argument("--models", default="", help="models to send to, comma-separated; empty means all")
    parser.add_argument("--mesh-key", default="", env_var="REELMESH_KEY", help="key of the mesh, where it asks for one")


def _bring_key(environment: Any, **_: object) -> None:  # noqa: ANN401  locust's own
    """Every request of every user carries the key."""
    if key := environment.parsed_options.mesh_key:
        for users in environment.user_classes:
            users.default_headers = {"Authorization": f"Bearer {key}"}


def _count(exception: Exception, **_: object) -> None:
    """An error in a user's own code: locust logs it and counts it nowhere."""
    _raised[f"{type(exception).__name__}: {exception}"] += 1


def _write(environment: Any, **_: object) -> None:  # noqa: ANN401  locust's own
    target = environment.parsed_options.report
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


events.init_command_line_parser.add_listener(_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_bring_key)  # type: ignore[no-untyped-call]
events.user_error.add_listener(_count)  # type: ignore[no-untyped-call]
events.quitting.add_listener(_write)  # type: ignore[no-untyped-call]

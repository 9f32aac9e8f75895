"""Merges several Prometheus text expositions into one; used by the edge, which answers /metrics for all replicas.

The one invariant: the result is a valid exposition (one block per family, no series twice), whatever the parts held.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

MAX_PART_CHARS: Final = 8 << 20
"""Longest part that is read; Triton with a hundred models writes about 200 kB."""

UNREADABLE: Final = "reelmesh_exposition_unreadable"
"""Gauge that stands, with the part's labels, for a part that could not be read."""


class Exposition(NamedTuple):
    """One part: the text a replica, Triton or HAProxy gave, and the labels that tell it from the others."""

    text: str
    labels: Mapping[str, str]


class _Family(NamedTuple):
    name: str
    kind: str
    help: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], Sample]


def merge_expositions(parts: Sequence[Exposition]) -> str:
    """One exposition of all parts, families sorted by name.

    A part's labels are added to each of its series and win over labels of the same name. Of two equal series the first
    is kept; a family keeps the type and help of the part that named it first. A part that cannot be read is left out
    and shows as :data:`UNREADABLE` 1.
    """
    families: dict[str, _Family] = {}
    for part in parts:
        try:
            metrics = _parse(part.text)
        except (ValueError, IndexError):
            broken = Metric(UNREADABLE, "Whether a part of this exposition could not be read.", "gauge")
            broken.add_sample(UNREADABLE, {}, 1)
            metrics = [broken]
        for metric in metrics:
            family = families.setdefault(metric.name, _Family(metric.name, metric.type, metric.documentation, {}))
            for sample in metric.samples:
                labelled = sample._replace(labels={**sample.labels, **part.labels})
                family.samples.setdefault((sample.name, frozenset(labelled.labels.items())), labelled)
    return "".join(_render(families[name]) for name in sorted(families))


def _parse(text: str) -> list[Metric]:
    """Families under the names the text gave them.

    The parser turns each counter into OpenMetrics' form, ``name`` with samples ``name_total``; Triton's and HAProxy's
    counters lack that suffix and must keep their names.
    """
    if len(text) > MAX_PART_CHARS:
        raise ValueError("too long")
    counters = set(re.findall(r"^# TYPE (\S+) counter\s*$", text, re.MULTILINE))
    metrics = list(text_string_to_metric_families(text))
    for metric in metrics:
        if metric.type == "counter" and metric.name not in counters:
            metric.name += "_total"
        elif metric.type == "counter":
            metric.samples = [sample._replace(name=metric.name) for sample in metric.samples]
    return metrics


def _render(family: _Family) -> str:
    kind = "untyped" if family.kind == "unknown" else family.kind
    documentation = family.help.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {family.name} {documentation}", f"# TYPE {family.name} {kind}"]
    lines += [_line(sample) for sample in family.samples.values()]
    return "\n".join(lines) + "\n"


def _line(sample: Sample) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(sample.labels.items()))
    labels = f"{{{pairs}}}" if pairs else ""
    stamp = "" if sample.timestamp is None else f" {int(float(sample.timestamp) * 1000)}"
    return f"{sample.name}{labels} {floatToGoString(sample.value)}{stamp}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

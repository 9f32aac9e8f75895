"""Findings about a field of config.pbtxt or model.yaml, with the line it stands on; used by the checks.

The one invariant: a finding about a field that is not written points to the nearest one around it that is.
"""

import re

from serving.repository.config_lines import line_of
from serving.repository.findings import Finding
from serving.repository.read import RawModel


def at_card(raw: RawModel, field: str, problem: str, fix: str, *, warning: bool = False) -> Finding:
    """A finding about a field of model.yaml."""
    location = tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", field))
    line = raw.card_lines.of(location)
    return Finding(raw.card_file, line, field, problem, fix, "warning" if warning else "error")


def at_config(raw: RawModel, field: str, problem: str, fix: str, *, warning: bool = False) -> Finding:
    """A finding about a field of config.pbtxt, for example ``ensemble_scheduling.step[1].input_map[0]``."""
    line = line_of(raw.config_text, field) or 1
    return Finding(raw.config_file, line, field, problem, fix, "warning" if warning else "error")

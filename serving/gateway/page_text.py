"""Words for numbers: durations, ages, sizes, progress; used by the pages and the command line.

The one invariant: pure functions of their arguments, in units a person reads at a glance.
"""

from datetime import UTC, datetime
from typing import Final

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0
_FEW_S: Final = 10
_NOW_S: Final = 5
_KILO: Final = 1000
_UNITS: Final = ("B", "kB", "MB", "GB")


def duration_text(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < _FEW_S:
        return f"{seconds:.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE):02d} s"
    return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE):02d} min"


def age_text(at: float, now: float) -> str:
    """``just now``, ``12 s ago``, ``3 min ago``, ``2 h ago``, ``5 days ago``."""
    age = max(0.0, now - at)
    if age < _NOW_S:
        return "just now"
    for bound, unit, name in ((_MINUTE, 1.0, "s"), (_HOUR, _MINUTE, "min"), (_DAY, _HOUR, "h")):
        if age < bound:
            return f"{int(age // unit)} {name} ago"
    days = int(age // _DAY)
    return f"{days} day{'s' if days > 1 else ''} ago"


def clock_text(at: float) -> str:
    """``2026-11-22T15:04:05Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bytes_text(size: int) -> str:
    """``512 B``, ``3.4 kB``, ``12 MB``."""
    value, power = float(size), 0
    while value >= _KILO and power < len(_UNITS) - 1:
        value, power = value / _KILO, power + 1
    digits = 0 if power == 0 or value >= _FEW_S else 1
    return f"{value:.{digits}f} {_UNITS[power]}"


def percent_text(percent: float) -> str:
    """``42 %`` of 42.9; 100 % only when all is done."""
    return f"{int(percent)} %"

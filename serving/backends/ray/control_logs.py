"""Log settings of a Ray replica, with OIP's names: read and changed over the control port; held by RayControl.

The one invariant: a change is checked whole before any of it is applied.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog
from pydantic import JsonValue

from serving.errors import BadInput, Unsupported, shown

Settings = dict[str, JsonValue]

FORMATS: Final = ("default", "ISO8601")
_FLAGS: Final = {"log_info": ("info",), "log_warning": ("warning",), "log_error": ("error", "critical")}
_MOST_VERBOSE: Final = 2**31 - 1


def initial(level: str) -> Settings:
    """The settings that ``log.level`` stands for."""
    order = ("debug", "info", "warning", "error")
    least = order.index(level)
    return {
        "log_file": "",
        "log_info": least <= order.index("info"),
        "log_warning": least <= order.index("warning"),
        "log_error": True,
        "log_verbose_level": 1 if level == "debug" else 0,
        "log_format": FORMATS[0],
    }


def changed(settings: Mapping[str, JsonValue], changes: Mapping[str, JsonValue]) -> Settings:
    """The settings after a change.

    Raises:
        BadInput: no such setting, or a value of the wrong kind.
        Unsupported: the file, which is not the network's to choose.
    """
    for name, value in changes.items():
        if name == "log_file":
            raise Unsupported("log file location can not be updated through network protocol", field=name)
        if name in _FLAGS:
            _check(isinstance(value, bool), name, value, "a boolean")
        elif name == "log_verbose_level":
            number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_VERBOSE
            _check(number, name, value, "a whole number from 0 up")
        elif name == "log_format":
            _check(value in FORMATS, name, value, " or ".join(FORMATS))
        else:
            raise BadInput(f"unrecognized log setting '{name[:64]}'", field=name[:64])
    return {**settings, **changes}


def silenced(settings: Mapping[str, JsonValue]) -> frozenset[str]:
    """Names of the log methods whose lines are dropped."""
    names = {name for flag, methods in _FLAGS.items() if not settings[flag] for name in methods}
    return frozenset(names | (set() if settings["log_verbose_level"] else {"debug"}))


class Silencer:
    """A structlog processor that drops the lines of some levels, whatever level the process was set up with."""

    def __init__(self) -> None:
        self.silent: frozenset[str] = frozenset()

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Drop the line or let it through, as structlog asks."""
        if method in self.silent or ("error" in self.silent and method == "exception"):
            raise structlog.DropEvent
        return event

    def install(self) -> None:
        """Stand before the processors of this process's logs, which then let every level through to here."""
        config = structlog.get_config()
        kept = [each for each in config["processors"] if not isinstance(each, Silencer)]
        structlog.configure(processors=[self, *kept], wrapper_class=structlog.make_filtering_bound_logger("debug"))


def _check(fits: bool, name: str, value: JsonValue, wanted: str) -> None:
    if not fits:
        raise BadInput(f"must be {wanted}, not {shown(value)}", field=name)

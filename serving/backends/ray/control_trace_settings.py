"""Trace settings of a Ray replica, with OIP's names, for all models and for each; held by RayControl.

The one invariant: pure; a change is checked whole before any of it counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import JsonValue

from serving.errors import BadInput, Unsupported, shown

LEVELS: Final = ("OFF", "TIMESTAMPS", "TENSORS")
INITIAL: Final[Mapping[str, JsonValue]] = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
"""Triton's own defaults."""
_LEAST: Final = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}
_MOST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What is traced.

    Args:
        common: settings for every model, all of them.
        own: by model, those that differ.
        file: where traces are written; told, never taken from the network.
    """

    common: Mapping[str, JsonValue] = field(default_factory=lambda: dict(INITIAL))
    own: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    file: str = ""

    def of(self, model: str) -> dict[str, JsonValue]:
        """The settings in force for a model, or (empty name) for those without their own."""
        return {**self.common, **self.own.get(model, {}), "trace_file": self.file}

    def changed(self, model: str, changes: Mapping[str, JsonValue]) -> "TraceSettings":
        """The settings after a change; null takes a setting back to what it would be without.

        Raises:
            BadInput: no such setting, or a wrong value.
            Unsupported: the file or the mode, which are not the network's to choose.
        """
        values = {name: _value(name, value) for name, value in changes.items()}
        if not model:
            common = {
                **self.common,
                **{name: INITIAL[name] if value is None else value for name, value in values.items()},
            }
            return replace(self, common=common)
        own = {**self.own.get(model, {}), **values}
        kept = {name: value for name, value in own.items() if value is not None}
        return replace(self, own={**self.own, model: kept})

    def timestamps(self, model: str) -> bool:
        """Whether requests of the model are traced."""
        levels = self.of(model)["trace_level"]
        return isinstance(levels, list) and "TIMESTAMPS" in levels

    def number(self, model: str, name: str) -> int:
        """One of the settings that are numbers."""
        return int(str(self.of(model)[name]))


def _value(name: str, value: JsonValue) -> JsonValue:
    if name == "trace_file":
        raise Unsupported("trace file location can not be updated through network protocol", field=name)
    if name == "trace_mode":
        raise Unsupported("trace mode can not be updated through network protocol", field=name)
    if name not in INITIAL:
        raise BadInput(f"unrecognized trace setting '{name[:64]}'", field=name[:64])
    if value is None:
        return None
    return _levels(value) if name == "trace_level" else _number(name, value)


def _levels(value: JsonValue) -> list[JsonValue]:
    asked: list[JsonValue] = value if isinstance(value, list) else [value]
    for level in asked:
        if level not in LEVELS:
            raise BadInput(f"must be {', '.join(LEVELS)}, not {shown(level)}", field="trace_level")
    if not asked or len(asked) > len(LEVELS):
        raise BadInput(f"must be 1 to {len(LEVELS)} of {', '.join(LEVELS)}", field="trace_level")
    return asked


def _number(name: str, value: JsonValue) -> str:
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    try:
        number = int(text) if isinstance(text, str | int) and not isinstance(text, bool) else None
    except ValueError:
        number = None
    if number is None or not _LEAST[name] <= number <= _MOST:
        raise BadInput(f"must be a whole number from {_LEAST[name]} up, not {shown(value)}", field=name)
    return str(number)

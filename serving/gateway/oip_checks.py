"""Checks of what clients ask of the control plane: names, settings, regions; used by ControlPlane.

The one invariant: pure functions; what passes is safe to send to every replica, and a refusal names the field.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

from serving.errors import BadInput, Unsupported, shown
from serving.protocol.oip import MAX_NAME_CHARS

Json = Mapping[str, JsonValue]

MAX_SETTING_CHARS: Final = 1024

_LOG_FLAGS: Final = ("log_info", "log_warning", "log_error")
_LOG_FORMATS: Final = ("default", "ISO8601")
_TRACE_LEVELS: Final = ("OFF", "TIMESTAMPS", "TENSORS", "MIN", "MAX")
_TRACE_NUMBERS: Final = ("trace_rate", "trace_count", "log_frequency")
_INTEGER: Final = re.compile(r"-?[0-9]{1,10}")
_VERBOSE_END: Final = 2**31
_SIZE_END: Final = 2**64
_DEVICE_END: Final = 2**31


def check_model_name(name: str) -> str:
    """A model's name that can stand in a path and be a folder's name; raises :class:`BadInput`."""
    return _check_name(name, "model name")


def check_region_name(name: str) -> str:
    """The name of a shared-memory region; raises :class:`BadInput`."""
    return _check_name(name, "region name")


def unload_dependents(parameters: Json) -> bool:
    """Whether an unload takes an ensemble's steps along; raises :class:`BadInput`."""
    wanted = parameters.get("unload_dependents", False)
    if not isinstance(wanted, bool):
        raise BadInput("must be a boolean", field="parameters.unload_dependents")
    return wanted


def log_changes(changes: Json) -> dict[str, JsonValue]:
    """Changes of the log settings; raises :class:`BadInput`, and :class:`Unsupported` for the file's place."""
    for name, value in changes.items():
        if name == "log_file":
            raise Unsupported("log file location can not be updated through network protocol", field=name)
        if name in _LOG_FLAGS:
            if not isinstance(value, bool):
                raise BadInput("must be a boolean", field=name)
        elif name == "log_verbose_level":
            _check_size(value, name, _VERBOSE_END)
        elif name == "log_format":
            if value not in _LOG_FORMATS:
                raise BadInput(f"invalid argument for log_format, got: {shown(value)}", field=name)
        else:
            raise BadInput(f"{shown(name)} is no log setting", field="log settings")
    return dict(changes)


def trace_changes(changes: Json) -> dict[str, JsonValue]:
    """Changes of the trace settings, null clears one; raises as :func:`log_changes` does."""
    for name, value in changes.items():
        if name == "trace_file":
            raise Unsupported("trace file location can not be updated through network protocol", field=name)
        if name == "trace_level":
            levels = [value] if isinstance(value, str) else value
            if levels is not None and not (isinstance(levels, list) and all(each in _TRACE_LEVELS for each in levels)):
                raise BadInput(f"must be of {', '.join(_TRACE_LEVELS)}", field=name)
        elif name in _TRACE_NUMBERS:
            if value is not None and not (isinstance(value, str) and _INTEGER.fullmatch(value)):
                raise BadInput(f"Unable to parse '{name}', got: {shown(value)}", field=name)
        elif name == "trace_mode":
            if not isinstance(value, str) or len(value) > MAX_SETTING_CHARS:
                raise BadInput("must be a string", field=name)
        else:
            raise BadInput(f"{shown(name)} is no trace setting", field="trace settings")
    return dict(changes)


def region_body(kind: str, body: Json) -> dict[str, JsonValue]:
    """What registers a region; raises :class:`BadInput`.

    Args:
        kind: ``system`` or ``cuda``.
        body: ``key``, ``offset`` and ``byte_size``, or ``raw_handle``, ``device_id`` and ``byte_size``.
    """
    required = ("key", "byte_size") if kind == "system" else ("raw_handle", "device_id", "byte_size")
    for name in required:
        if name not in body:
            raise BadInput(f"Shared memory register request has no '{name}' field", field=name)
    checked: dict[str, JsonValue] = {"byte_size": _check_size(body["byte_size"], "byte_size", _SIZE_END)}
    if kind == "system":
        checked["offset"] = _check_size(body.get("offset", 0), "offset", _SIZE_END)
        return checked | {"key": _check_name(body["key"], "key", slash=True)}
    checked["device_id"] = _check_size(body["device_id"], "device_id", _DEVICE_END)
    handle = body["raw_handle"]
    text = handle.get("b64") if isinstance(handle, dict) else None
    _check_base64(text, "raw_handle.b64")
    return checked | {"raw_handle": {"b64": text}}


def _check_name(name: Any, field: str, *, slash: bool = False) -> str:  # noqa: ANN401  JSON
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS:
        raise BadInput(f"must be a string of 1 to {MAX_NAME_CHARS} characters", field=field)
    bare = name[1:] if slash and name.startswith("/") else name
    if bare in ("", ".", "..") or "/" in bare or "\\" in bare or not bare.isprintable():
        raise BadInput(f"{shown(name)} must hold no path and no control character", field=field)
    return name


def _check_base64(text: Any, field: str) -> None:  # noqa: ANN401  JSON
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadInput("must be a string in base64", field=field) from error


def _check_size(value: JsonValue, field: str, end: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise BadInput(f"must be an integer from 0 to {end - 1}", field=field)
    return value

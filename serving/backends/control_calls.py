"""Calls of the control plane that the edge remembers, as a starting replica repeats them.

The one invariant: pure; a path that is none of the control plane's is told as none.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from serving.backends.control import Json
from serving.protocol.control import ControlCall

_MODEL_CALL: Final = re.compile(r"/v2/repository/models/(?P<name>[^/]+)/(?P<verb>load|unload)")
_REGION_CALL: Final = re.compile(r"/v2/systemsharedmemory/region/(?P<name>[^/]+)/register")
_LET_GO_CALL: Final = re.compile(r"/v2/systemsharedmemory/region/(?P<name>[^/]+)/unregister")
_TRACE_CALL: Final = re.compile(r"/v2/(models/(?P<name>[^/]+)/)?trace/setting")


class ModelCall(NamedTuple):
    """A remembered call about a model: its name, whether it loads or unloads it, and how."""

    name: str
    load: bool
    parameters: Json


def model_call(call: ControlCall) -> ModelCall | None:
    """What a remembered call says of a model; None for other calls."""
    match = _MODEL_CALL.fullmatch(call.path)
    if match is None:
        return None
    parameters = call.body.get("parameters")
    return ModelCall(
        unquote(match["name"]), match["verb"] == "load", parameters if isinstance(parameters, dict) else {}
    )


def region_call(call: ControlCall) -> str | None:
    """The region of system shared memory that a remembered call registers; None for other calls."""
    match = _REGION_CALL.fullmatch(call.path)
    return None if match is None else unquote(match["name"])


def let_go_call(call: ControlCall) -> str | None:
    """The region of system shared memory that a call unregisters; None for other calls."""
    match = _LET_GO_CALL.fullmatch(call.path)
    return None if match is None else unquote(match["name"])


def trace_call(call: ControlCall) -> str | None:
    """The model whose trace settings a remembered call sets, empty for all; None for other calls."""
    match = _TRACE_CALL.fullmatch(call.path)
    return None if match is None else unquote(match["name"] or "")


def sets_logs(call: ControlCall) -> bool:
    """Whether a remembered call sets the log."""
    return call.path == "/v2/logging"

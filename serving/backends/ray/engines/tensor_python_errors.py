"""What a python-backend ``model.py`` says of errors and writes into the log; used by tensor_python.

The one invariant: an error keeps its meaning both ways: from a model to its client, and from a model that it called.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import structlog

from serving.errors import (
    BadInput,
    Cancelled,
    Conflict,
    EngineFailed,
    NotFound,
    ReelmeshError,
    Unavailable,
    Unsupported,
)


class TritonError:
    """An error that a response carries."""

    UNKNOWN: ClassVar[int] = 0
    INTERNAL: ClassVar[int] = 1
    NOT_FOUND: ClassVar[int] = 2
    INVALID_ARG: ClassVar[int] = 3
    UNAVAILABLE: ClassVar[int] = 4
    UNSUPPORTED: ClassVar[int] = 5
    ALREADY_EXISTS: ClassVar[int] = 6
    CANCELLED: ClassVar[int] = 7

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = str(message)
        self._code = code

    def message(self) -> str:
        """What went wrong."""
        return self._message

    def code(self) -> int:
        """One of the constants of this class."""
        return self._code

    def __str__(self) -> str:
        """The message."""
        return self._message


_KINDS: Final[Mapping[int, type[ReelmeshError]]] = {
    TritonError.NOT_FOUND: NotFound,
    TritonError.INVALID_ARG: BadInput,
    TritonError.UNAVAILABLE: Unavailable,
    TritonError.UNSUPPORTED: Unsupported,
    TritonError.ALREADY_EXISTS: Conflict,
    TritonError.CANCELLED: Cancelled,
}


def as_error(error: TritonError) -> ReelmeshError:
    """The mesh's error of the same meaning; a model's own words stay whole, up to 4096 characters."""
    return _KINDS.get(error.code(), EngineFailed)(error.message()[:4096])


def as_triton(error: ReelmeshError) -> TritonError:
    """The error that a model sees of a call it made."""
    codes = {kind: code for code, kind in _KINDS.items()}
    code = next((codes[kind] for kind in type(error).__mro__ if kind in codes), TritonError.INTERNAL)
    return TritonError(str(error), code)


class TritonModelException(Exception):
    """Raised by models, and by calls to others."""


class Logger:
    """Writes into the replica's log."""

    INFO, WARNING, ERROR, VERBOSE = "info", "warning", "error", "debug"

    def __init__(self, model: str) -> None:
        self._log = structlog.get_logger().bind(model=model)

    def log(self, message: str, level: str = INFO) -> None:
        """Write a message with one of the levels of this class."""
        writers: Mapping[str, Callable[..., Any]] = {
            self.INFO: self._log.info, self.WARNING: self._log.warning,
            self.ERROR: self._log.error, self.VERBOSE: self._log.debug,
        }  # fmt: skip
        writers.get(level, self._log.info)("model_log", text=str(message)[:4096])

    def log_info(self, message: str) -> None:
        """Level info."""
        self.log(message, self.INFO)

    def log_warn(self, message: str) -> None:
        """Level warning."""
        self.log(message, self.WARNING)

    def log_error(self, message: str) -> None:
        """Level error."""
        self.log(message, self.ERROR)

    def log_verbose(self, message: str) -> None:
        """Level debug."""
        self.log(message, self.VERBOSE)

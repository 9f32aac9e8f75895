"""Errors in the protocol's words: texts, statuses and the unknown-model errors; used by OIP servers and
gateway.

The one invariant: an OIP error body is ``{"error": "<text>"}``, whose texts follow Triton's where Triton
has one.
"""

from collections.abc import Sequence

from serving.errors import BadInput, NotFound, ReelmeshError


def error_text(error: ReelmeshError) -> str:
    """One line for the client; the field is left out where the problem already names it."""
    if error.field and error.field in error.problem:
        return ": ".join(part for part in (error.problem, error.fix) if part)
    return str(error)


def error_body(error: ReelmeshError) -> dict[str, str]:
    """The JSON body of an error."""
    return {"error": error_text(error)}


def wrong_method_body(method: str, path: str, allowed: str) -> dict[str, str]:
    """The JSON body of a 405: a call that there is, asked for by another method; ``allowed`` stands in Allow too."""
    return {"error": f"{method[:16]} {path[:200]}: the method is not allowed: use {allowed}"}


def unknown_model(name: str, version: str = "") -> NotFound:
    """The error for a model, or a version of it, that is not served."""
    asked = f"'{name[:256]}' version {version[:32]}" if version else f"'{name[:256]}'"
    return NotFound(f"Request for unknown model: {asked} is not found")


def check_version(name: str, version: str, served: Sequence[str]) -> str:
    """The version asked for, or the newest; raises :class:`BadInput` or :class:`NotFound`."""
    if not version:
        return max(served, key=int)
    if not (version.isascii() and version.isdigit()):
        raise BadInput(
            f"failed to get model version from specified version string '{version[:32]}'",
            field="model_version",
            fix="it must be an integral value greater than 0",
        )
    if version not in served:
        raise unknown_model(name, version)
    return version

"""The control plane inside the mesh: what the gateway asks of replicas and the edge remembers; sent by Ray and by HTTP.

The one invariant: a replica's control port speaks OIP's own control paths (model repository, shared memory, log and
trace settings), behind a token that only the mesh knows; whatever was asked of all replicas is remembered by the edge
and repeated by a replica that starts later.
"""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

TOKEN_HEADER: Final = "x-reelmesh-control"  # noqa: S105  a header's name
"""HTTP header that carries :attr:`Control.token` on a replica's control port."""

UNLOADED: Final = "unloaded"
"""Triton's reason for a model that was unloaded on purpose."""

State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Control(_Message):
    """A replica's control port: its ``host:port``, and the token it wants in :data:`TOKEN_HEADER`."""

    address: str = Field(pattern=r"^[0-9A-Za-z.\-\[\]:]+:\d{1,5}$")
    token: str = Field(repr=False)


class ModelState(_Message):
    """One line of a repository index: a model's version, its state, and why it is not READY."""

    name: str
    version: str = ""
    state: State
    reason: str = ""


class ControlCall(_Message):
    """One call of the control plane that replicas starting later must repeat.

    Args:
        key: what it sets, for example ``model/NAME``, ``system/REGION``, ``logging``, ``trace/NAME``; a later call
            with the same key takes its place.
        path: OIP's path, for example ``/v2/repository/models/NAME/load``.
        body: its JSON body.
    """

    key: str = Field(min_length=1, max_length=600)
    path: str
    body: dict[str, JsonValue] = {}

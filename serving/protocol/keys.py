"""What a bearer key allows, and the headers that tell it behind the edge; used by the edge and the gateway.

The one invariant: HAProxy alone sees keys, and deletes these headers from what clients send; so whoever finds them on a
request that came through the edge may believe them. A request without them came to a mesh that asks for no keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from serving.protocol.licences import COMMERCIAL, Use, use_of

KEY_HEADER: Final = "x-reelmesh-key"
"""The name of the key that a request came with."""
GRANT_HEADER: Final = "x-reelmesh-grant"
"""What the key allows, as :meth:`Grant.text` writes it."""

Calls = Literal["infer", "jobs", "control", "metrics"]
"""infer: inference and reading of models; jobs: that, jobs and pages; control: everything; metrics: metrics alone."""
CALLS: Final[tuple[Calls, ...]] = get_args(Calls)
EVERY_MODEL: Final = "*"

_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "infer": frozenset({"infer"}),
    "jobs": frozenset({"infer", "jobs"}),
    "control": frozenset(CALLS),
    "metrics": frozenset({"metrics"}),
}
"""Kinds of calls that each value of ``calls`` includes."""

CONTROL_METHODS: Final = frozenset(
    {
        "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings",
        "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    }
)  # fmt: skip
"""Methods of OIP's gRPC service that need ``control``. Shared memory is the host's own, so it is among them."""
OPEN_METHODS: Final = frozenset({"ServerLive", "ServerReady"})
"""Methods that need no key."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one key allows.

    Args:
        name: of the key.
        calls: which calls.
        models: names, and beginnings of names that end in ``*``; :data:`EVERY_MODEL` alone is every model.
        use: what whoever has it works for; it travels in a header of its own, :data:`USE_HEADER`.
    """

    name: str
    calls: Calls
    models: tuple[str, ...] = (EVERY_MODEL,)
    use: Use = COMMERCIAL

    @property
    def text(self) -> str:
        """``infer/flux-*,whisper``, as the edge's map and the header have it."""
        return f"{self.calls}/{','.join(self.models)}"


def may(grant: Grant | None, call: str, model: str | None = None) -> bool:
    """Whether a request may do what it asks for.

    Args:
        grant: what its key allows; None where the mesh asks for no keys.
        call: one of :data:`CALLS`.
        model: the model it is about; "" for all models at once, None where it is about none.
    """
    if grant is None:
        return True
    if call not in _ALLOWED[grant.calls]:
        return False
    return model is None or any(_matches(pattern, model) for pattern in grant.models)


def call_of(method: str) -> Calls:
    """The kind of call that a method of OIP's gRPC service is."""
    return "control" if method in CONTROL_METHODS else "infer"


def grant_of(headers: Mapping[str, str]) -> Grant | None:
    """The grant in a request's headers or metadata, whose names are in lower case; None without keys.

    A header that is not as the edge writes it grants nothing.
    """
    name, text = headers.get(KEY_HEADER), headers.get(GRANT_HEADER)
    if name is None and text is None:
        return None
    calls, _, models = (text or "").partition("/")
    found = next((known for known in CALLS if known == calls), None)
    if name is None or found is None:
        return Grant(name or "", "metrics", ())
    return Grant(name, found, tuple(filter(None, models.split(","))), use_of(headers))


def _matches(pattern: str, model: str) -> bool:
    if pattern.endswith(EVERY_MODEL):
        return model.startswith(pattern[: -len(EVERY_MODEL)])
    return model == pattern

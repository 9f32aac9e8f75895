"""What the template of HAProxy's rules on keys is filled with; used by config.

The one invariant: which key may do what is decided by serving.protocol.keys alone, and here only written out.
"""

from collections.abc import Mapping
from typing import Any, Final

from serving.edge.key_maps import BEGINNINGS_MAP, KEYS_MAP, MODELS_MAP
from serving.errors import Forbidden, RateLimited, ReelmeshError, Unauthenticated
from serving.protocol.keys import CALLS, CONTROL_METHODS, GRANT_HEADER, KEY_HEADER, OPEN_METHODS, Grant, may
from serving.protocol.licences import NON_COMMERCIAL, USE_HEADER
from serving.protocol.oip_grpc import SERVICE

OPEN_PATHS: Final = ("/v2/health/live", "/v2/health/ready", "/healthz")
"""Paths that need no key."""
_CHALLENGE: Final = "hdr WWW-Authenticate 'Bearer realm=\"reelmesh\"'"
_REFUSALS: Final[Mapping[str, tuple[type[ReelmeshError], str, str]]] = {
    "anonymous": (
        Unauthenticated,
        "the request has no key: send the header Authorization: Bearer KEY",
        _CHALLENGE,
    ),
    "unknown": (Unauthenticated, "the mesh does not know the key of this request", _CHALLENGE),
    "calls": (Forbidden, "the key %[var(txn.who)] may not make %[var(txn.need)] calls", ""),
    "model": (Forbidden, "the key %[var(txn.who)] may not use this model", ""),
    "rate": (RateLimited, "the key %[var(txn.who)] may make %[var(txn.rate)] requests a second", "hdr Retry-After 1"),
}
"""Error, text in HAProxy's log format, and headers, for each reason."""
GRPC_CODES: Final = {"PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "UNAUTHENTICATED": 16}


def key_rules(*, keys: bool) -> dict[str, Any]:
    """Values for haproxy_keys.cfg.j2.

    Args:
        keys: whether keys are asked for.
    """
    return {
        "keys": keys,
        "key_header": KEY_HEADER,
        "grant_header": GRANT_HEADER,
        "keys_map": KEYS_MAP,
        "models_map": MODELS_MAP,
        "beginnings_map": BEGINNINGS_MAP,
        "allowed": [f"{calls}/{need}" for calls in CALLS for need in CALLS if may(Grant("", calls), need)],
        "open_paths": OPEN_PATHS,
        "open_methods": [f"/{SERVICE}/{method}" for method in sorted(OPEN_METHODS)],
        "control_methods": [f"/{SERVICE}/{method}" for method in sorted(CONTROL_METHODS)],
        "refusals": _REFUSALS,
        "use_header": USE_HEADER,
        "non_commercial": NON_COMMERCIAL,
        "basic": " hdr WWW-Authenticate 'Basic realm=\"reelmesh\"'",
        "grpc_codes": GRPC_CODES,
    }

"""Keys of a store's objects: bytes, and what lies beside them; used by the store and by retention.

The one invariant: everything that belongs to an artifact begins with the key of its bytes.
"""

import re
from typing import Final, Literal

Beside = Literal["", ".provenance.json", ".expiring", ".removing"]
"""The bytes themselves, their provenance, and the two marks of retention."""

PROVENANCE: Final[Beside] = ".provenance.json"
EXPIRING: Final[Beside] = ".expiring"
"""Nothing refers to the bytes: they go after the time of grace, unless somebody asks for them before."""
REMOVING: Final[Beside] = ".removing"
"""The keeper is removing the bytes now."""
_KEY: Final = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})(|\.provenance\.json|\.expiring|\.removing)")


def object_key(sha256: str, beside: Beside = "") -> str:
    """Where an artifact lies in the store: fanned out by the first two hex digits, 256 folders."""
    return f"{sha256[:2]}/{sha256}{beside}"


def read_key(key: str) -> tuple[str, Beside] | None:
    """The artifact that a key belongs to, and what lies there; None for what is not the store's."""
    found = _KEY.fullmatch(key)
    return (found[2], found[3]) if found else None  # type: ignore[return-value]  # the pattern's own alternatives

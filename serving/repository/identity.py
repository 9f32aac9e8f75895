"""Identity: which model a request goes to, as exactly as its results depend on it; given out by the router.

The one invariant: two identities are equal only when equal requests give equal results.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Final

from serving.repository.model import Adapter, Component, License, Model, Source

_SAME_RESULTS: Final = frozenset(
    {"description", "replica_group", "license", "memory", "share", "replicas", "load_time_s", "run_time_s", "warm_up"}
    | {"fallback", "aliases", "default", "limits", "languages", "optional", "gaps"}
)
"""What a card says that no result depends on."""
_FIXED: Final = frozenset({"builtin", "wheel", "export", "mlflow"})
_COMMIT: Final = re.compile("[0-9a-f]{40}")
BUILTIN: Final = "builtin:"
"""Where the weights of engines come from that are part of the software."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A model and its revision.

    Attributes:
        model: its name in the repository.
        source: where its weights come from.
        revision: of the weights, as its card says.
        digest: SHA-256 over everything of the card and the files' versions that results depend on.
        license: SPDX identifier, or the licence's own name.
        commercial_use: ``True``, ``False`` or ``conditional``.
        condition: of a conditional licence.
        others: weights beside the model's own that take part: its parts, and the adapter of the request.
        pinned: whether what the source says can only ever mean the same bytes; a branch of the hub moves.
    """

    model: str
    source: str
    revision: str | None
    digest: str
    license: str
    commercial_use: bool | str
    condition: str | None = None
    others: tuple["Identity", ...] = ()
    pinned: bool = True

    @property
    def is_fixed(self) -> bool:
        """Whether the same identity is the same weights tomorrow; results of others are found in no cache."""
        return self.pinned and all(other.pinned for other in self.others)

    @property
    def is_own_code(self) -> bool:
        """Whether the model is part of the software, so that the software's version is its revision."""
        return self.source.startswith(BUILTIN)


def identity_of(model: Model, adapter: str | None = None) -> Identity:
    """Of a model of the repository, as a request asks it.

    Args:
        model: checked.
        adapter: the fine-tune that the request names.
    """
    card = model.card
    told = {
        "name": model.name,
        "versions": model.versions,
        "card": card.model_dump(mode="json", exclude=set(_SAME_RESULTS)),
    }
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    beside: dict[str, Component | Adapter] = {**card.parts}
    if adapter is not None and adapter in card.adapters:
        beside[adapter] = card.adapters[adapter]
    others = [
        _identity(f"{model.name}/{name}", each.source, digest, each.license or card.license)
        for name, each in beside.items()
    ]
    return replace(_identity(model.name, card.source, digest, card.license), others=tuple(others))


def _identity(name: str, source: Source, digest: str, terms: License) -> Identity:
    return Identity(
        model=name,
        source=source.uri,
        revision=source.revision,
        digest=digest,
        license=terms.name,
        commercial_use=terms.commercial_use,
        condition=terms.condition,
        pinned=is_pinned(source),
    )


def is_pinned(source: Source) -> bool:
    """Whether a source names bytes, and no place whose content moves.

    A commit of the hub, a version of MLflow's registry, a digest, and what is part of the software do; a revision that
    a person wrote for a folder, a bucket or a DVC checkout is taken at their word.
    """
    scheme = source.uri.partition(":")[0]
    if source.sha256 is not None or scheme in _FIXED:
        return True
    if scheme == "hf":
        return _COMMIT.fullmatch(source.revision or "") is not None
    return source.revision is not None

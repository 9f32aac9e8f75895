"""OipMesh: the mesh as one OIP server: who serves which model, what is ready; used by the gateway's OIP routes.

The one invariant: it holds no state of its own; every answer follows from the edge's endpoints at that moment.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from serving.errors import BadInput, Unavailable
from serving.protocol.endpoint import ANY_MODEL, Endpoint
from serving.protocol.oip_errors import unknown_model
from serving.protocol.oip_json import parse_object
from serving.protocol.oip_metadata import EXTENSIONS, server_metadata

Endpoints = Callable[[], Awaitable[Sequence[Endpoint]]]

MESH_EXTENSIONS: Final = (*EXTENSIONS, "model_repository")
INDEX_BODY_BYTES: Final = 64 << 10


class OipMesh:
    """Looks at the edge's endpoints.

    Args:
        endpoints: asks the edge.
        expected: names of the models this mesh was asked to serve; it is ready when each has a replica.
    """

    def __init__(self, endpoints: Endpoints, expected: Collection[str] = ()) -> None:
        self._endpoints = endpoints
        self._expected = frozenset(expected)

    async def find(self, model: str, version: str = "") -> Endpoint:
        """A replica of the model, picked at random among those that serve the version.

        Raises:
            NotFound: the mesh has no such model.
            Unavailable: it has, but no replica answers at the moment.
        """
        replicas = [endpoint for endpoint in await self.replicas() if endpoint.model == model]
        if not replicas:
            if model in self._expected:
                raise Unavailable(f"no replica of the model '{model}' answers", fix="try again in a moment")
            raise unknown_model(model, version)
        # A replica that names no version decides by itself, and answers in its own words when it has no such version.
        return random.choice([each for each in replicas if each.version in ("", version)] or replicas)

    async def replicas(self) -> list[Endpoint]:
        """Every endpoint of a model."""
        return [endpoint for endpoint in await self._endpoints() if endpoint.model != ANY_MODEL]

    async def missing(self) -> list[str]:
        """Expected models without a replica."""
        return sorted(self._expected - {endpoint.model for endpoint in await self.replicas()})

    async def index(self, only_ready: bool = False) -> list[dict[str, str]]:
        """The repository index: one entry for each model and version."""
        ready = {(endpoint.model, endpoint.version or "1") for endpoint in await self.replicas()}
        entries = [
            {"name": name, "version": version, "state": "READY", "reason": ""} for name, version in sorted(ready)
        ]
        if only_ready:
            return entries
        gone = [{"name": name, "state": "UNAVAILABLE", "reason": "no replica answers"} for name in await self.missing()]
        return sorted([*entries, *gone], key=lambda entry: (entry["name"], entry.get("version", "")))

    def metadata(self) -> dict[str, Any]:
        """The answer to ``GET /v2`` for the whole mesh."""
        return server_metadata(MESH_EXTENSIONS)


def index_wants_ready(body: bytes) -> bool:
    """What the body of a repository index request says of ``ready``."""
    wanted = parse_object(body, "request body").get("ready", False) if body.strip() else False
    if not isinstance(wanted, bool):
        raise BadInput("must be a boolean", field="ready")
    return wanted


def merge_statistics(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of several replicas as one: counts add up, the last inference is the latest."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for document in documents:
        for entry in document.get("model_stats", []):
            key = (str(entry.get("name", "")), str(entry.get("version", "")))
            merged[key] = _sum(merged[key], entry) if key in merged else entry
    return {"model_stats": [merged[key] for key in sorted(merged)]}


def _sum(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    total = dict(left)
    for name, value in right.items():
        mine: Any = total.get(name)
        if name == "last_inference":
            total[name] = max(int(mine or 0), int(value))
        elif isinstance(value, dict) and isinstance(mine, dict):
            total[name] = _sum(mine, value)
        elif type(value) is type(mine) and type(value) in (int, list):
            total[name] = mine + value
    return total

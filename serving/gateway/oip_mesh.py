"""OipMesh: the mesh as one OIP server: who serves which model, what is ready; used by the gateway's OIP routes.

The one invariant: what it tells follows from the last heartbeats; it remembers nothing but the places of sequences.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from serving.errors import NotFound, Unavailable
from serving.gateway.edge_client import Edge
from serving.gateway.oip_checks import check_model_name
from serving.gateway.oip_index import Entry, merge_index, missing_models
from serving.gateway.oip_sequences import SequenceBook
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.licences import COMMERCIAL, Use, refusal_of
from serving.protocol.oip_errors import unknown_model
from serving.protocol.oip_metadata import server_metadata

EXTENSIONS: Final = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
    "generate",
)
"""In Triton's names and order; what Triton has beside them is core to the protocol."""

TRIES: Final = 3
"""Replicas asked for one request, as long as none has seen it."""

Find = Callable[[Collection[str]], Awaitable[Endpoint]]
"""Finds a replica other than those of the gRPC addresses, which could not be reached."""


class OipMesh:
    """Looks at the living replicas.

    Args:
        edge: knows them.
        requested: models this mesh was asked to serve; it is ready when each is.
        known: every model of the repository.
    """

    def __init__(self, edge: Edge, requested: Collection[str] = (), known: Collection[str] = ()) -> None:
        self.edge = edge
        self._requested = frozenset(requested)
        self._known = frozenset(known)
        self._sequences = SequenceBook()

    async def find(
        self, model: str, version: str = "", sequence: str | None = None, avoid: Collection[str] = ()
    ) -> Endpoint:
        """A replica that serves the version, or the newest.

        Args:
            model: its name.
            version: empty for the newest.
            sequence: id of the sequence the request belongs to; None picks at random.
            avoid: gRPC addresses that do not answer, taken only where there are no others.

        Raises:
            NotFound: the mesh has no such model.
            Unavailable: it has, but no replica answers at the moment.
        """
        found = serving_version(await self.serving(model, version), version)
        replicas = [replica for replica in found if replica.grpc not in avoid] or found
        return random.choice(replicas) if sequence is None else self._sequences.pick(sequence, replicas)

    async def serving(self, model: str, version: str = "") -> list[Endpoint]:
        """Every endpoint of the model; raises as :meth:`find` does."""
        check_model_name(model)
        for fresh in (False, True):
            replicas = await self.edge.replicas(fresh=fresh)
            found = [each for replica in replicas for each in replica.endpoints if each.model == model]
            if found:
                return found
        states = [state for replica in replicas for state in replica.models if state.name == model]
        if model in missing_models(replicas, self._requested):
            why = next((state.reason for state in states if state.reason), "no replica answers")
            raise Unavailable(f"the model '{model}' is not ready: {why}", fix="try again in a moment")
        if states:
            raise NotFound(f"Request for unknown model: '{model}' has no available versions")
        raise unknown_model(model, version)

    async def permit(self, model: str, use: Use) -> None:
        """Raise :class:`LicenceForbids` where the licence of a model that is served does not allow the use."""
        if use != COMMERCIAL:
            return
        endpoints = [each for replica in await self.edge.replicas() for each in replica.endpoints]
        if error := refusal_of(model, endpoints):
            raise error

    async def engines(self) -> list[Heartbeat]:
        """Every living replica that serves models or may: all but gateways."""
        return [replica for replica in await self.edge.replicas(fresh=True) if replica.kind != "gateway"]

    async def missing(self) -> list[str]:
        """Models that should be served and are not; empty when the mesh is ready."""
        return missing_models(await self.edge.replicas(fresh=True), self._requested)

    async def index(self, only_ready: bool = False) -> list[Entry]:
        """The repository index: one entry for each model and version."""
        entries = merge_index(await self.edge.replicas(fresh=True), self._requested, self._known)
        return [entry for entry in entries if not only_ready or entry.get("state") == "READY"]

    def metadata(self) -> dict[str, Any]:
        """The answer to ``GET /v2`` for the whole mesh."""
        return server_metadata(EXTENSIONS)


def serving_version(replicas: Sequence[Endpoint], version: str) -> Sequence[Endpoint]:
    """Those of the version, or of the newest where none is named.

    A replica that names no version decides by itself; where nobody serves the version, any replica says so in its own
    words.
    """
    wanted = version or max((each.version for each in replicas), key=_number)
    return [each for each in replicas if each.version in ("", wanted)] or replicas


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else 0

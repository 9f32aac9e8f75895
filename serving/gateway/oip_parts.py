"""MeshPlane: the parts that OIP's HTTP and gRPC sides share; made by the deployment and by tests.

The one invariant: both wires call the same parts, so what one does the other sees.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import httpx

from serving.gateway.byte_budget import ByteBudget
from serving.gateway.edge_client import Edge
from serving.gateway.oip_control import ControlPlane
from serving.gateway.oip_fanout import Fanout
from serving.gateway.oip_http_relay import Relay
from serving.gateway.oip_look import Look
from serving.gateway.oip_mesh import OipMesh
from serving.settings import LimitSettings, Settings

# A replica that stops waits for its connections, so none is kept.
_RELAYED: Final = httpx.Limits(max_connections=1024, max_keepalive_connections=0)
_ASKED: Final = httpx.Limits(max_connections=256, max_keepalive_connections=0)


@dataclass(frozen=True, slots=True)
class MeshPlane:
    """What OIP's routes need.

    Args:
        mesh: who serves what.
        control: what changes replicas.
        look: documents of models.
        relay: passes HTTP requests on.
        limits: bounds on what clients may send.
        budget: bounds what they send all together.
        clients: for HTTP calls to replicas; the control plane has its own, whatever clients hold of the other.
    """

    mesh: OipMesh
    control: ControlPlane
    look: Look
    relay: Relay
    limits: LimitSettings
    budget: ByteBudget
    clients: tuple[httpx.AsyncClient, ...]

    async def close(self) -> None:
        """Close the connections to replicas."""
        for client in self.clients:
            await client.aclose()


def mesh_plane(
    edge: Edge, settings: Settings, host: str, requested: Collection[str] = (), known: Collection[str] = ()
) -> MeshPlane:
    """Put the parts together.

    Args:
        edge: knows the living replicas.
        settings: of the whole mesh.
        host: the address that replicas of this machine listen on.
        requested: models without which the mesh is not ready.
        known: every model of the repository.
    """
    relayed, asked = _client(_RELAYED), _client(_ASKED)
    mesh = OipMesh(edge, requested, known)
    control = ControlPlane(mesh, Fanout(asked), settings.inference, host)
    budget = ByteBudget(settings.limits.gateway_bytes)
    look, relay = Look(mesh, asked), Relay(relayed)
    return MeshPlane(mesh, control, look, relay, settings.limits, budget, (relayed, asked))


def _client(limits: httpx.Limits) -> httpx.AsyncClient:
    # Replicas are neighbours: a proxy that the environment names for the world outside cannot reach them, and only a
    # client that takes compressed answers must get one.
    return httpx.AsyncClient(limits=limits, trust_env=False, headers={"accept-encoding": "identity"})

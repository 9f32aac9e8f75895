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
_CONNECTIONS: Final = httpx.Limits(max_connections=1024, max_keepalive_connections=0)


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
        client: for all HTTP calls to replicas.
    """

    mesh: OipMesh
    control: ControlPlane
    look: Look
    relay: Relay
    limits: LimitSettings
    budget: ByteBudget
    client: httpx.AsyncClient

    async def close(self) -> None:
        """Close the connections to replicas."""
        await self.client.aclose()


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
    # Replicas are neighbours: a proxy that the environment names for the world outside cannot reach them.
    client = httpx.AsyncClient(limits=_CONNECTIONS, trust_env=False)
    mesh = OipMesh(edge, requested, known)
    control = ControlPlane(mesh, Fanout(client), settings.inference, host)
    budget = ByteBudget(settings.limits.gateway_bytes)
    return MeshPlane(mesh, control, Look(mesh, client), Relay(client), settings.limits, budget, client)

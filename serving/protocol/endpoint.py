"""Endpoint and Heartbeat: where replicas listen and what they hold; sent by replicas, kept by the edge, read by the
gateway.

The one invariant: addresses are ``host:port`` of loopback or the cluster's network, never of the clients' side.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.protocol.control import Control, ModelState

ANY_MODEL = "*"
"""The model name of the default route: the gateway's own endpoint."""

Address = Annotated[str, Field(pattern=r"^[0-9A-Za-z.\-\[\]:]+:\d{1,5}$")]


Socket = Annotated[str, Field(pattern=r"^/[0-9A-Za-z._/:\-]{1,100}$")]
"""A Unix socket's path, as short as the kernel wants it."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Message):
    """One model at one replica.

    Args:
        model: its name, or :data:`ANY_MODEL`.
        version: empty where the replica decides.
        http: where it takes HTTP.
        grpc: where it takes gRPC.
        http_socket: where it takes HTTP too, for an edge on the same machine; half as dear as a connection by TCP.
        grpc_socket: the same for gRPC.
        straight: whether the edge sends inference straight to the replica. False for models whose requests belong
            together (sequences): the gateway then picks the replica.
        task: what the model does; empty where it has no typed task.
        refuses: why commercial work may not reach the model's weights; empty where it may.
    """

    model: str = Field(min_length=1, max_length=256)
    version: str = ""
    http: Address
    grpc: Address
    http_socket: Socket | None = None
    grpc_socket: Socket | None = None
    straight: bool = True
    task: str = Field(default="", max_length=64)
    refuses: str = Field(default="", max_length=600)


class Heartbeat(_Message):
    """One living replica; one that falls silent, or has nothing to say, leaves the rotation.

    Args:
        replica_id: unique in the mesh.
        kind: what sends it.
        endpoints: what it serves at this moment.
        models: every model and version it holds or should hold, in whatever state.
        control: where it takes the control plane's calls; None for one that takes none.
        metrics_url: where it shows its metrics.
    """

    replica_id: str = Field(min_length=1, max_length=128)
    kind: Literal["gateway", "triton", "ray"] = "ray"
    endpoints: list[Endpoint]
    models: list[ModelState] = []
    control: Control | None = None
    metrics_url: str | None = None

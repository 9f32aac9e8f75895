"""Endpoint and Heartbeat: where replicas listen; sent by replicas, kept by the edge, read by the gateway.

The one invariant: addresses are ``host:port`` of loopback or the cluster's network, never of the clients' side.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ANY_MODEL = "*"
"""The model name of the default route: the gateway's own endpoint."""

Address = Annotated[str, Field(pattern=r"^[0-9A-Za-z.\-\[\]:]+:\d{1,5}$")]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Message):
    """One model at one replica; ``version`` is empty where the replica decides."""

    model: str = Field(min_length=1, max_length=256)
    version: str = ""
    http: Address
    grpc: Address


class Heartbeat(_Message):
    """All endpoints of one living replica; one that falls silent leaves the rotation."""

    replica_id: str = Field(min_length=1, max_length=128)
    endpoints: list[Endpoint]
    metrics_url: str | None = None

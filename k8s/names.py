"""Names, labels and ports that the manifests share; used by every module that builds one.

The one invariant: pods never carry the labels by which KubeRay's own Services find theirs (app.kubernetes.io/name and
created-by): a pod that sets them is lost to those.
"""

import importlib.metadata
from typing import Any, Final

Manifest = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON values."""

NAME: Final = "reelmesh"
SETTINGS: Final = "reelmesh-settings"
"""The ConfigMap of REELMESH_* variables."""
STORES: Final = "reelmesh-stores"
"""The Secret with the addresses of artifacts and jobs; the studio makes it, the mesh only refers to it."""

PART_OF: Final = "app.kubernetes.io/part-of"
COMPONENT: Final = "app.kubernetes.io/component"

CLIENT_PORTS: Final = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""Ports of the Service: the mesh's own, as on a laptop."""
EDGE_PORTS: Final = {"http": 9000, "grpc": 9001, "metrics": 9002}
"""Ports of the edge in its pod. Ray Serve's proxy, which KubeRay's readiness probe asks, has 8000 in every pod."""
PROXY_PORT: Final = 8000
RAY_METRICS_PORT: Final = 8080

RAY_VERSION: Final = "2.60.0"
"""Of the image; KubeRay picks its probes by it."""


def image() -> str:
    """The image of every pod; overlays name another with ``images:``."""
    return f"{NAME}:{importlib.metadata.version(NAME)}"


def selector(component: str | None = None) -> dict[str, str]:
    """Labels of one component's pods, or of all pods of the mesh."""
    return {PART_OF: NAME, **({COMPONENT: component} if component else {})}


def metadata(name: str) -> Manifest:
    """Metadata of an object that stands beside the RayService."""
    return {"name": name, "labels": {"app.kubernetes.io/name": NAME, PART_OF: NAME}}

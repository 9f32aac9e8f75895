"""The kinds of pods of a cluster and their sizes; used by rayservice and by what stands around it.

The one invariant: sizes are whole CPUs, as Ray and its autoscaler count them.
"""

from dataclasses import dataclass
from typing import Final

from serving.repository.serve_config import EDGE_LABEL, EDGE_RESOURCE


@dataclass(frozen=True, slots=True)
class Group:
    """One kind of pod.

    Args:
        name: of the worker group, and the component that its pods are labelled with.
        cpus: CPUs requested, which are also the limit.
        memory: requested and the limit.
        storage: ephemeral storage, requested and the limit.
        min_pods: how many there are at least.
        max_pods: how many the autoscaler may start.
        edge: whether clients reach the pod: Ray places edge and gateway here, and nothing else.
    """

    name: str
    cpus: int
    memory: str
    storage: str
    min_pods: int = 1
    max_pods: int = 1
    edge: bool = False

    def ray_resources(self) -> dict[str, str]:
        """What Ray may lease in one pod; whatever asks for the edge's resource lands in its group."""
        return {"CPU": str(self.cpus), **({EDGE_RESOURCE: "1"} if self.edge else {})}

    def ray_labels(self) -> dict[str, str]:
        """Labels of the pod's Ray node, by which the other deployments keep off the edge's."""
        return {EDGE_LABEL: "true"} if self.edge else {}


HEAD: Final = Group("head", cpus=1, memory="4Gi", storage="8Gi")
"""Holds Ray's tables and Serve's controller, and no replica."""
GATEWAY: Final = Group("gateway", cpus=1, memory="4Gi", storage="12Gi", edge=True)
"""One pod, since there is one edge; uploads pass through its storage."""
MODELS: Final = Group("models", cpus=4, memory="8Gi", storage="24Gi", max_pods=4)
"""Engines, Triton and job workers without a GPU."""

WORKERS: Final = (GATEWAY, MODELS)
PRIORITIES: Final = {"gateway": 1_000_000, "head": 900_000, "models": 800_000}
"""Who stays when a node is full: clients see the gateway go at once, the head's end costs the whole cluster."""


def priority_class(group: Group) -> str:
    """Name of the PriorityClass of a group's pods."""
    return f"reelmesh-{group.name}"

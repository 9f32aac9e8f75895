from typing import Any

import pytest

from k8s.capacity import capacity_problems, needs
from k8s.names import Manifest
from k8s.quantities import quantity, whole


def deployment(name: str, replicas: int = 1, **actor: Any) -> Manifest:
    return {"name": name, "num_replicas": replicas, "ray_actor_options": actor}


OFF = {"label_selector": {"reelmesh-edge": "!true"}}
"""What keeps a deployment off the edge's node."""


def group(
    name: str, most: int, limits: Manifest | None = None, labels: Manifest | None = None, **resources: str
) -> Manifest:
    container = {"name": "ray-worker", "resources": {"limits": limits or {}}}
    return {
        "groupName": name,
        "maxReplicas": most,
        "resources": resources,
        "labels": labels or {},
        "template": {"spec": {"containers": [container]}},
    }


def problems(deployments: list[Manifest], groups: list[Manifest]) -> list[str]:
    service = {
        "kind": "RayService",
        "metadata": {"name": "mesh"},
        "spec": {"rayClusterConfig": {"workerGroupSpecs": groups}},
    }
    return [str(each) for each in capacity_problems(service, {"applications": [{"deployments": deployments}]})]


EDGE = deployment("edge", num_cpus=0.1, resources={"edge": 1.0})
FITS = {
    "one pod": ([deployment("audio", num_cpus=0.6), deployment("render", num_cpus=0.4)], [group("a", 1, CPU="1")]),
    "tenths add up": ([deployment("audio", 10, num_cpus=0.1)], [group("a", 1, CPU="1")]),
    "edge": ([EDGE], [group("a", 1, CPU="1", edge="1")]),
    "gpu shares": ([deployment("image", 4, num_cpus=1, num_gpus=0.25)], [group("a", 1, CPU="4", GPU="1")]),
    "limits instead of resources": ([deployment("image", num_cpus=4)], [group("a", 1, {"cpu": "3500m"})]),
    "gpu of the limits": ([deployment("image", num_gpus=1)], [group("a", 1, {"cpu": 1, "nvidia.com/gpu": "1"})]),
    "off the edge": (
        [deployment("audio", num_cpus=1, **OFF)],
        [group("gateway", 1, None, {"reelmesh-edge": "true"}, CPU="4"), group("models", 1, CPU="1")],
    ),
    "gpu pods are kept for who needs them": (
        [deployment("image", num_cpus=2, num_gpus=1), deployment("audio", num_cpus=2)],
        [group("gpu", 1, CPU="2", GPU="1"), group("cpu", 1, CPU="2")],
    ),
}


@pytest.mark.parametrize(("deployments", "groups"), FITS.values(), ids=FITS)
def test_deployments_that_fit_are_no_problem(deployments: list[Manifest], groups: list[Manifest]) -> None:
    assert problems(deployments, groups) == []


LACKS = {
    "no pod is large enough": (
        [deployment("video", num_cpus=8)],
        [group("models", 4, CPU="4")],
        "deployments[video]: a replica leases CPU 8 and no pod of any group has that (models CPU 4)",
    ),
    "no gpu": (
        [deployment("image", num_gpus=0.5)],
        [group("models", 4, CPU="4")],
        "deployments[image]: a replica leases CPU 1, GPU 0.5 and no pod",
    ),
    "two halves are no whole": (
        [deployment("video", num_cpus=2)],
        [group("models", 2, CPU="1")],
        "deployments[video]: a replica leases CPU 2 and no pod",
    ),
    "no edge": (
        [EDGE],
        [group("models", 1, CPU="4")],
        "deployments[edge]: a replica leases CPU 0.1, edge 1 and no pod",
    ),
    "one edge for two": (
        [deployment("edge", 2, num_cpus=0.1, resources={"edge": 1.0})],
        [group("gateway", 1, CPU="4", edge="1")],
        "deployments[edge]: 1 of at most 2 replicas of CPU 0.1, edge 1 find a pod",
    ),
    "too many replicas": (
        [
            {"name": "audio", "autoscaling_config": {"max_replicas": 5}, "ray_actor_options": {"num_cpus": 1}},
            deployment("render", num_cpus=2),
        ],
        [group("models", 2, CPU="2")],
        "deployments[audio]: 2 of at most 5 replicas of CPU 1 find a pod",
    ),
    "only the edge's node has room": (
        [deployment("audio", num_cpus=2, **OFF)],
        [group("gateway", 1, None, {"reelmesh-edge": "true"}, CPU="4"), group("models", 1, CPU="1")],
        "deployments[audio]: a replica leases CPU 2, label reelmesh-edge=!true and no pod",
    ),
    "a group without pods": (
        [deployment("audio", num_cpus=1)],
        [group("models", 0, CPU="4")],
        "deployments[audio]: a replica leases CPU 1 and no pod",
    ),
}


@pytest.mark.parametrize(("deployments", "groups", "says"), LACKS.values(), ids=LACKS)
def test_a_deployment_that_finds_no_place_is_named(
    deployments: list[Manifest], groups: list[Manifest], says: str
) -> None:
    (problem,) = problems(deployments, groups)
    assert problem.startswith(f"RayService/mesh:spec.serveConfigV2.{says}")


def test_ray_leases_a_whole_cpu_to_who_does_not_say() -> None:
    (need,) = needs({"applications": [{"deployments": [{"name": "audio"}]}]})
    assert (need.amounts, need.replicas) == ({"CPU": 1}, 1)


@pytest.mark.parametrize(
    ("text", "number", "rounded"),
    [("500m", 0.5, 1), ("2", 2, 2), (3, 3, 3), ("4Gi", 4 << 30, 4 << 30), ("1.5", 1.5, 2), ("2k", 2000, 2000)],
)
def test_quantities_are_read_as_kubernetes_means_them(text: str | int, number: float, rounded: int) -> None:
    assert (float(quantity(text)), whole(text)) == (number, rounded)

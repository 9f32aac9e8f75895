"""Whether the deployments of a RayService fit the pods of its groups; part of check.

The one invariant: it counts as Ray does: a replica lies in one pod whole, and a group has at most its maxReplicas pods.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from k8s.names import Manifest
from k8s.problems import Problem, identity
from k8s.quantities import quantity, whole

Amounts = dict[str, Decimal]
"""Ray resources by name: CPU, GPU, and the mesh's own."""


@dataclass(frozen=True, slots=True)
class Need:
    """What every replica of a deployment leases, on which nodes, and how many there may be."""

    deployment: str
    amounts: Amounts
    labels: Mapping[str, str]
    replicas: int

    def __str__(self) -> str:
        """In the words of a message."""
        return ", ".join([_words(self.amounts), *(f"label {key}={value}" for key, value in self.labels.items())])


@dataclass(frozen=True, slots=True)
class Pod:
    """What is free in one pod of a group."""

    amounts: Amounts
    labels: Mapping[str, str]

    def fits(self, need: Need) -> bool:
        """Whether a replica may come here."""
        enough = all(self.amounts.get(name, Decimal(0)) >= amount for name, amount in need.amounts.items())
        return enough and all(_matches(wanted, self.labels.get(key)) for key, wanted in need.labels.items())

    def take(self, amounts: Amounts) -> None:
        """Lease them."""
        for name, amount in amounts.items():
            self.amounts[name] -= amount


def capacity_problems(
    service: Manifest, config: Mapping[str, Any], beside: Sequence[Amounts] = ()
) -> Iterator[Problem]:
    """Every deployment whose replicas do not find a pod when all deployments have as many as they may.

    Args:
        service: the RayService.
        config: its Serve configuration, parsed.
        beside: what pods have that are no group's of it yet.
    """
    groups = service["spec"]["rayClusterConfig"].get("workerGroupSpecs", [])
    free = [
        Pod(pod_amounts(group), group.get("labels", {})) for group in groups for _ in range(group.get("maxReplicas", 0))
    ]
    free += [Pod(dict(amounts), {}) for amounts in beside]
    fresh = [Pod(dict(pod.amounts), pod.labels) for pod in free]
    # The pickiest first: own resources, then GPUs, then CPUs.
    for need in sorted(needs(config), key=_size, reverse=True):
        where = f"spec.serveConfigV2.deployments[{need.deployment}]"
        if not any(pod.fits(need) for pod in fresh):
            there = "; ".join(f"{group['groupName']} {_words(pod_amounts(group))}" for group in groups)
            yield Problem(
                identity(service),
                where,
                f"a replica leases {need} and no pod of any group has that ({there})",
                "add a group with such pods, or lower the shares in model.yaml",
            )
            continue
        placed = sum(_place(need, free) for _ in range(need.replicas))
        if placed < need.replicas:
            yield Problem(
                identity(service),
                where,
                f"{placed} of at most {need.replicas} replicas of {need} find a pod beside the other deployments",
                "raise the group's maxReplicas or its pods' size, or lower replicas.max in model.yaml",
            )


def needs(config: Mapping[str, Any]) -> list[Need]:
    """What the deployments of a Serve configuration lease at most."""
    return [_need(deployment) for app in config["applications"] for deployment in app.get("deployments", [])]


def pod_amounts(group: Manifest) -> Amounts:
    """What Ray may lease in one pod of a worker group: its ``resources``, else the container's limits, rounded up."""
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    amounts: Amounts = {}
    if "cpu" in limits:
        amounts["CPU"] = Decimal(whole(limits["cpu"]))
    for name, value in limits.items():
        if name.endswith("gpu"):
            amounts["GPU"] = Decimal(whole(value))
    return amounts | {name: quantity(value) for name, value in group.get("resources", {}).items()}


def _need(deployment: Mapping[str, Any]) -> Need:
    actor = deployment.get("ray_actor_options", {})
    amounts = {"CPU": Decimal(str(actor.get("num_cpus", 1))), "GPU": Decimal(str(actor.get("num_gpus", 0)))}
    amounts |= {name: Decimal(str(value)) for name, value in actor.get("resources", {}).items()}
    most = deployment.get("autoscaling_config", {}).get("max_replicas", deployment.get("num_replicas", 1))
    leased = {name: value for name, value in amounts.items() if value}
    return Need(deployment["name"], leased, actor.get("label_selector", {}), int(most))


def _matches(wanted: str, found: str | None) -> bool:
    """Ray's label selectors, as far as the mesh uses them: a value, or ``!`` and the value that must not be."""
    return found != wanted[1:] if wanted.startswith("!") else found == wanted


def _size(need: Need) -> tuple[int, Decimal, Decimal]:
    own = len(set(need.amounts) - {"CPU", "GPU"})
    return own, need.amounts.get("GPU", Decimal(0)), need.amounts.get("CPU", Decimal(0))


def _place(need: Need, free: list[Pod]) -> bool:
    """Lease in the fullest pod that fits; a pod without a GPU goes before one that has one."""
    fitting = [pod for pod in free if pod.fits(need)]
    if not fitting:
        return False
    none = Decimal(0)
    min(fitting, key=lambda pod: (pod.amounts.get("GPU", none), pod.amounts.get("CPU", none))).take(need.amounts)
    return True


def _words(amounts: Amounts) -> str:
    return ", ".join(f"{name} {amount.normalize():f}" for name, amount in amounts.items()) or "nothing"

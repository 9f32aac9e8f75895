"""What stands around the RayService: namespace, accounts, the Service, priorities, disruption budgets; used by render.

The one invariant: nothing here names a pod; all select by the labels of the mesh.
"""

from k8s.groups import GATEWAY, HEAD, PRIORITIES, WORKERS, Group, priority_class
from k8s.names import CLIENT_PORTS, NAME, SETTINGS, Manifest, metadata, selector


def namespace() -> Manifest:
    """A namespace that refuses pods below the "restricted" standard."""
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    base = metadata(NAME)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {**base, "labels": {**base["labels"], **levels}}}


def service_accounts() -> list[Manifest]:
    """One for the head, to which KubeRay binds the autoscaler's role, and one for the workers: the cloud's identity."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(name),
            "automountServiceAccountToken": False,
        }
        for name in (NAME, f"{NAME}-head")
    ]


def service() -> Manifest:
    """The address of the mesh: the pods that the edge runs in."""
    protocols = {"http": "http", "grpc": "kubernetes.io/h2c", "metrics": "http"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(NAME),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(GATEWAY.name),
            "ports": [
                {"name": name, "port": port, "targetPort": f"edge-{name}", "appProtocol": protocols[name]}
                for name, port in CLIENT_PORTS.items()
            ],
        },
    }


def config_map(variables: dict[str, str]) -> Manifest:
    """The settings, where no kustomize generates them."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(SETTINGS), "data": variables}


def priority_classes() -> list[Manifest]:
    """Who stays when a node is full."""
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": metadata(priority_class(group)),
            "value": PRIORITIES[group.name],
            "preemptionPolicy": "PreemptLowerPriority",
            "description": f"Pods of Reelmesh: {group.name}.",
        }
        for group in (GATEWAY, HEAD, *(group for group in WORKERS if group is not GATEWAY))
    ]


def disruption_budgets() -> list[Manifest]:
    """Nobody drains the last pod of a kind unasked.

    Whole numbers: Ray's pods have no owner with a scale, so the disruption controller cannot work out a share.
    """
    return [_budget(group) for group in (HEAD, *WORKERS)]


def _budget(group: Group) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(f"{NAME}-{group.name}"),
        "spec": {"minAvailable": group.min_pods, "selector": {"matchLabels": selector(group.name)}},
    }

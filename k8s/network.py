"""NetworkPolicies: who may reach the mesh's pods, and whom they may reach; used by render.

The one invariant: the policy named like the mesh selects every pod of it both ways; what no policy allows is refused.
"""

from typing import Any, Final

from k8s.groups import GATEWAY, HEAD
from k8s.names import EDGE_PORTS, NAME, RAY_METRICS_PORT, Manifest, metadata, selector
from k8s.pods import HEAD_PORTS

NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
MONITORING: Final = "monitoring"
"""The namespace whose Prometheus may look."""
OPERATOR: Final = {"app.kubernetes.io/name": "kuberay-operator"}
"""Labels of the KubeRay operator's pods, in whichever namespace."""
API_PORTS: Final = (443, 6443)
STORE_PORTS: Final = (443, 5432)
"""S3 and PostgreSQL."""


def network_policies() -> list[Manifest]:
    """Every pod: the mesh, DNS and Prometheus; the edge: clients; the head: the operator and the API server."""
    return [_mesh(), _edge(), _head(), _stores()]


def _mesh() -> Manifest:
    mesh = {"podSelector": {"matchLabels": selector()}}
    dns = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return _policy(
        NAME,
        selector(),
        # Ray's processes find one another on ports of their own choice.
        ingress=[{"from": [mesh]}, {"from": [_monitoring()], "ports": _tcp(RAY_METRICS_PORT)}],
        egress=[{"to": [mesh]}, {"to": [dns], "ports": [*_tcp(53), {"protocol": "UDP", "port": 53}]}],
    )


def _edge() -> Manifest:
    return _policy(
        f"{NAME}-edge",
        selector(GATEWAY.name),
        ingress=[
            {"ports": _tcp(EDGE_PORTS["http"], EDGE_PORTS["grpc"])},
            {"from": [_monitoring()], "ports": _tcp(EDGE_PORTS["metrics"])},
        ],
    )


def _head() -> Manifest:
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    return _policy(
        f"{NAME}-head",
        selector(HEAD.name),
        ingress=[
            {"from": [operator], "ports": _tcp(HEAD_PORTS["dashboard"])},
            {"from": [_monitoring()], "ports": _tcp(HEAD_PORTS["as-metrics"], HEAD_PORTS["dash-metrics"])},
        ],
        # The API server is no pod, so it is known by its ports alone.
        egress=[{"ports": _tcp(*API_PORTS)}],
    )


def _stores() -> Manifest:
    return _policy(f"{NAME}-stores", selector(), egress=[{"ports": _tcp(*STORE_PORTS)}])


def _monitoring() -> Manifest:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: MONITORING}}}


def _tcp(*ports: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _policy(name: str, pods: dict[str, str], **rules: list[dict[str, Any]]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name),
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": [direction.capitalize() for direction in rules],
            **rules,
        },
    }

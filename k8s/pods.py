"""Pod templates of head and workers, as the "restricted" Pod Security standard asks; used by rayservice.

The one invariant: the root file system is read-only and every writable path is a bounded emptyDir. Liveness and
readiness are left to KubeRay, whose probes know Ray.
"""

from typing import Any, Final

from k8s.cluster import HOME
from k8s.groups import HEAD, Group, priority_class
from k8s.names import EDGE_PORTS, RAY_METRICS_PORT, SETTINGS, STORES, Manifest, image, selector

USER_ID: Final = 10001
USER_HOME: Final = "/home/reelmesh"
USER_VARIABLES: Final = [{"name": "HOME", "value": USER_HOME}, {"name": "USER", "value": "reelmesh"}]
"""The image's user may have no entry in /etc/passwd; libraries that ask for its name read USER."""

LEAVE_S: Final = 10
"""How long a pod that clients reach goes on answering while the Services forget it."""
GRACE_MARGIN_S: Final = 30

CONTAINER_SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Final[Manifest] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
MOUNTS: Final = {"home": HOME, "tmp": "/tmp", "ray-logs": "/tmp/ray", "user-home": USER_HOME}  # noqa: S108
"""Writable paths by volume. KubeRay shares the volume of the name ray-logs with the autoscaler."""
SMALL_VOLUMES: Final = {"ray-logs": "2Gi", "user-home": "1Gi"}

HEAD_PORTS: Final = {
    "gcs-server": 6379,
    "dashboard": 8265,
    "client": 10001,
    "metrics": RAY_METRICS_PORT,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}


def grace_s(config: Manifest) -> int:
    """How long a pod gets to end: the longest drain of a replica, and a margin.

    Args:
        config: of Ray Serve.
    """
    drains = [
        deployment.get("graceful_shutdown_timeout_s", 0)
        for application in config["applications"]
        for deployment in application["deployments"]
    ]
    return int(max(drains, default=0)) + LEAVE_S + GRACE_MARGIN_S


def pod_template(group: Group, grace: int) -> Manifest:
    """The template of a group's pods, or of the head.

    Args:
        group: which.
        grace: seconds that the pod gets to end.
    """
    head = group is HEAD
    return {
        "metadata": {"labels": selector(group.name)},
        "spec": {
            "serviceAccountName": "reelmesh-head" if head else "reelmesh",
            # The autoscaler beside the head asks the API server for pods; nothing else of the mesh does.
            "automountServiceAccountToken": head,
            "priorityClassName": priority_class(group),
            "terminationGracePeriodSeconds": grace,
            "securityContext": POD_SECURITY,
            **({} if head else {"topologySpreadConstraints": _spread(group)}),
            "containers": [_container(group)],
            "volumes": [
                {"name": name, "emptyDir": {"sizeLimit": SMALL_VOLUMES.get(name, group.storage)}} for name in MOUNTS
            ],
        },
    }


def _container(group: Group) -> Manifest:
    sizes = {"cpu": str(group.cpus), "memory": group.memory, "ephemeral-storage": group.storage}
    return {
        "name": "ray-head" if group is HEAD else "ray-worker",
        "image": image(),
        "imagePullPolicy": "IfNotPresent",
        "ports": _ports(group),
        "env": USER_VARIABLES,
        "envFrom": [{"configMapRef": {"name": SETTINGS}}, {"secretRef": {"name": STORES}}],
        "resources": {"requests": sizes, "limits": sizes},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in MOUNTS.items()],
        **(_edge_probes() if group.edge else {}),
    }


def _ports(group: Group) -> list[Manifest]:
    if group is HEAD:
        named = HEAD_PORTS
    else:
        # KubeRay takes the port of the name "metrics" for Ray's own, and "serve" for that of Serve's proxy.
        edge = {f"edge-{name}": port for name, port in EDGE_PORTS.items()} if group.edge else {}
        named = {"metrics": RAY_METRICS_PORT, **edge}
    return [{"name": name, "containerPort": port} for name, port in named.items()]


def _edge_probes() -> dict[str, Any]:
    """A new pod gets no clients before its edge listens, and a leaving one goes on answering for a little while."""
    return {
        "startupProbe": {"tcpSocket": {"port": "edge-http"}, "periodSeconds": 5, "failureThreshold": 120},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
    }


def _spread(group: Group) -> list[Manifest]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(group.name)},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]

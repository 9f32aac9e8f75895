"""The RayService: the mesh's Serve configuration and the Ray cluster it runs on; used by render.

The one invariant: serveConfigV2 is what serve_config() says and nothing else, so a laptop and a cluster run the same.
"""

from typing import Final

import yaml

from k8s.groups import HEAD, WORKERS, Group
from k8s.names import NAME, RAY_VERSION, Manifest, metadata
from k8s.pods import CONTAINER_SECURITY, MOUNTS, USER_VARIABLES, grace_s, pod_template

OBJECT_STORE_BYTES: Final = 512 << 20
"""As on a laptop: media travel as files."""
INITIALIZING_TIMEOUT: Final = "15m"
"""After which a cluster that does not become ready is given up."""
IDLE_S: Final = 300
"""How long a pod without replicas stays."""


def ray_service(config: Manifest) -> Manifest:
    """The RayService that runs a Serve configuration.

    Args:
        config: from :func:`serving.repository.serve_config.serve_config`, with proxies on every node: KubeRay asks them
            whether a pod is ready.
    """
    grace = grace_s(config)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {**metadata(NAME), "annotations": {"ray.io/initializing-timeout": INITIALIZING_TIMEOUT}},
        "spec": {
            "upgradeStrategy": {"type": "NewCluster"},
            # The old cluster's replicas finish what they hold.
            "rayClusterDeletionDelaySeconds": grace,
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": yaml.safe_dump(config, sort_keys=False, width=100),
            "rayClusterConfig": {
                "rayVersion": RAY_VERSION,
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": _autoscaler(),
                "headGroupSpec": _head(grace),
                "workerGroupSpecs": [_worker(group, grace) for group in WORKERS],
            },
        },
    }


def _autoscaler() -> Manifest:
    sizes = {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}
    return {
        # The operator does not infer it from rayVersion.
        "version": "v2",
        "idleTimeoutSeconds": IDLE_S,
        "upscalingMode": "Default",
        "env": USER_VARIABLES,
        "resources": {"requests": sizes, "limits": sizes},
        # Without it the container that KubeRay adds to the head fails the "restricted" standard.
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": name, "mountPath": MOUNTS[name]} for name in ("tmp", "user-home")],
    }


def _head(grace: int) -> Manifest:
    return {
        "rayStartParams": {
            # No replica runs where Ray's tables are.
            "num-cpus": "0",
            "object-store-memory": str(OBJECT_STORE_BYTES),
        },
        "template": pod_template(HEAD, grace),
    }


def _worker(group: Group, grace: int) -> Manifest:
    return {
        "groupName": group.name,
        "replicas": group.min_pods,
        "minReplicas": group.min_pods,
        "maxReplicas": group.max_pods,
        "resources": group.ray_resources(),
        **({"labels": labels} if (labels := group.ray_labels()) else {}),
        "rayStartParams": {"object-store-memory": str(OBJECT_STORE_BYTES)},
        "template": pod_template(group, grace),
    }

"""Pods as KubeRay 1.7 makes them of a RayService: linters and schemas look at pods, not into a RayService."""

import copy
from typing import Any

Manifest = dict[str, Any]


def pods_of(service: Manifest) -> dict[str, Manifest]:
    """The head's pod and one of each worker group, by group, with what the operator injects."""
    cluster = service["spec"]["rayClusterConfig"]
    made = {"head": _pod("head", cluster["headGroupSpec"]["template"])}
    if cluster.get("enableInTreeAutoscaling"):
        _add_autoscaler(made["head"], cluster["autoscalerOptions"])
    for group in cluster["workerGroupSpecs"]:
        pod = made[group["groupName"]] = _pod(group["groupName"], group["template"])
        _add_wait(pod)
    for pod in made.values():
        _add_memory(pod)
    return made


def _pod(name: str, template: Manifest) -> Manifest:
    metadata = {"name": f"reelmesh-{name}", "namespace": "reelmesh", **template["metadata"]}
    return copy.deepcopy({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})


def _add_autoscaler(pod: Manifest, options: Manifest) -> None:
    logs = {"name": "ray-logs", "mountPath": "/tmp/ray"}
    pod["spec"]["containers"].append(
        {
            "name": "autoscaler",
            "image": pod["spec"]["containers"][0]["image"],
            "command": ["/bin/bash", "-c", "--"],
            "args": ["ray kuberay-autoscaler"],
            "volumeMounts": [*options.get("volumeMounts", []), logs],
            **{key: options[key] for key in ("resources", "securityContext", "env") if key in options},
        }
    )


def _add_wait(pod: Manifest) -> None:
    ray = pod["spec"]["containers"][0]
    sizes = {"cpu": "200m", "memory": "256Mi"}
    wait = {key: ray[key] for key in ("image", "imagePullPolicy", "securityContext", "volumeMounts") if key in ray}
    pod["spec"]["initContainers"] = [
        {"name": "wait-gcs-ready", **wait, "resources": {"requests": sizes, "limits": sizes}}
    ]


def _add_memory(pod: Manifest) -> None:
    ray = pod["spec"]["containers"][0]
    limit = ray["resources"]["limits"]["memory"]
    pod["spec"]["volumes"].append({"name": "shared-mem", "emptyDir": {"medium": "Memory", "sizeLimit": limit}})
    ray["volumeMounts"].append({"name": "shared-mem", "mountPath": "/dev/shm"})

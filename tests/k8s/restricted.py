"""The "restricted" Pod Security standard, and what strict reviewers ask beyond it, as findings on one pod.

Source: kubernetes.io/docs/concepts/security/pod-security-standards, policies baseline and restricted.
"""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SIZES = {"cpu", "memory", "ephemeral-storage"}


def restricted(pod: dict[str, Any]) -> list[str]:
    """What the admission of the namespace would refuse."""
    spec = pod["spec"]
    return [*_pod(spec), *(line for container in containers(spec) for line in _container(container, spec))]


def strict(pod: dict[str, Any]) -> list[str]:
    """What a strict reviewer asks for beyond the standard."""
    spec = pod["spec"]
    found = [f"{name}: not set" for name in ("serviceAccountName", "priorityClassName") if name not in spec]
    if spec["securityContext"].get("runAsUser", 0) < 10000 or spec["securityContext"].get("runAsGroup", 0) < 10000:
        found.append("runAsUser, runAsGroup: below 10000")
    for volume in spec.get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            found.append(f"volume {volume['name']}: without a bound")
    for container in containers(spec):
        name, sizes = container["name"], container.get("resources", {})
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            found.append(f"{name}: its root can be written")
        for kind in ("requests", "limits"):
            found += [f"{name}: no {kind} of {each}" for each in SIZES - set(sizes.get(kind, {}))]
        if container["image"].endswith(":latest") or ":" not in container["image"]:
            found.append(f"{name}: image without a version")
        found += [f"{name}: {each['name']} holds a secret" for each in container.get("env", []) if _looks_secret(each)]
    return found


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        if spec.get(name):
            yield f"{name}: set"
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {kinds.pop()} is not allowed"


def _container(container: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = spec.get("securityContext", {}) | own
    name = container["name"]
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or set(own["capabilities"].get("add", [])) - {
        "NET_BIND_SERVICE"
    }:
        yield f"{name}: capabilities are not dropped"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield f"{name}: may run as root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name}: a port of the host"


def _looks_secret(variable: dict[str, Any]) -> bool:
    return "value" in variable and any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "_KEY"))

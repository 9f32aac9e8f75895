"""Whether what the manifests name exists, and whether what they select is selected; part of check.

The one invariant: only Secrets may come from elsewhere; everything else that a pod needs is in the same set of objects.
"""

from collections.abc import Iterator, Sequence

from k8s.names import Manifest
from k8s.problems import Problem, identity


def templates(service: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every pod template of a RayService with its path."""
    cluster = service["spec"]["rayClusterConfig"]
    yield "spec.rayClusterConfig.headGroupSpec.template", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", []):
        yield f"spec.rayClusterConfig.workerGroupSpecs[{group['groupName']}].template", group["template"]


def reference_problems(objects: Sequence[Manifest]) -> Iterator[Problem]:
    """Names that lead nowhere, and selectors that find no pod."""
    there = {identity(each) for each in objects}
    services = [each for each in objects if each["kind"] == "RayService"]
    pods = [(path, template) for service in services for path, template in templates(service)]
    for service in services:
        for path, template in templates(service):
            for field, target in _targets(template["spec"]):
                if target not in there:
                    yield Problem(
                        identity(service),
                        f"{path}.spec.{field}",
                        f"there is no {target} among the objects",
                        "add it, or let kustomize follow the name (configurations: nameReference)",
                    )
    for each in objects:
        if each["kind"] == "Service":
            yield from _service(each, [template for _, template in pods])
        if each["kind"] == "PodDisruptionBudget":
            yield from _budget(each, [template for _, template in pods])


def _targets(spec: Manifest) -> Iterator[tuple[str, str]]:
    for field, kind in (("serviceAccountName", "ServiceAccount"), ("priorityClassName", "PriorityClass")):
        if field in spec:
            yield field, f"{kind}/{spec[field]}"
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield f"containers[{container['name']}].envFrom", f"ConfigMap/{source['configMapRef']['name']}"
    for volume in spec.get("volumes", []):
        if claim := volume.get("persistentVolumeClaim"):
            yield f"volumes[{volume['name']}]", f"PersistentVolumeClaim/{claim['claimName']}"


def _service(service: Manifest, pods: Sequence[Manifest]) -> Iterator[Problem]:
    found = [pod for pod in pods if _selects(service["spec"]["selector"], pod)]
    if not found:
        yield Problem(identity(service), "spec.selector", "no pod template has these labels", "correct the labels")
        return
    for port in service["spec"]["ports"]:
        target = port.get("targetPort", port["port"])
        for pod in found:
            ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
            if not any(target in (named.get("name"), named["containerPort"]) for named in ports):
                yield Problem(
                    identity(service),
                    f"spec.ports[{port['name']}].targetPort",
                    f"the pods it selects have no port {target}",
                    "name a port of the container",
                )


def _budget(budget: Manifest, pods: Sequence[Manifest]) -> Iterator[Problem]:
    spec = budget["spec"]
    if "maxUnavailable" in spec or not isinstance(spec.get("minAvailable"), int):
        yield Problem(
            identity(budget),
            "spec.minAvailable",
            "shares and maxUnavailable need an owner with a scale, which Ray's pods have not",
            "use a whole number as minAvailable",
        )
    if not any(_selects(spec["selector"]["matchLabels"], pod) for pod in pods):
        yield Problem(identity(budget), "spec.selector", "no pod template has these labels", "correct the labels")


def _selects(labels: dict[str, str], template: Manifest) -> bool:
    carried: dict[str, str] = template["metadata"]["labels"]
    return labels.items() <= carried.items()

"""What the API server accepts in a RayService and the KubeRay operator or Ray then refuses; part of check.

The one invariant: each rule is a rule of KubeRay 1.7 or of Ray 2.60, and says so where the reason is not plain.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from k8s.names import Manifest

NAME_LENGTH: Final = 47
"""The operator appends up to 16 characters, and a label has 63."""
DNS_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
UPGRADES: Final = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
DURATION: Final = re.compile(r"0*[1-9]\d*|(\d+(\.\d+)?(ms|s|m|h))+")
TOKEN_VERSION: Final = (2, 52)
PRIORITY_VERSION: Final = (2, 56)
SIZES: Final = ("num-cpus", "num-gpus", "memory", "resources")
REDIS: Final = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
V2_VARIABLE: Final = "RAY_enable_autoscaler_v2"
LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class Broken(NamedTuple):
    """A broken rule: where in the RayService, what and how to mend it."""

    field: str
    problem: str
    fix: str


def operator_problems(service: Manifest) -> Iterator[Broken]:
    """Every rule that a RayService breaks."""
    spec = service["spec"]
    cluster = spec["rayClusterConfig"]
    at = "spec.rayClusterConfig"
    yield from _metadata(service["metadata"])
    yield from _upgrade(spec, cluster)
    yield from _cluster(cluster, at)
    yield from _head(cluster, f"{at}.headGroupSpec")
    yield from _groups(cluster, f"{at}.workerGroupSpecs")


def _metadata(metadata: Manifest) -> Iterator[Broken]:
    name = metadata.get("name", "")
    if len(name) > NAME_LENGTH:
        yield Broken("metadata.name", f"{len(name)} characters", f"use at most {NAME_LENGTH}")
    if not DNS_1035.fullmatch(name):
        yield Broken(
            "metadata.name", f"{name!r} is no DNS label", "begin with a letter; then letters, digits and hyphens"
        )
    timeout = metadata.get("annotations", {}).get("ray.io/initializing-timeout")
    if timeout is not None and not DURATION.fullmatch(timeout):
        yield Broken(
            "metadata.annotations[ray.io/initializing-timeout]", f"{timeout!r} is no duration", "write 15m or 900"
        )


def _upgrade(spec: Manifest, cluster: Manifest) -> Iterator[Broken]:
    at = "spec.upgradeStrategy"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield Broken("spec.rayClusterDeletionDelaySeconds", "it is negative", "use 0 or more seconds")
    kind = spec.get("upgradeStrategy", {}).get("type")
    if kind is not None and kind not in UPGRADES:
        yield Broken(f"{at}.type", f"there is no upgrade {kind!r}", f"use one of {', '.join(UPGRADES)}")
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if not cluster.get("enableInTreeAutoscaling"):
        yield Broken(f"{at}.type", "an incremental upgrade needs the autoscaler", "set enableInTreeAutoscaling: true")
    options = spec["upgradeStrategy"].get("clusterUpgradeOptions")
    if options is None:
        yield Broken(f"{at}.clusterUpgradeOptions", "an incremental upgrade needs them", "set step, interval and class")
        return
    step, surge = options.get("stepSizePercent", 0), options.get("maxSurgePercent", 100)
    if not 0 < step <= surge <= 100:  # noqa: PLR2004  per cent
        yield Broken(
            f"{at}.clusterUpgradeOptions.stepSizePercent",
            f"step {step} and surge {surge}",
            "keep 0 < stepSizePercent <= maxSurgePercent <= 100",
        )
    if options.get("intervalSeconds", 0) <= 0:
        yield Broken(f"{at}.clusterUpgradeOptions.intervalSeconds", "it must be above 0", "use for example 10")
    if not options.get("gatewayClassName"):
        yield Broken(f"{at}.clusterUpgradeOptions.gatewayClassName", "it is empty", "name a GatewayClass")


def _cluster(cluster: Manifest, at: str) -> Iterator[Broken]:
    version = cluster.get("rayVersion", "")
    if cluster.get("authOptions", {}).get("mode") == "token" and _version(version) < TOKEN_VERSION:
        yield Broken(f"{at}.rayVersion", f"{version!r} knows no tokens", "use Ray 2.52 or newer, and say so here")
    if "networkPolicy" in cluster:
        yield Broken(
            f"{at}.networkPolicy",
            "its feature gate is off by default, and then the operator refuses the cluster",
            "ship NetworkPolicy objects",
        )


def _head(cluster: Manifest, at: str) -> Iterator[Broken]:
    head = cluster["headGroupSpec"]
    if head.get("headService", {}).get("metadata", {}).get("name"):
        yield Broken(f"{at}.headService.metadata.name", "the operator names this Service itself", "leave it empty")
    yield from _group(head, at, cluster)
    parameters, containers = head.get("rayStartParams", {}), head["template"]["spec"].get("containers", [])
    if parameters.get("num-cpus", head.get("resources", {}).get("CPU")) != "0":
        yield Broken(f"{at}.rayStartParams.num-cpus", "replicas would run where Ray's tables are", 'set it to "0"')
    variables = _variables(containers)
    if V2_VARIABLE in variables and cluster.get("autoscalerOptions", {}).get("version"):
        yield Broken(f"{at}.template", f"{V2_VARIABLE} is set beside autoscalerOptions.version", "keep the latter")
    for name in REDIS:
        if name in variables:
            yield Broken(f"{at}.template", f"{name} is set as a variable", "use gcsFaultToleranceOptions")
    for name in ("redis-password", "redis-username"):
        if name in parameters:
            yield Broken(f"{at}.rayStartParams.{name}", "it is set as a flag", "use gcsFaultToleranceOptions")


def _groups(cluster: Manifest, at: str) -> Iterator[Broken]:
    seen: set[str] = set()
    for group in cluster.get("workerGroupSpecs", []):
        name = group["groupName"]
        here = f"{at}[{name}]"
        if name in seen:
            yield Broken(here, "two groups have this name", "give each one its own")
        seen.add(name)
        yield from _group(group, here, cluster)
        yield from _replicas(group, here)
        yield from _version_two(group, here, cluster)
        if group.get("suspend"):
            yield Broken(f"{here}.suspend", "a group of a RayService cannot be suspended", "set its replicas to 0")


def _group(group: Manifest, at: str, cluster: Manifest) -> Iterator[Broken]:
    """Rules for head and workers alike."""
    parameters, spec = group.get("rayStartParams", {}), group["template"]["spec"]
    if not spec.get("containers"):
        yield Broken(f"{at}.template.spec.containers", "there is none", "the first one runs Ray")
    both = [name for name in SIZES if name in parameters]
    if group.get("resources") and both:
        yield Broken(
            f"{at}.resources", f"{', '.join(both)} stands in rayStartParams too", "keep it in one of the two places"
        )
    if "labels" in parameters:
        yield Broken(f"{at}.rayStartParams.labels", "the operator refuses it", "use the group's own labels field")
    for key, value in group.get("labels", {}).items():
        if not LABEL_VALUE.fullmatch(value):
            yield Broken(f"{at}.labels[{key}]", f"{value!r} is no label", "use at most 63 of letters, digits, -_.")
    policy = spec.get("restartPolicy")
    if _is_version_two(cluster) and policy not in (None, "Never"):
        yield Broken(f"{at}.template.spec.restartPolicy", f"the autoscaler v2 refuses {policy}", "leave it out")


def _replicas(group: Manifest, at: str) -> Iterator[Broken]:
    least, most = int(group.get("minReplicas", 0)), int(group.get("maxReplicas", 0))
    wanted = int(group.get("replicas", least))
    for field, value in (("minReplicas", least), ("maxReplicas", most), ("replicas", wanted)):
        if value < 0:
            yield Broken(f"{at}.{field}", f"{value} is negative", "use 0 or more")
    if least > most:
        yield Broken(f"{at}.minReplicas", f"{least} is more than maxReplicas {most}", "lower it or raise maxReplicas")
    elif not least <= wanted <= most:
        yield Broken(f"{at}.replicas", f"{wanted} is not in {least}..{most}", "bring it into the bounds")


def _version_two(group: Manifest, at: str, cluster: Manifest) -> Iterator[Broken]:
    for field in ("idleTimeoutSeconds", "priority"):
        if field in group and not _is_version_two(cluster):
            yield Broken(f"{at}.{field}", "only the autoscaler v2 knows it", "set autoscalerOptions.version: v2")
    if "priority" in group and _version(cluster.get("rayVersion", "")) < PRIORITY_VERSION:
        yield Broken(f"{at}.priority", f"Ray {cluster.get('rayVersion')} does not know it", "use Ray 2.56 or newer")
    containers = group["template"]["spec"].get("containers", [])
    limits = [name for each in containers[:1] for name in each.get("resources", {}).get("limits", {})]
    odd = [name for name in limits if "gpu" in name.split("/")[-1] or "mig-" in name]
    if any(name != "nvidia.com/gpu" for name in odd) and "GPU" not in group.get("resources", {}):
        yield Broken(
            f"{at}.resources",
            f"{odd[0]} is not counted as a GPU, so the group would never grow from 0",
            'set resources: {CPU: "..", GPU: "1"}',
        )


def _is_version_two(cluster: Manifest) -> bool:
    return bool(cluster.get("enableInTreeAutoscaling")) and cluster.get("autoscalerOptions", {}).get("version") == "v2"


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _variables(containers: list[Mapping[str, Any]]) -> set[str]:
    return {variable["name"] for container in containers[:1] for variable in container.get("env", [])}

from collections.abc import Callable

import pytest

from k8s.check import check
from k8s.names import Manifest

Break = Callable[[Manifest], None]


def cluster(service: Manifest) -> Manifest:
    found: Manifest = service["spec"]["rayClusterConfig"]
    return found


def models(service: Manifest) -> Manifest:
    found: Manifest = cluster(service)["workerGroupSpecs"][1]
    return found


def incremental(service: Manifest, **options: object) -> None:
    values = {"stepSizePercent": 10, "intervalSeconds": 10, "gatewayClassName": "istio", **options}
    service["spec"]["upgradeStrategy"] = {"type": "NewClusterWithIncrementalUpgrade", "clusterUpgradeOptions": values}


def variable(service: Manifest, name: str) -> None:
    cluster(service)["headGroupSpec"]["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": "1"})


BROKEN: dict[str, tuple[Break, str, str]] = {
    "long name": (lambda s: s["metadata"].update(name="m" * 48), "metadata.name", "48 characters"),
    "name no label": (lambda s: s["metadata"].update(name="2mesh"), "metadata.name", "'2mesh' is no DNS label"),
    "timeout": (
        lambda s: s["metadata"]["annotations"].update({"ray.io/initializing-timeout": "soon"}),
        "metadata.annotations[ray.io/initializing-timeout]",
        "'soon' is no duration",
    ),
    "deletion delay": (
        lambda s: s["spec"].update(rayClusterDeletionDelaySeconds=-1),
        "spec.rayClusterDeletionDelaySeconds",
        "it is negative",
    ),
    "upgrade": (
        lambda s: s["spec"].update(upgradeStrategy={"type": "Rolling"}),
        "spec.upgradeStrategy.type",
        "there is no upgrade 'Rolling'",
    ),
    "incremental without options": (
        lambda s: s["spec"].update(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade"}),
        "spec.upgradeStrategy.clusterUpgradeOptions",
        "an incremental upgrade needs them",
    ),
    "step above surge": (
        lambda s: incremental(s, stepSizePercent=50, maxSurgePercent=20),
        "spec.upgradeStrategy.clusterUpgradeOptions.stepSizePercent",
        "step 50 and surge 20",
    ),
    "no interval": (
        lambda s: incremental(s, intervalSeconds=0),
        "spec.upgradeStrategy.clusterUpgradeOptions.intervalSeconds",
        "it must be above 0",
    ),
    "no gateway class": (
        lambda s: incremental(s, gatewayClassName=""),
        "spec.upgradeStrategy.clusterUpgradeOptions.gatewayClassName",
        "it is empty",
    ),
    "incremental without autoscaler": (
        lambda s: (incremental(s), cluster(s).update(enableInTreeAutoscaling=False))[0],
        "spec.upgradeStrategy.type",
        "an incremental upgrade needs the autoscaler",
    ),
    "not yaml": (lambda s: s["spec"].update(serveConfigV2="a: [b"), "spec.serveConfigV2", "it is no YAML"),
    "no applications": (lambda s: s["spec"].update(serveConfigV2="{}"), "spec.serveConfigV2", "no applications"),
    "old ray": (
        lambda s: cluster(s).update(rayVersion="2.51.0"),
        "spec.rayClusterConfig.rayVersion",
        "'2.51.0' knows no tokens",
    ),
    "no ray version": (lambda s: cluster(s).pop("rayVersion"), "spec.rayClusterConfig.rayVersion", "knows no tokens"),
    "network policy": (
        lambda s: cluster(s).update(networkPolicy={}),
        "spec.rayClusterConfig.networkPolicy",
        "its feature gate is off",
    ),
    "head service name": (
        lambda s: cluster(s)["headGroupSpec"].update(headService={"metadata": {"name": "head"}}),
        "spec.rayClusterConfig.headGroupSpec.headService.metadata.name",
        "the operator names this Service itself",
    ),
    "replicas on the head": (
        lambda s: cluster(s)["headGroupSpec"]["rayStartParams"].pop("num-cpus"),
        "spec.rayClusterConfig.headGroupSpec.rayStartParams.num-cpus",
        "replicas would run where Ray's tables are",
    ),
    "two autoscaler versions": (
        lambda s: variable(s, "RAY_enable_autoscaler_v2"),
        "spec.rayClusterConfig.headGroupSpec.template",
        "is set beside autoscalerOptions.version",
    ),
    "redis variable": (
        lambda s: variable(s, "RAY_REDIS_ADDRESS"),
        "spec.rayClusterConfig.headGroupSpec.template",
        "RAY_REDIS_ADDRESS is set",
    ),
    "redis flag": (
        lambda s: cluster(s)["headGroupSpec"]["rayStartParams"].update({"redis-password": "x"}),
        "spec.rayClusterConfig.headGroupSpec.rayStartParams.redis-password",
        "it is set as a flag",
    ),
    "two groups of one name": (
        lambda s: models(s).update(groupName="gateway"),
        "spec.rayClusterConfig.workerGroupSpecs[gateway]",
        "two groups have this name",
    ),
    "no container": (
        lambda s: models(s)["template"]["spec"].update(containers=[]),
        "spec.rayClusterConfig.workerGroupSpecs[models].template.spec.containers",
        "there is none",
    ),
    "sizes in two places": (
        lambda s: models(s)["rayStartParams"].update({"num-cpus": "4"}),
        "spec.rayClusterConfig.workerGroupSpecs[models].resources",
        "num-cpus stands in rayStartParams too",
    ),
    "labels as a flag": (
        lambda s: models(s)["rayStartParams"].update(labels="a=b"),
        "spec.rayClusterConfig.workerGroupSpecs[models].rayStartParams.labels",
        "the operator refuses it",
    ),
    "label value": (
        lambda s: models(s).update(labels={"zone": "no spaces"}),
        "spec.rayClusterConfig.workerGroupSpecs[models].labels[zone]",
        "'no spaces' is no label",
    ),
    "restart policy": (
        lambda s: models(s)["template"]["spec"].update(restartPolicy="Always"),
        "spec.rayClusterConfig.workerGroupSpecs[models].template.spec.restartPolicy",
        "the autoscaler v2 refuses Always",
    ),
    "suspended group": (
        lambda s: models(s).update(suspend=True),
        "spec.rayClusterConfig.workerGroupSpecs[models].suspend",
        "cannot be suspended",
    ),
    "least above most": (
        lambda s: models(s).update(minReplicas=5),
        "spec.rayClusterConfig.workerGroupSpecs[models].minReplicas",
        "5 is more than maxReplicas 4",
    ),
    "negative": (
        lambda s: models(s).update(minReplicas=-1),
        "spec.rayClusterConfig.workerGroupSpecs[models].minReplicas",
        "-1 is negative",
    ),
    "replicas out of bounds": (
        lambda s: models(s).update(replicas=9),
        "spec.rayClusterConfig.workerGroupSpecs[models].replicas",
        "9 is not in 1..4",
    ),
    "idle timeout without v2": (
        lambda s: (models(s).update(idleTimeoutSeconds=60), cluster(s)["autoscalerOptions"].update(version="v1"))[0],
        "spec.rayClusterConfig.workerGroupSpecs[models].idleTimeoutSeconds",
        "only the autoscaler v2 knows it",
    ),
    "priority with an older ray": (
        lambda s: (models(s).update(priority=10), cluster(s).update(rayVersion="2.55.1"))[0],
        "spec.rayClusterConfig.workerGroupSpecs[models].priority",
        "Ray 2.55.1 does not know it",
    ),
    "a slice that is not counted": (
        lambda s: models(s)["template"]["spec"]["containers"][0]["resources"]["limits"].update(
            {"nvidia.com/mig-1g.10gb": 1}
        ),
        "spec.rayClusterConfig.workerGroupSpecs[models].resources",
        "nvidia.com/mig-1g.10gb is not counted as a GPU",
    ),
    "grace": (
        lambda s: models(s)["template"]["spec"].update(terminationGracePeriodSeconds=30),
        "spec.rayClusterConfig.workerGroupSpecs[models].template.spec.terminationGracePeriodSeconds",
        "30 s cuts off replicas",
    ),
    "the proxy's port": (
        lambda s: models(s)["template"]["spec"]["containers"][0]["ports"].append(
            {"name": "web", "containerPort": 8000}
        ),
        "spec.rayClusterConfig.workerGroupSpecs[models].template.spec.containers[0].ports[web]",
        "Ray Serve's proxy has port 8000",
    ),
}


@pytest.mark.parametrize(("breaks", "field", "problem"), BROKEN.values(), ids=BROKEN)
def test_what_only_the_operator_would_refuse_is_refused_here(
    service: Manifest, breaks: Break, field: str, problem: str
) -> None:
    breaks(service)
    found = check([service])
    hits = [each for each in found if each.field == field and problem in each.problem]
    assert hits, [str(each) for each in found]
    assert all(
        each.fix and str(each).startswith(f"RayService/{service['metadata']['name']}:{field}: ") for each in hits
    )


def test_what_is_rendered_has_no_problems(rendered: list[Manifest]) -> None:
    assert [str(problem) for problem in check(rendered)] == []


@pytest.mark.parametrize("kind", ["ConfigMap", "ServiceAccount", "PriorityClass"])
def test_a_name_that_leads_nowhere_is_named(rendered: list[Manifest], kind: str) -> None:
    problems = check([each for each in rendered if each["kind"] != kind])
    assert problems
    assert all(f"there is no {kind}/reelmesh" in problem.problem for problem in problems)


AROUND: dict[str, tuple[str, Break, str]] = {
    "service finds no pod": (
        "Service",
        lambda each: each["spec"]["selector"].update({"app.kubernetes.io/component": "edge"}),
        "spec.selector: no pod template has these labels",
    ),
    "service names no port": (
        "Service",
        lambda each: each["spec"]["ports"][0].update(targetPort="web"),
        "spec.ports[http].targetPort: the pods it selects have no port web",
    ),
    "budget as a share": (
        "PodDisruptionBudget",
        lambda each: each["spec"].update(minAvailable="50%"),
        "spec.minAvailable: shares and maxUnavailable need an owner with a scale",
    ),
    "budget without pods": (
        "PodDisruptionBudget",
        lambda each: each["spec"]["selector"].update(matchLabels={"app": "other"}),
        "spec.selector: no pod template has these labels",
    ),
}


@pytest.mark.parametrize(("kind", "breaks", "says"), AROUND.values(), ids=AROUND)
def test_what_stands_around_is_checked_against_the_pods(
    repository: object, kind: str, breaks: Break, says: str
) -> None:
    from k8s.render import objects
    from serving.repository.load import Repository

    assert isinstance(repository, Repository)
    fresh = objects(repository)
    breaks(next(each for each in fresh if each["kind"] == kind))
    assert any(says in str(problem) for problem in check(fresh))

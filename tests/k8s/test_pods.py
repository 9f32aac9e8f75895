import kubernetes_validate
import pytest

from k8s.names import Manifest
from k8s.pods import MOUNTS, grace_s

from .pods import pods_of
from .restricted import restricted, strict

GROUPS = ("head", "gateway", "models")


@pytest.fixture
def pods(service: Manifest) -> dict[str, Manifest]:
    return pods_of(service)


@pytest.mark.parametrize("group", GROUPS)
def test_kubernetes_accepts_the_pod(pods: dict[str, Manifest], group: str) -> None:
    kubernetes_validate.validate(pods[group], "1.36", strict=True)


@pytest.mark.parametrize("group", GROUPS)
def test_the_namespace_admits_the_pod_with_all_that_kuberay_injects(pods: dict[str, Manifest], group: str) -> None:
    assert restricted(pods[group]) == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_strict_reviewer_finds_nothing(pods: dict[str, Manifest], group: str) -> None:
    # KubeRay itself sizes the container that waits for the head.
    found = [line for line in strict(pods[group]) if "wait-gcs-ready: no" not in line]
    assert found == []


def test_the_rules_notice_an_autoscaler_without_a_context(service: Manifest) -> None:
    del service["spec"]["rayClusterConfig"]["autoscalerOptions"]["securityContext"]
    assert restricted(pods_of(service)["head"]) == [
        "autoscaler: allowPrivilegeEscalation is not false",
        "autoscaler: capabilities are not dropped",
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_every_writable_path_is_a_volume(pods: dict[str, Manifest], group: str) -> None:
    mounted = {mount["mountPath"] for mount in pods[group]["spec"]["containers"][0]["volumeMounts"]}
    variables = {each["name"]: each["value"] for each in pods[group]["spec"]["containers"][0]["env"]}
    assert mounted == {*MOUNTS.values(), "/dev/shm"}
    assert variables["HOME"] in mounted


@pytest.mark.parametrize("group", GROUPS)
def test_kuberay_probes_are_left_alone(pods: dict[str, Manifest], group: str) -> None:
    container = pods[group]["spec"]["containers"][0]
    assert not {"livenessProbe", "readinessProbe"} & set(container)
    assert ("startupProbe" in container) == (group == "gateway")


@pytest.mark.parametrize("group", GROUPS)
def test_pods_keep_the_labels_by_which_kuberay_finds_them(pods: dict[str, Manifest], group: str) -> None:
    assert not {"app.kubernetes.io/name", "app.kubernetes.io/created-by"} & set(pods[group]["metadata"]["labels"])


def test_only_the_head_may_ask_the_api_server(pods: dict[str, Manifest]) -> None:
    assert {name: pod["spec"]["automountServiceAccountToken"] for name, pod in pods.items()} == {
        "head": True,
        "gateway": False,
        "models": False,
    }


def test_a_pod_gets_longer_to_end_than_its_slowest_replica() -> None:
    slow, fast = {"graceful_shutdown_timeout_s": 300.0}, {"graceful_shutdown_timeout_s": 10.0}
    assert grace_s({"applications": [{"deployments": [fast, slow]}]}) == 340

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from k8s.check import check
from k8s.names import Manifest
from k8s.problems import identity

from .conftest import OVERLAYS, ROOT
from .pods import pods_of
from .restricted import restricted, strict

Overlay = Callable[[str], list[Manifest]]
HASHED = re.compile(r"(reelmesh-settings)-[0-9a-z]{10}\b")


def ray_service(objects: list[Manifest]) -> Manifest:
    return next(each for each in objects if each["kind"] == "RayService")


def groups(objects: list[Manifest]) -> dict[str, Manifest]:
    return {each["groupName"]: each for each in ray_service(objects)["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_mesh_own_checks_pass(overlay: Overlay, name: str) -> None:
    assert [str(problem) for problem in check(overlay(name))] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubernetes_schemas_accept_every_object(overlay: Overlay, name: str) -> None:
    for each in overlay(name):
        if each["kind"] != "RayService":
            kubernetes_validate.validate(each, "1.36", strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_kuberay_schema_accepts_the_ray_service(
    overlay: Overlay, name: str, ray_service_schema: dict[str, Any]
) -> None:
    jsonschema.validate(ray_service(overlay(name)), ray_service_schema)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_admitted_and_strict_reviewers_find_nothing(overlay: Overlay, name: str) -> None:
    for group, pod in pods_of(ray_service(overlay(name))).items():
        kubernetes_validate.validate(pod, "1.36", strict=True)
        found = [line for line in restricted(pod) + strict(pod) if "wait-gcs-ready: no" not in line]
        assert found == [], group


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_lies_in_one_namespace(overlay: Overlay, name: str) -> None:
    spaces = {each["metadata"].get("namespace") for each in overlay(name)}
    assert spaces == {None, "reelmesh"}


def test_local_is_one_pod_with_a_volume_and_ports_of_the_node(overlay: Overlay) -> None:
    objects = overlay("kustomize/overlays/local")
    assert list(groups(objects)) == ["gateway"]
    assert groups(objects)["gateway"]["resources"] == {"CPU": "2", "edge": "1"}
    assert not [each for each in objects if each["kind"] == "PodDisruptionBudget"]
    service = next(each for each in objects if each["kind"] == "Service")
    assert [port["nodePort"] for port in service["spec"]["ports"]] == [30800, 30801, 30802]
    assert "secretRef" not in json.dumps(objects)


def test_gpu_has_a_group_of_gpus_that_grows_from_zero(overlay: Overlay) -> None:
    objects = overlay("kustomize/overlays/gpu")
    gpu = groups(objects)["gpu"]
    container = gpu["template"]["spec"]["containers"][0]
    assert (gpu["minReplicas"], gpu["resources"]["GPU"]) == (0, "1")
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["image"].startswith("reelmesh-gpu:")
    assert groups(objects)["models"]["minReplicas"] == 2
    settings = next(each for each in objects if each["kind"] == "ConfigMap")["data"]
    assert (settings["REELMESH_WORKER__CONCURRENT_JOBS"], settings["REELMESH_EDGE__HTTP_PORT"]) == ("2", "9000")


def test_gpu_has_a_place_for_models_that_lease_one(overlay: Overlay) -> None:
    objects = overlay("kustomize/overlays/gpu")
    service = ray_service(objects)
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    audio = next(each for each in config["applications"][0]["deployments"] if each["name"] == "audio")
    audio["ray_actor_options"] |= {"num_cpus": 2, "num_gpus": 0.5}
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    assert [str(problem) for problem in check(objects)] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_builds_the_same_and_renames_what_has_a_hash(overlay: Overlay, name: str) -> None:
    built = kubectl_build(name)
    settings = next(each["metadata"]["name"] for each in built if each["kind"] == "ConfigMap")
    assert HASHED.fullmatch(settings)
    assert [str(problem) for problem in check(built)] == [], "every reference follows the new name"
    plain = yaml.safe_load(HASHED.sub(r"\1", json.dumps(built)))
    assert {identity(each): each for each in plain} == {identity(each): each for each in overlay(name)}


def kubectl_build(name: str) -> list[Manifest]:
    """What ``kubectl kustomize`` makes; skips where there is none that knows components (kustomize 5)."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl on PATH; the tests' own builder builds the overlays")
    asked = [kubectl, "version", "--client", "--output", "json"]
    version = json.loads(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)
    kustomize = version.get("kustomizeVersion", "v0")
    if int(kustomize.removeprefix("v").split(".")[0]) < 5:
        pytest.skip(f"kubectl has kustomize {kustomize}; the overlays need 5")
    made = subprocess.run([kubectl, "kustomize", str(ROOT / name)], capture_output=True, check=True, text=True)
    return list(yaml.safe_load_all(made.stdout))

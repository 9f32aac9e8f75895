import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from k8s.names import CLIENT_PORTS, RAY_VERSION, Manifest
from k8s.render import GPU_POD, files, objects, outdated
from serving.repository.load import Repository, load_repository
from serving.repository.serve_config import serve_config
from serving.repository.served import with_optional
from serving.settings import Settings

from .conftest import ROOT

KUBERNETES = "1.36"


def by_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] == kind]


def config_of(objects: list[Manifest]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(by_kind(objects, "RayService")[0]["spec"]["serveConfigV2"])
    return found


def test_there_is_everything_that_a_mesh_needs(rendered: list[Manifest]) -> None:
    assert Counter(each["kind"] for each in rendered) == {
        "Namespace": 1,
        "ConfigMap": 1,
        "ServiceAccount": 2,
        "PriorityClass": 3,
        "NetworkPolicy": 4,
        "RayService": 1,
        "Service": 1,
        "PodDisruptionBudget": 3,
    }


def test_kubernetes_schemas_accept_every_object(rendered: list[Manifest]) -> None:
    for each in rendered:
        if each["kind"] != "RayService":
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_kuberay_schema_accepts_the_ray_service(rendered: list[Manifest], ray_service_schema: dict[str, Any]) -> None:
    jsonschema.validate(by_kind(rendered, "RayService")[0], ray_service_schema)


def test_kuberay_schema_as_read_here_refuses_what_it_does_not_know(
    service: Manifest, ray_service_schema: dict[str, Any]
) -> None:
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagge"] = "typo"
    with pytest.raises(jsonschema.ValidationError, match="imagge"):
        jsonschema.validate(service, ray_service_schema)


def test_ray_serve_accepts_the_configuration_inside(rendered: list[Manifest]) -> None:
    schema = ServeDeploySchema.model_validate(json.loads(json.dumps(config_of(rendered))))
    assert [app.import_path for app in schema.applications] == ["graphs.app:build"]


def test_a_cluster_runs_what_a_laptop_runs(
    rendered: list[Manifest], repository: Repository, settings: Settings
) -> None:
    """`reelmesh up` names its own paths and ports in args; on a cluster they are in the ConfigMap."""
    laptop, cluster = serve_config(repository, settings), config_of(rendered)
    assert (laptop.pop("proxy_location"), cluster.pop("proxy_location")) == ("Disabled", "EveryNode")
    theirs, ours = cluster["applications"][0], laptop["applications"][0]
    assert (ours.pop("route_prefix"), theirs.pop("route_prefix")) == (None, "/reelmesh")
    assert theirs.pop("args") == {"settings": {}}
    ours.pop("args")
    assert cluster == laptop


def test_the_service_has_the_ports_of_a_laptop_and_finds_the_edge(rendered: list[Manifest]) -> None:
    spec = by_kind(rendered, "Service")[0]["spec"]
    assert {port["name"]: port["port"] for port in spec["ports"]} == CLIENT_PORTS
    cluster = by_kind(rendered, "RayService")[0]["spec"]["rayClusterConfig"]
    for group in cluster["workerGroupSpecs"]:
        labels = group["template"]["metadata"]["labels"]
        assert (spec["selector"].items() <= labels.items()) == ("edge" in group["resources"])


def test_no_secret_is_rendered_whatever_the_environment_of_the_renderer(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(repository)
    monkeypatch.setenv("REELMESH_JOBS_DATABASE_URL", "postgresql://mesh:hunter2@db/jobs")
    monkeypatch.setenv("REELMESH_EDGE__HTTP_PORT", "1234")
    assert files(repository) == before
    assert "hunter2" not in json.dumps(objects(repository))


def test_the_committed_base_is_up_to_date(repository: Repository) -> None:
    assert outdated(files(repository), ROOT / "k8s" / "base") == [], "run `reelmesh k8s render --out k8s/base`"


def test_files_that_differ_lack_or_are_left_over_are_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("other")
    (tmp_path / "old.yaml").write_text("left over")
    stale = outdated(files(repository), tmp_path)
    assert {"service.yaml", "old.yaml", "rayservice.yaml"} <= set(stale)


def test_a_repository_that_needs_more_gpus_than_a_pod_has_is_refused(tmp_path: Path) -> None:
    from serving.errors import BadInput

    folder = tmp_path / "models" / "speech"
    folder.mkdir(parents=True)
    source = ROOT / "model_repository" / "speech"
    (folder / "config.pbtxt").write_text((source / "config.pbtxt").read_text())
    card = yaml.safe_load((source / "model.yaml").read_text()) | {"share": {"cpu": 1, "gpu": 2}}
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(
        BadInput, match=r"deployments\[audio\]: a replica leases CPU 1, GPU 2, label \S+ and no pod"
    ) as caught:
        objects(load_repository([tmp_path / "models"]))
    assert "gateway CPU 1, edge 1; models CPU 4" in str(caught.value)


def test_the_ray_version_is_the_one_that_the_project_asks_for() -> None:
    minor = ".".join(RAY_VERSION.split(".")[:2])
    assert f"ray[serve]>={minor}," in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_optional_models_are_rendered_where_they_are_asked_for() -> None:
    found = load_repository([ROOT / "model_repository"])
    plain, whisper = (objects(with_optional(found, asked)) for asked in ([], ["whisper_large_v3"]))
    assert "whisper_large_v3" not in json.dumps(plain)
    assert "name: whisper_large_v3" in json.dumps(whisper)
    component = yaml.safe_load((ROOT / "kustomize/components/gpu-workers/group.yaml").read_text())
    [pod] = [each["value"] for each in component if each["path"].endswith("/2/resources")]
    assert {name: Decimal(value) for name, value in pod.items()} == GPU_POD
    settings = next(each for each in whisper if each["kind"] == "ConfigMap")["data"]
    assert settings["REELMESH_INFERENCE__OPTIONAL_MODELS"] == '["whisper_large_v3"]'

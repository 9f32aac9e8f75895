import json
from pathlib import Path

import pytest
from ray.serve.schema import ServeDeploySchema

from serving.repository.load import load_repository
from serving.repository.serve_config import (
    ProxyLocation,
    cpus_needed,
    deployment_options,
    public_settings,
    serve_config,
)
from serving.repository.served import load_served
from serving.settings import EdgeSettings, InferenceSettings, Settings


@pytest.mark.parametrize("proxy_location", ["Disabled", "EveryNode"])
def test_ray_serve_accepts_the_configuration(settings: Settings, proxy_location: ProxyLocation) -> None:
    config = serve_config(load_repository(settings.model_repositories), settings, proxy_location=proxy_location)
    schema = ServeDeploySchema.model_validate(json.loads(json.dumps(config)))
    assert schema.proxy_location.value == proxy_location
    assert [(app.name, app.import_path) for app in schema.applications] == [("reelmesh", "graphs.app:build")]


@pytest.mark.parametrize(("proxies", "route"), [("Disabled", None), ("EveryNode", "/reelmesh")])
def test_proxies_get_a_route_without_which_they_are_never_ready(
    settings: Settings, proxies: ProxyLocation, route: str | None
) -> None:
    config = serve_config(load_repository(settings.model_repositories), settings, proxy_location=proxies)
    assert config["applications"][0]["route_prefix"] == route


def test_there_is_a_deployment_per_group_and_the_mesh_own(repository: Path, ray_model, triton_model) -> None:
    ray_model("anna", more="replica_group: audio")
    ray_model("bed", task="music", more="replica_group: audio")
    triton_model("mlp")
    options = deployment_options(load_repository([repository]), Settings())
    assert list(options) == ["edge", "gateway", "worker", "triton", "audio"]


def test_without_triton_models_there_is_no_triton(repository: Path, ray_model) -> None:
    ray_model("anna")
    assert "triton" not in deployment_options(load_repository([repository]), Settings())


def test_a_replica_leases_the_sum_of_its_models(repository: Path, ray_model) -> None:
    ray_model("anna", more="replica_group: audio\nshare: {cpu: 0.1, gpu: 0.25}")
    ray_model("bed", task="music", more="replica_group: audio\nshare: {cpu: 0.2}")
    options = deployment_options(load_repository([repository]), Settings())["audio"]
    assert options["ray_actor_options"] == {
        "num_cpus": 0.3,
        "num_gpus": 0.25,
        "label_selector": {"reelmesh-edge": "!true"},
    }
    assert options["num_replicas"] == 1


def test_a_group_scales_as_its_most_demanding_model_asks(repository: Path, ray_model) -> None:
    ray_model("anna", more="replica_group: audio\nreplicas: {min: 1, max: 4, target_ongoing: 8}")
    ray_model("bed", task="music", more="replica_group: audio\nreplicas: {min: 2, max: 3, target_ongoing: 2}")
    scale = deployment_options(load_repository([repository]), Settings())["audio"]["autoscaling_config"]
    assert (scale["min_replicas"], scale["max_replicas"], scale["target_ongoing_requests"]) == (2, 4, 2)


def test_a_model_gets_as_many_replicas_as_the_operator_asks_for(repository: Path, ray_model, triton_model) -> None:
    triton_model("mlp")
    triton_model("other")
    ray_model("anna", more="replicas: {min: 1, max: 2}")
    inference = InferenceSettings(replicas={"mlp": 3, "anna": 4})
    options = deployment_options(load_repository([repository]), Settings(inference=inference))
    assert {name: values["num_replicas"] for name, values in options.items()} == {
        "edge": 1,
        "gateway": 1,
        "worker": 1,
        "triton": 3,
        "anna": 4,
    }


def test_an_inference_server_has_no_job_worker(repository: Path, triton_model) -> None:
    triton_model("mlp")
    config = serve_config(load_repository([repository]), Settings(), jobs=False)["applications"][0]
    assert [each["name"] for each in config["deployments"]] == ["edge", "gateway", "triton"]
    assert config["args"]["jobs"] is False


def test_what_all_replicas_lease_is_known_before_the_start(repository: Path, triton_model) -> None:
    for number in range(30):
        triton_model(f"m{number}")
    settings = Settings(inference=InferenceSettings(replicas={"m3": 2}))
    config = serve_config(load_repository([repository]), settings, jobs=False)
    assert cpus_needed(config) == pytest.approx(0.1 + 0.2 + 2 * 30 * 0.1)


def test_the_flags_of_inference_reach_every_replica() -> None:
    inference = InferenceSettings(model_control_mode="explicit", load_models=["a"], replicas={"a": 2})
    settings = Settings(inference=inference).resolved()
    assert Settings.model_validate(public_settings(settings)).inference == inference


def test_edge_and_gateway_share_a_node_and_all_others_keep_off_it_where_it_is_labelled(settings: Settings) -> None:
    options = deployment_options(load_repository(settings.model_repositories), settings)
    actors = {name: values["ray_actor_options"] for name, values in options.items()}
    shares = {name: actor["resources"]["edge"] for name, actor in actors.items() if "resources" in actor}
    assert set(shares) == {"edge", "gateway"}
    assert shares["edge"] + shares["gateway"] <= 1 < 2 * shares["edge"]
    assert {name for name, actor in actors.items() if "label_selector" in actor} == set(actors) - set(shares)


def test_the_whole_mesh_fits_on_two_cpus(settings: Settings) -> None:
    options = deployment_options(load_served(settings), settings)
    assert sum(values["ray_actor_options"]["num_cpus"] for values in options.values()) <= 2


@pytest.mark.parametrize("url", ["postgresql://mesh:secret@db/jobs", "postgresql://db/jobs?user=mesh&password=secret"])
def test_a_password_never_stands_in_the_configuration(url: str) -> None:
    settings = Settings(jobs_database_url=url).resolved()
    assert "jobs_database_url" not in public_settings(settings)
    assert "secret" not in json.dumps(public_settings(settings))


def test_settings_survive_the_way_to_the_replica(settings: Settings) -> None:
    assert Settings.model_validate(public_settings(settings)).resolved() == settings


def test_what_nobody_set_is_left_to_the_environment_of_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    carried = public_settings(Settings(edge=EdgeSettings(grpc_port=9001)))
    monkeypatch.setenv("REELMESH_EDGE__HTTP_PORT", "9000")
    monkeypatch.setenv("REELMESH_JOBS_DATABASE_URL", "postgresql://mesh:secret@db/jobs")
    at_the_replica = Settings.model_validate(carried)
    assert carried == {"edge": {"grpc_port": 9001}}
    assert (at_the_replica.edge.http_port, at_the_replica.edge.grpc_port) == (9000, 9001)
    assert at_the_replica.jobs_database_url == "postgresql://mesh:secret@db/jobs"

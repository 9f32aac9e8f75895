"""Turns the model repository and the settings into Ray Serve's configuration; used by `reelmesh up`, graphs and k8s.

The one invariant: it is pure, and the same on a laptop as on Kubernetes, where it becomes the serveConfigV2.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from serving.repository.load import Repository
from serving.repository.model import Model
from serving.repository.served import replica_groups
from serving.settings import Settings

APPLICATION: Final = "reelmesh"
IMPORT_PATH: Final = "graphs.app:build"

PROXY_ROUTE: Final = "/reelmesh"
"""Route at Ray Serve's proxies. Nobody calls it, but a proxy without a route never says that it is ready."""

ProxyLocation = Literal["Disabled", "HeadOnly", "EveryNode"]

JOB_WORKER: Final = "worker"
"""The deployment that only a mesh with jobs has."""

SYSTEM_CPUS: Final[Mapping[str, float]] = {"edge": 0.1, "gateway": 0.2, JOB_WORKER: 0.2}
"""CPU shares of the mesh's own deployments; all of them and the models of the repository fit on one machine with 2."""

EDGE_RESOURCE: Final = "edge"
"""Ray resource of a node whose ports clients reach; a node has 1 of it."""
EDGE_SHARES: Final[Mapping[str, float]] = {"edge": 0.6, "gateway": 0.1}
"""What of it they lease: two edges never meet on one node, and a gateway is always beside an edge."""
EDGE_LABEL: Final = "reelmesh-edge"
"""Ray label, ``true`` on nodes kept for edge and gateway; a laptop's node has no labels and takes everything."""
ELSEWHERE: Final[Mapping[str, str]] = {EDGE_LABEL: "!true"}

EMPTY_CPUS: Final = 0.1
"""CPU share of a group that awaits its models."""

HEALTH: Final[Mapping[str, float]] = {
    "health_check_period_s": 5.0,
    "health_check_timeout_s": 30.0,
    "graceful_shutdown_wait_loop_s": 0.2,
}
DRAIN_S: Final = 60.0
"""How long a stopping replica may finish what it holds."""
SYSTEM_DRAIN_S: Final = 10.0
UPSCALE_S: Final = 3.0
DOWNSCALE_S: Final = 120.0
"""How long the need must last before replicas are added, and removed; a model takes longer to load than to keep."""


def serve_config(
    repository: Repository, settings: Settings, *, proxy_location: ProxyLocation = "Disabled", jobs: bool = True
) -> dict[str, Any]:
    """The whole configuration as ``ServeDeploySchema`` reads it, of JSON values only.

    Args:
        repository: decides which deployments there are and what they lease.
        settings: passed on to the application, except for what holds a secret.
        proxy_location: where Ray Serve runs its own HTTP proxies. Nothing of ours passes them, so they are off on one
            machine; KubeRay asks them whether a pod is ready, so there they run on every node.
        jobs: whether there are pipelines; without them the mesh is an inference server and no more.
    """
    options = deployment_options(repository, settings, jobs=jobs)
    application = {
        "name": APPLICATION,
        "route_prefix": None if proxy_location == "Disabled" else PROXY_ROUTE,
        "import_path": IMPORT_PATH,
        "args": {"settings": public_settings(settings), **({} if jobs else {"jobs": False})},
        "deployments": [{"name": name, **values} for name, values in options.items()],
    }
    return {"proxy_location": proxy_location, "applications": [application]}


def public_settings(settings: Settings) -> dict[str, Any]:
    """The settings as JSON, for a configuration that anybody may read.

    What nobody set is left out, and so is an address with a password in it: replicas read both from their environment,
    on Kubernetes from a ConfigMap and a Secret.
    """
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_unset=True)
    for name in ("artifacts_url", "jobs_database_url"):
        if holds_secret(values.get(name, "")):
            del values[name]
    return values


def holds_secret(url: str) -> bool:
    """Whether an address carries a password, before its host or among its parameters."""
    parts = urlsplit(url)
    names = [name.lower() for name, _ in parse_qsl(parts.query)]
    return parts.password is not None or any(word in name for name in names for word in _SECRET_WORDS)


_SECRET_WORDS: Final = ("password", "secret", "token")


def deployment_options(repository: Repository, settings: Settings, *, jobs: bool = True) -> dict[str, dict[str, Any]]:
    """Options of every deployment by name: edge, gateway, worker if there are jobs, triton, and the replica groups."""
    options = {name: _system(name, settings) for name in SYSTEM_CPUS if jobs or name != JOB_WORKER}
    groups = replica_groups(repository, settings.inference)
    options.update((name, _models(models, settings)) for name, models in groups.items())
    return options


def cpus_needed(config: Mapping[str, Any]) -> float:
    """The CPU shares that all replicas of a configuration lease from the start."""
    return sum(
        float(options["ray_actor_options"]["num_cpus"]) * _least(options)
        for application in config["applications"]
        for options in application["deployments"]
    )


def _least(options: Mapping[str, Any]) -> int:
    return int(options.get("num_replicas") or options["autoscaling_config"]["min_replicas"])


def _system(name: str, settings: Settings) -> dict[str, Any]:
    actor: dict[str, Any] = {"num_cpus": SYSTEM_CPUS[name]}
    if share := EDGE_SHARES.get(name):
        actor["resources"] = {EDGE_RESOURCE: share}
    else:
        actor["label_selector"] = dict(ELSEWHERE)
    return {
        "num_replicas": 1,
        "ray_actor_options": actor,
        "max_ongoing_requests": 1000,
        "graceful_shutdown_timeout_s": DRAIN_S if name == JOB_WORKER else SYSTEM_DRAIN_S,
        **HEALTH,
    }


def _models(models: Sequence[Model], settings: Settings) -> dict[str, Any]:
    """A replica holds all models of its group, so it leases the sum of their shares."""
    cpus = _share(model.card.share.cpu for model in models) or EMPTY_CPUS
    actor: dict[str, Any] = {"num_cpus": cpus, "label_selector": dict(ELSEWHERE)}
    gpus = _share(model.card.share.gpu for model in models)
    if gpus and settings.engines.device != "cpu":
        actor["num_gpus"] = gpus
    return {
        **_scale(models, settings.inference.replicas),
        "ray_actor_options": actor,
        "max_ongoing_requests": settings.limits.inflight_per_replica,
        "graceful_shutdown_timeout_s": DRAIN_S,
        **HEALTH,
    }


def _scale(models: Sequence[Model], wanted: Mapping[str, int]) -> dict[str, Any]:
    """The group follows its most demanding model: the largest bounds, the smallest target.

    Args:
        models: of the group; none in one that awaits them.
        wanted: least number of replicas by model name, where the operator asks for more than the cards do.
    """
    least = max((max(model.card.replicas.min, wanted.get(model.name, 0)) for model in models), default=1)
    most = max([least, *(model.card.replicas.max for model in models)])
    if least == most:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": min(model.card.replicas.target_ongoing for model in models),
            "upscale_delay_s": UPSCALE_S,
            "downscale_delay_s": DOWNSCALE_S,
        }
    }


def _share(shares: Iterable[float]) -> float:
    """The sum, to Ray's own resolution of 0.0001."""
    return round(sum(shares), 4)

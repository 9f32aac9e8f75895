"""The composition root: one Serve application of edge, gateway, Triton, engine groups and the job worker.

`reelmesh up` runs what build() returns on this machine; on Kubernetes the RayService imports it by name. The one
invariant: nothing else in the project knows which deployments exist or how they are wired.
"""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from graphs import podcast, subtitles, video
from graphs.inputs import Studio
from graphs.programme import model_use
from serving.backends.base import Backend
from serving.backends.handle import HandleBackend
from serving.backends.ray.replica import EngineReplica
from serving.backends.triton.replica import TritonReplica
from serving.edge.deployment import EdgeDeployment
from serving.gateway.deployment import GatewayDeployment
from serving.jobs.types import JobType
from serving.jobs.worker import JobWorker
from serving.protocol.tasks import TASKS
from serving.repository.load import Repository, load_repository
from serving.repository.serve_config import deployment_options
from serving.router import Router
from serving.settings import Settings


def job_types(repository: Repository) -> dict[str, JobType]:
    """Every pipeline by name; a new one is a file in graphs/ and a line here."""
    studio = studio_of(repository)
    types = (podcast.job_type(studio), video.job_type(studio), subtitles.job_type(studio))
    return {job_type.name: job_type for job_type in types}


def studio_of(repository: Repository) -> Studio:
    """What pipelines must know of the repository; requests that name no model go to the first of their task."""
    first = {task: models[0].card for task in TASKS if (models := repository.for_task(task))}
    speech = first.get("speech")
    return Studio(
        voices={name: voice.description for name, voice in speech.voices.items()} if speech else {},
        languages={task: tuple(card.languages) for task, card in first.items()},
        models={model.name: model_use(model) for model in repository.models.values()},
    )


class Worker(JobWorker):
    """The job worker with this repository's router: every model behind the deployment that holds it."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits async constructors
        self, settings: Settings, handles: Mapping[str, "DeploymentHandle[Any]"]
    ) -> None:
        repository = load_repository(settings.model_repositories)
        held = {"triton": repository.triton(), **repository.groups()}
        backends: list[Backend] = [
            HandleBackend(name, handle, [model.name for model in held[name]]) for name, handle in handles.items()
        ]
        await super().__init__(settings, job_types(repository), Router(repository, backends))


def build(args: dict[str, Any]) -> "serve.Application":
    """Bind the application.

    Args:
        args: ``{"settings": {...}}``: :class:`Settings` as JSON, resolved.
    """
    settings = Settings.model_validate(args.get("settings", {})).resolved()
    repository = load_repository(settings.model_repositories)
    options = deployment_options(repository, settings)

    def bind(kind: type, name: str, *arguments: object) -> Any:  # noqa: ANN401  Ray's bound node
        return serve.deployment(name=name, **options[name])(kind).bind(*arguments)

    edge = bind(EdgeDeployment, "edge", settings)
    handles = {name: bind(EngineReplica, name, settings, name, edge) for name in repository.groups()}
    if repository.triton():
        names = [model.name for model in repository.triton()]
        handles["triton"] = bind(TritonReplica, "triton", settings, names, edge)
    worker = bind(Worker, "worker", settings, handles)
    application: serve.Application = bind(GatewayDeployment, "gateway", settings, job_types(repository), edge, worker)
    return application

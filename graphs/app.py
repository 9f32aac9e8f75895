"""The composition root: one Serve application of edge, gateway, Triton, engine groups and the job worker.

`reelmesh up` runs what build() returns on this machine; on Kubernetes the RayService imports it by name. The one
invariant: nothing else in the project knows which deployments exist or how they are wired.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from graphs import lipsync, music, podcast, subtitles, video, voice
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
from serving.repository.load import Repository
from serving.repository.model import TRITON_GROUP
from serving.repository.serve_config import JOB_WORKER, deployment_options
from serving.repository.served import load_served, replica_groups
from serving.router import Router
from serving.settings import Settings


def job_types(repository: Repository) -> dict[str, JobType]:
    """Every pipeline by name; a new one is a file in graphs/ and a line here."""
    studio = studio_of(repository)
    types = (
        video.job_type(studio),
        voice.job_type(studio),
        lipsync.job_type(studio),
        music.job_type(studio),
        podcast.job_type(studio),
        subtitles.job_type(studio),
    )
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
        repository = load_served(settings)
        held = replica_groups(repository, settings.inference)
        backends: list[Backend] = [
            HandleBackend(name, handle, [model.name for model in held[name]], tells=name != TRITON_GROUP)
            for name, handle in handles.items()
        ]
        await super().__init__(settings, job_types(repository), Router(repository, backends, settings.licences))


class InferenceGateway(GatewayDeployment):
    """The gateway of a mesh without jobs."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits async constructors
        self, settings: Settings, edge: "DeploymentHandle[Any]", _replicas: Sequence["DeploymentHandle[Any]"]
    ) -> None:
        # Serve deploys what the gateway is bound to, so it is given the replicas although it reaches them by the edge.
        await super().__init__(settings, {}, edge, jobs=False)


def build(args: dict[str, Any]) -> "serve.Application":
    """Bind the application.

    Args:
        args: ``{"settings": {...}, "jobs": true}``: :class:`Settings` as JSON, resolved; and whether there are
            pipelines, their jobs and the worker, or inference alone.
    """
    settings = Settings.model_validate(args.get("settings", {})).resolved()
    jobs = bool(args.get("jobs", True))
    repository = load_served(settings)
    options = deployment_options(repository, settings, jobs=jobs)

    def bind(kind: type, name: str, *arguments: object) -> Any:  # noqa: ANN401  Ray's bound node
        return serve.deployment(name=name, **options[name])(kind).bind(*arguments)

    edge = bind(EdgeDeployment, "edge", settings)
    handles = {}
    for name, models in replica_groups(repository, settings.inference).items():
        if name == TRITON_GROUP:
            handles[name] = bind(TritonReplica, name, settings, [model.name for model in models], edge)
        else:
            handles[name] = bind(EngineReplica, name, settings, name, edge)
    application: serve.Application
    if jobs:
        worker = bind(Worker, JOB_WORKER, settings, handles)
        application = bind(GatewayDeployment, "gateway", settings, job_types(repository), edge, worker)
    else:
        application = bind(InferenceGateway, "gateway", settings, edge, list(handles.values()))
    return application

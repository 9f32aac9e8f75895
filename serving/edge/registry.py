"""Which replicas live and how requests reach them: pure decisions of the edge; used by EdgeDeployment and Haproxy.

The one invariant: nothing here does I/O or reads a clock, and equal heartbeats always lead to equal routes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from serving.protocol.endpoint import ANY_MODEL, Endpoint, Heartbeat
from serving.protocol.licences import refusal_of
from serving.protocol.oip_errors import error_text

SLOTS: Final = 256
"""Models HAProxy routes by itself; those beyond are reached through the gateway."""
GATEWAY_POOL: Final = "gateway"

Wire = Literal["http", "grpc"]
WIRES: Final[tuple[Wire, ...]] = ("http", "grpc")

# Keys travel through HAProxy's command language, where blanks, ';' and '\' mean something.
_KEY: Final = re.compile(r"[A-Za-z0-9_.,:=@+~-]{1,256}(/[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of a replica, and when it came, in seconds of a monotonic clock."""

    heartbeat: Heartbeat
    seen_s: float


@dataclass(frozen=True, slots=True)
class EndpointTable:
    """Every living replica by its id."""

    beats: Mapping[str, Beat] = field(default_factory=dict)

    def heartbeat(self, beat: Heartbeat, now_s: float) -> "EndpointTable":
        """The table after a heartbeat; one without endpoints and without a control port says good-bye.

        A replica all of whose models are unloaded has a control port still, by which they are loaded again.
        """
        beats = dict(self.beats)
        beats.pop(beat.replica_id, None)
        if beat.endpoints or beat.control:
            beats[beat.replica_id] = Beat(beat, now_s)
        return EndpointTable(beats)

    def expire(self, now_s: float, ttl_s: float) -> tuple["EndpointTable", tuple[str, ...]]:
        """The table without replicas silent for longer than ``ttl_s``, and their ids."""
        silent = tuple(name for name, beat in self.beats.items() if now_s - beat.seen_s > ttl_s)
        return EndpointTable({name: beat for name, beat in self.beats.items() if name not in silent}), silent

    def heartbeats(self) -> list[Heartbeat]:
        """The last heartbeat of every replica, in order of their ids."""
        return [self.beats[name].heartbeat for name in sorted(self.beats)]

    def endpoints(self) -> list[Endpoint]:
        """All endpoints, the gateway's among them."""
        return [endpoint for beat in self.beats.values() for endpoint in beat.heartbeat.endpoints]

    def metrics_urls(self) -> dict[str, str]:
        """Where each replica shows its metrics, by replica id."""
        return {name: beat.heartbeat.metrics_url for name, beat in self.beats.items() if beat.heartbeat.metrics_url}


@dataclass(frozen=True, slots=True)
class Server:
    """One address in one pool of HAProxy."""

    wire: Wire
    pool: str
    address: str

    @property
    def backend(self) -> str:
        """HAProxy's name of the pool."""
        return f"{self.wire}_{self.pool}"

    @property
    def name(self) -> str:
        """HAProxy's name of the server, which is a function of its address."""
        return re.sub(r"[^A-Za-z0-9.]", "_", self.address)


@dataclass(frozen=True, slots=True)
class Routes:
    """What HAProxy shall know.

    Args:
        pools: the pool of each key (``model`` or ``model/version``).
        servers: of each pool.
        terms: why commercial work may not reach a pool, by pool; those that it may reach are not in it.
    """

    pools: Mapping[str, str] = field(default_factory=dict)
    servers: frozenset[Server] = frozenset()
    terms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """Steps from one state of HAProxy to another, to be taken in the order of the fields."""

    refuse: tuple[tuple[str, str], ...] = ()
    add: tuple[Server, ...] = ()
    unmap: tuple[str, ...] = ()
    permit: tuple[str, ...] = ()
    map: tuple[tuple[str, str], ...] = ()
    remove: tuple[Server, ...] = ()

    def __len__(self) -> int:
        """How many steps."""
        return sum(map(len, (self.refuse, self.add, self.unmap, self.permit, self.map, self.remove)))


def routes_of(table: EndpointTable, before: Routes) -> Routes:
    """The routes the table calls for; a key keeps the pool it has, so that no request goes astray meanwhile."""
    found = _targets(table.endpoints())
    # Requests that belong together must reach one replica: the gateway picks it.
    targets = {key: replicas for key, replicas in found.items() if all(each.straight for each in replicas)}
    pools = {key: pool for key, pool in before.pools.items() if key in targets}
    free = (pool for pool in map(str, range(SLOTS)) if pool not in set(pools.values()))
    for key in sorted(targets):
        if key != ANY_MODEL and key not in pools and (pool := next(free, None)) is not None:
            pools[key] = pool
    placed = {**pools, ANY_MODEL: GATEWAY_POOL}
    servers = frozenset(
        Server(wire, placed[key], _address(endpoint, wire))
        for key, endpoints in targets.items()
        if key in placed
        for endpoint in endpoints
        for wire in WIRES
    )
    return Routes(pools, servers, _terms(table.endpoints(), pools))


def changes(before: Routes, after: Routes) -> Changes:
    """What to do: servers are added before keys lead to them, and removed after the keys are gone.

    A pool is refused before a key leads to it, and permitted once no key of one that was refused does.
    """
    moved = {key: pool for key, pool in after.pools.items() if before.pools.get(key) != pool}
    refused = {pool: text for pool, text in after.terms.items() if before.terms.get(pool) != text}
    return Changes(
        refuse=tuple(sorted(refused.items())),
        add=tuple(sorted(after.servers - before.servers, key=_order)),
        unmap=tuple(sorted(before.pools.keys() - after.pools.keys())),
        permit=tuple(sorted(before.terms.keys() - after.terms.keys())),
        map=tuple(sorted(moved.items())),
        remove=tuple(sorted(before.servers - after.servers, key=_order)),
    )


def endpoint_counts(table: EndpointTable) -> dict[str, int]:
    """How many replicas serve each model; for metrics."""
    counts: dict[str, int] = {}
    for endpoint in table.endpoints():
        counts[endpoint.model] = counts.get(endpoint.model, 0) + 1
    return counts


def _targets(endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    """Endpoints by key. A bare model name leads to the newest version, as Triton's default policy does."""
    by_model: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.model == ANY_MODEL or _KEY.fullmatch(endpoint.model):
            by_model.setdefault(endpoint.model, []).append(endpoint)
    targets: dict[str, list[Endpoint]] = {}
    for model, replicas in by_model.items():
        newest = max(_number(replica.version) for replica in replicas)
        targets[model] = [each for each in replicas if not each.version or _number(each.version) == newest]
        for replica in replicas:
            if (key := f"{model}/{replica.version}") and replica.version and _KEY.fullmatch(key):
                targets.setdefault(key, []).append(replica)
    return targets


def _terms(endpoints: Sequence[Endpoint], pools: Mapping[str, str]) -> dict[str, str]:
    """Refusals by pool; alternatives are among what lives now."""
    refused = {endpoint.model for endpoint in endpoints if endpoint.refuses}
    texts = {model: error_text(error) for model in refused if (error := refusal_of(model, endpoints)) is not None}
    return {pool: texts[model] for key, pool in pools.items() if (model := key.partition("/")[0]) in texts}


def _address(endpoint: Endpoint, wire: Wire) -> str:
    """Where HAProxy reaches it: by a Unix socket where it has one, which saves it a third of its work."""
    socket: str | None = getattr(endpoint, f"{wire}_socket")
    address: str = getattr(endpoint, wire)
    return f"unix@{socket}" if socket else address


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else 0


def _order(server: Server) -> tuple[str, str]:
    return server.backend, server.address

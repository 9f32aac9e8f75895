"""HAProxy's configuration as text, from settings; and the commands that change it; used by Haproxy.

The one invariant: it is pure, and the commands lead a running HAProxy to the same state as a start with the new text
would, so that a new replica or model is never a reload, and a restart forgets nothing.
"""

import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from serving.edge.key_rules import key_rules
from serving.edge.registry import GATEWAY_POOL, SLOTS, Routes, Server
from serving.errors import LicenceForbids
from serving.protocol.oip_grpc import SERVICE
from serving.protocol.oip_http import HEADER_LENGTH
from serving.settings import LimitSettings

SOCKET: Final = "haproxy.sock"
"""Where HAProxy takes commands."""
MAP_FILE: Final = "models.map"
"""The map of model, or model/version, to the number of its pool."""
PATHS_FILE: Final = "paths.map"
"""The same by the path of HTTP inference."""
TERMS_FILE: Final = "licences.map"
"""The map of pools that commercial work may not reach, to the reason. By pool, since it is short and known by then."""
_FILES: Final = {"socket": SOCKET, "map_file": MAP_FILE, "paths_file": PATHS_FILE, "terms_file": TERMS_FILE}
HAPROXY_METRICS: Final = "/haproxy"
"""Path on the metrics port under which HAProxy shows its own numbers."""
PEEK_BYTES: Final = 600
"""How much of a gRPC message the edge reads to find the model's name (at most 256 characters) and version."""
SHAPES_BYTES: Final = 4096
"""How much of a gRPC message the edge looks through for shapes; tensors' data come behind them."""
FRONTENDS: Final = ("http", "grpc", "metrics")
DRAIN_S: Final = 10
"""Seconds that requests in flight get to finish on stop."""
HEADER_S: Final = 10
"""A client that has not sent its header by then is dropped."""
STALL_S: Final = 30
"""Longest silence of a client in the middle of a body, its own or the one it is reading."""
IDLE_S: Final = 300
"""How long an idle connection is kept between requests."""
ANSWER_S: Final = 4 * 3600
"""Longest silence of a replica; time limits on requests are the caller's business."""
QUEUE_S: Final = 5
"""Longest wait of a request for a replica with room."""
JSON_BYTES: Final = 8 << 10
"""Longest JSON that goes straight to a replica: nested however deep, it ends no Triton, and the buffer holds it all."""
BUFFER_BYTES: Final = 64 << 10
"""HAProxy's buffers, which connections hold only while something is in them. A message of 64 MiB costs it half the CPU
that it costs with 16 KiB; at 128 KiB and above, each buffer is a mapping of its own, which small requests pay for."""
WINDOW_BYTES: Final = 1 << 20
"""What an HTTP/2 peer may send of one stream before it is told to go on; 64 KiB, the default, stalls large messages."""
RESERVE_BYTES: Final = 1024
"""What HAProxy keeps of each buffer for headers it adds."""
REPLICA_STREAMS: Final = 16
"""gRPC requests on one connection to a replica: Triton serves several connections better than one. With 64 in flight,
16 reached 1.4 times the throughput of 1024 and cost 37 instead of 44 microseconds of HAProxy."""
SOFT_STOP: Final = signal.SIGUSR1
"""HAProxy closes its listeners on it and ends when the last request has."""
CLIENTS_FAULTS: Final = (
    "Unable to parse ",
    "failed to parse the request JSON",
    "failed to get request params",
    "Unable to set ",
    "attempt to ",
    "Expected JSON object",
)
"""How Triton's answers begin that say 500 and mean 400."""
_LEAST_CONNECTIONS: Final = 100
_DESCRIPTORS_RESERVED: Final = 1_000
_CLIENT_SHARE: Final = 0.75
"""Part of the descriptors that clients may hold; the rest is for connections to replicas."""
_MAX_THREADS: Final = 4

# Checks notice within half a second that a replica is gone; a refused connection is noticed at once. Sessions are not
# shut down with the server: that would also end those that are about to be sent elsewhere.
# Idle connections are let go soon, since a replica that stops waits for them.
_SERVER_OPTIONS: Final = (
    "check inter 500 fastinter 200 fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down pool-purge-delay 1s"
)
_H2: Final = " proto h2"


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """What the text depends on; paths in it are relative to the folder HAProxy runs in.

    Args:
        http_fd: descriptor of the listening socket for HTTP; the others likewise.
        grpc_fd: for gRPC.
        metrics_fd: for metrics.
        limits: bounds on bodies.
        descriptors: how many files the process may open; connections are bounded by it.
        cpus: CPUs of the machine.
        keys: whether clients must bring a key.
    """

    http_fd: int
    grpc_fd: int
    metrics_fd: int
    limits: LimitSettings
    descriptors: int = 65536
    cpus: int = 2
    keys: bool = False

    @property
    def max_connections(self) -> int:
        """Client connections held at a time."""
        affordable = int((self.descriptors - _DESCRIPTORS_RESERVED) * _CLIENT_SHARE)
        return max(_LEAST_CONNECTIONS, min(self.limits.connections, affordable))

    @property
    def threads(self) -> int:
        """Half the CPUs: replicas need the rest, and a request costs HAProxy about 40 microseconds of one."""
        return max(1, min(_MAX_THREADS, self.cpus // 2))


def map_texts(routes: Routes) -> dict[str, str]:
    """The map files at the start of HAProxy, by name."""
    pools = sorted(routes.pools.items())
    return {
        MAP_FILE: "".join(f"{key} {pool}\n" for key, pool in pools),
        PATHS_FILE: "".join(f"{infer_path(key)} {pool}\n" for key, pool in pools),
        TERMS_FILE: "".join(f"{pool} {text}\n" for pool, text in sorted(routes.terms.items())),
    }


def infer_path(key: str) -> str:
    """The path of HTTP inference with a model, or model/version."""
    model, _, version = key.partition("/")
    return f"/v2/models/{model}/versions/{version}/infer" if version else f"/v2/models/{model}/infer"


def config_text(config: EdgeConfig, routes: Routes) -> str:
    """The whole configuration file at the start of HAProxy."""
    servers: dict[str, list[Server]] = {}
    for server in sorted(routes.servers, key=lambda each: (each.backend, each.address)):
        servers.setdefault(server.backend, []).append(server)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  this is no HTML
    )
    return environment.get_template("haproxy.cfg.j2").render(
        http_fd=config.http_fd,
        grpc_fd=config.grpc_fd,
        metrics_fd=config.metrics_fd,
        **_FILES,
        forbids=LicenceForbids,
        maxconn=config.max_connections,
        threads=config.threads,
        drain_s=DRAIN_S,
        header_s=HEADER_S,
        idle_s=IDLE_S,
        stall_s=STALL_S,
        answer_s=ANSWER_S,
        queue_s=QUEUE_S,
        grpc_streams=config.limits.grpc_streams,
        replica_streams=REPLICA_STREAMS,
        header_bytes=config.limits.header_bytes,
        buffer_bytes=max(BUFFER_BYTES, config.limits.header_bytes + RESERVE_BYTES),
        window_bytes=WINDOW_BYTES,
        reserve_bytes=RESERVE_BYTES,
        json_bytes=JSON_BYTES,
        length_header=HEADER_LENGTH,
        service=SERVICE,
        faults=CLIENTS_FAULTS,
        waiting_per_model=config.limits.waiting_per_model,
        peek_bytes=PEEK_BYTES,
        shapes_bytes=SHAPES_BYTES,
        pools=SLOTS,
        infer_bytes=config.limits.infer_bytes,
        body_bytes=config.limits.body_bytes,
        upload_bytes=config.limits.upload_bytes,
        haproxy_metrics=HAPROXY_METRICS,
        servers=servers,
        server_options=partial(server_options, limits=config.limits),
        **key_rules(keys=config.keys),
    )


def server_options(server: Server, limits: LimitSettings) -> str:
    """How HAProxy checks a server, speaks to it, and how many requests it holds there."""
    # The gateway is not one model's replica: it bounds itself.
    bound = "" if server.pool == GATEWAY_POOL else f" maxconn {limits.open_per_replica}"
    return _SERVER_OPTIONS + bound + (_H2 if server.wire == "grpc" else "")


def add_server(server: Server, limits: LimitSettings) -> tuple[str, ...]:
    """Commands that put a new server into rotation."""
    place = f"{server.backend}/{server.name}"
    return (
        f"add server {place} {server.address} {server_options(server, limits)}",
        f"enable health {place}",
        f"enable server {place}",
    )


def revive_server(server: Server) -> tuple[str, ...]:
    """Commands that put a server back that was taken out and not yet deleted."""
    place = f"{server.backend}/{server.name}"
    return (f"enable health {place}", f"set server {place} state ready")


def retire_server(server: Server) -> tuple[str, ...]:
    """Commands that take a server out of rotation; its requests in flight go on."""
    place = f"{server.backend}/{server.name}"
    return (f"set server {place} state maint", f"disable health {place}")


def delete_server(server: Server) -> str:
    """Command that deletes a retired server; HAProxy refuses it while a connection is left."""
    return f"del server {server.backend}/{server.name}"


def map_key(key: str, pool: str) -> tuple[str, ...]:
    """Commands that lead a key to a pool, whether or not it led to another before."""
    return (*unmap_key(key), *(f"add map {file} {name} {pool}" for file, name in _entries(key)))


def unmap_key(key: str) -> tuple[str, ...]:
    """Command after which requests for the key go to the gateway."""
    return tuple(f"del map {file} {name}" for file, name in _entries(key))


def refuse_pool(pool: str, text: str) -> tuple[str, ...]:
    """Commands after which commercial work is refused at a pool, with that text on one line."""
    # Several lines, the last one empty: so the value may have blanks and whatever else a licence's name has.
    return (*permit_pool(pool), f"add map {TERMS_FILE} <<\n{pool} {text}\n")


def permit_pool(pool: str) -> tuple[str, ...]:
    """Command after which whatever comes may reach a pool."""
    return (f"del map {TERMS_FILE} {pool}",)


def _entries(key: str) -> tuple[tuple[str, str], ...]:
    return (MAP_FILE, key), (PATHS_FILE, infer_path(key))

"""The edge's ports, looked at before anything starts; called by `reelmesh up` and by Haproxy.

The one invariant: a port that cannot be had is refused with its number, its setting and the fix.
"""

import contextlib
import errno
import ipaddress
import random
import socket
from contextlib import ExitStack
from typing import Final, NamedTuple

from serving.edge.key_file import read_keys
from serving.errors import BadInput, ReelmeshError, Unavailable
from serving.settings import EdgeSettings, Settings

PORTS: Final = {"http_port": "--http-port", "grpc_port": "--grpc-port", "metrics_port": "--metrics-port"}
"""Field of the edge's settings to the flag that sets it."""
QUIET_PORTS: Final = range(20_000, 32_768)
"""Above Ray's workers (10002 to 19999) and below Linux's ephemeral ports (32768 to 60999 unless set otherwise)."""
_TRIES: Final = 64
_BACKLOG: Final = 1024


class Ports(NamedTuple):
    """Where the edge listens."""

    http: int
    grpc: int
    metrics: int


def check_ports(settings: Settings) -> None:
    """Raise unless the edge can listen where it is told.

    Raises:
        Unavailable: a port is taken.
        BadInput: two ports are the same, a port is reserved for root, the host is not an address of this machine, or
            other machines could reach it without a key; or the key file is wrong.
    """
    if settings.edge.keys_file is not None:
        read_keys(settings.edge.keys_file)
    with ExitStack() as held:
        open_ports(settings.edge, held)


def free_ports(settings: Settings) -> Settings:
    """The same settings with every port 0 replaced by a free one.

    The edge listens only seconds later, so the ports are taken from :data:`QUIET_PORTS`, where nothing else of the
    machine is given one in the meantime.
    """
    with ExitStack() as held:
        edge = settings.edge
        chosen = {field: _quiet_port(edge.host, held) for field in PORTS if getattr(edge, field) == 0}
    return settings.model_copy(update={"edge": edge.model_copy(update=chosen)})


def _quiet_port(host: str, held: ExitStack) -> int:
    for port in random.sample(QUIET_PORTS, _TRIES):
        with contextlib.suppress(Unavailable):
            _listen(held, host, port, "http_port")
            return port
    raise Unavailable(f"no free port on {host}", field="edge.http_port", fix=_fix("http_port"))


def open_ports(edge: EdgeSettings, held: ExitStack) -> dict[str, socket.socket]:
    """Listen on all ports at once, so that equal ones show and free ones differ; ``held`` closes them.

    Returns:
        Listening sockets by field, in the order of :data:`PORTS`; raises as :func:`check_ports` does.
    """
    _check_reach(edge)
    bound: dict[str, socket.socket] = {}
    for field in PORTS:
        port = getattr(edge, field)
        twin = next((other for other, taken in bound.items() if port and taken.getsockname()[1] == port), None)
        if twin:
            raise BadInput(f"port {port} is also edge.{twin}", field=f"edge.{field}", fix=_fix(field))
        bound[field] = _listen(held, edge.host, port, field)
    return bound


def _check_reach(edge: EdgeSettings) -> None:
    """Refuse to be reached from elsewhere while nobody asks for a key, unless that is said to be wanted."""
    if edge.keys_file is None and not edge.allow_anonymous and not is_loopback(edge.host):
        raise BadInput(
            f"{edge.host!r} can be reached from other machines, and no key is asked for",
            field="edge.host",
            fix=(
                "make a key with `reelmesh keys new NAME --file keys.yaml` and name the file with --keys keys.yaml or "
                "REELMESH_EDGE__KEYS_FILE=keys.yaml, or set REELMESH_EDGE__ALLOW_ANONYMOUS=true where the network "
                "keeps strangers out"
            ),
        )


def authority(host: str, port: int) -> str:
    """``host:port`` as it stands in an address, which wants brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reach(edge: EdgeSettings) -> str:
    """Who reaches the mesh, in one line for people."""
    if edge.keys_file is not None:
        return f"clients bring one of {edge.keys_file}"
    if is_loopback(edge.host):
        return "no key file: only this machine can reach the mesh"
    return f"no key file: whoever reaches {edge.host or 'this machine'} may do everything"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a host that is no address counts, since nobody reaches it."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return True
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def _listen(held: ExitStack, host: str, port: int, field: str) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # A port whose last connections linger in TIME_WAIT is free to HAProxy, so it is free here.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _refusal(error, host, port, field) from error
    return listener


def _refusal(error: OSError, host: str, port: int, field: str) -> ReelmeshError:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(f"port {port} of {host} is taken", field=f"edge.{field}", fix=_fix(field))
    if error.errno == errno.EACCES:
        return BadInput(f"port {port} may be used by root alone", field=f"edge.{field}", fix=_fix(field))
    return BadInput(
        f"{host!r} is not an address of this machine", field="edge.host", fix="set REELMESH_EDGE__HOST, e.g. 127.0.0.1"
    )


def _fix(field: str) -> str:
    return (
        f"stop what uses it, or choose another with {PORTS[field]} or REELMESH_EDGE__{field.upper()} (0: any free one)"
    )

"""The edge's ports, looked at before anything starts; called by `reelmesh up`.

The one invariant: a port that cannot be had is refused with its number, its setting and the fix, and nothing is bound
when the check returns.
"""

import errno
import socket
from contextlib import ExitStack
from typing import Final

from serving.errors import BadInput, ReelmeshError, Unavailable
from serving.settings import EdgeSettings, Settings

PORTS: Final = {"http_port": "--http-port", "grpc_port": "--grpc-port", "metrics_port": "--metrics-port"}
"""Field of the edge's settings to the flag that sets it."""


def check_ports(settings: Settings) -> None:
    """Raise unless the edge can listen where it is told.

    Raises:
        Unavailable: a port is taken.
        BadInput: two ports are the same, a port is reserved for root, or the host is not an address of this machine.
    """
    _bind_all(settings.edge)


def free_ports(settings: Settings) -> Settings:
    """The same settings with every port 0 replaced by a free one."""
    bound = _bind_all(settings.edge)
    return settings.model_copy(update={"edge": settings.edge.model_copy(update=bound)})


def _bind_all(edge: EdgeSettings) -> dict[str, int]:
    """Bind all ports at once, so that equal ones show and free ones differ; then let go of them."""
    bound: dict[str, int] = {}
    with ExitStack() as held:
        for field in PORTS:
            port = getattr(edge, field)
            twin = next((other for other, taken in bound.items() if port and taken == port), None)
            if twin:
                raise BadInput(f"port {port} is also edge.{twin}", field=f"edge.{field}", fix=_fix(field))
            bound[field] = _bind(held, edge.host, port, field)
    return bound


def _bind(held: ExitStack, host: str, port: int, field: str) -> int:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # A port whose last connections linger in TIME_WAIT is free to HAProxy, so it is free here.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
    except OSError as error:
        raise _refusal(error, host, port, field) from error
    return int(listener.getsockname()[1])


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

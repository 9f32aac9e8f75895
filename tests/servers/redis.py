"""A Redis server of the tests' own.

The one invariant: it keeps all in memory and refuses writes rather than drop keys, as BullMQ demands.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.process import Server, free_ports, listens, own_folder, program


@contextmanager
def redis_server() -> Iterator[tuple[str, Server]]:
    """The address of an empty Redis server, and the server."""
    with own_folder() as folder:
        port = free_ports(1)[0]
        options = {"--port": str(port), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no"}
        options |= {"--maxmemory-policy": "noeviction", "--dir": str(folder)}
        command = [program("redis-server", "redis-server"), *(part for pair in options.items() for part in pair)]
        server = Server(command, folder, ready=lambda: listens(port))
        try:
            server.start()
            yield f"redis://127.0.0.1:{port}/0", server
        finally:
            server.stop()

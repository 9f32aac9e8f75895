"""A RabbitMQ server of the tests' own, for whoever runs them: a node with its own name, ports, folders and epmd.

The one invariant: it meets no other node of the machine, since it asks an epmd of its own for names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import Server, free_ports, listens, own_folder, program

PLACES = "/usr/lib/rabbitmq/bin"
"""Not /usr/sbin, where a wrapper runs it as Debian's own user, in Debian's own folders."""


@contextmanager
def rabbitmq_server() -> Iterator[tuple[str, Server]]:
    """The address of an empty RabbitMQ server, and the server; its queues outlive a restart if they are durable."""
    with own_folder() as folder:
        port, distribution, names = free_ports(3)
        environment = variables(folder, port, distribution, names)
        epmd = [program("epmd", "erlang-base"), "-port", str(names), "-address", "127.0.0.1"]
        resolver = Server(epmd, folder, ready=lambda: listens(names))
        command = [program("rabbitmq-server", "rabbitmq-server", PLACES)]
        server = Server(command, folder, ready=lambda: listens(port), environment=environment)
        try:
            resolver.start()
            server.start()
            yield f"amqp://guest:guest@127.0.0.1:{port}/", server
        finally:
            server.stop(at_once=True)
            resolver.stop()


def variables(folder: Path, port: int, distribution: int, names: int) -> dict[str, str]:
    """What tells RabbitMQ's scripts where everything is."""
    return {
        "RABBITMQ_NODENAME": f"reelmesh-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_ALLOW_INPUT": "1",  # Erlang takes the script's place rather than be its child, so it ends with us
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }

"""A PostgreSQL server of the tests' own; it refuses root, so root runs it as the user of Debian's package.

The one invariant: it holds nothing that anybody needs after the tests, so for them it never waits for a disk.
"""

import pwd
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.servers.process import Server, as_user, base_environment, free_ports, listens, own_folder, program

PLACES = "/usr/lib/postgresql/*/bin"
OWN = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
"""Nothing that the tests write need outlive a crash of the server."""


@contextmanager
def postgres_server(settings: Mapping[str, str] = FAST) -> Iterator[tuple[str, Server]]:
    """The address of an empty PostgreSQL server's own database, and the server; ``settings`` beside :data:`OWN`."""
    user = unprivileged()
    with own_folder(user) as folder:
        port = free_ports(1)[0]
        make_cluster(folder, user)
        options = [part for name, value in {**OWN, **settings}.items() for part in ("-c", f"{name}={value}")]
        command = [program("postgres", "postgresql", PLACES), "-D", str(folder / "data"), "-p", str(port), *options]
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        # SIGQUIT ends it without a last write of what nobody reads.
        server = Server(command, folder, user=user, ready=lambda: answers(url, port), stop_signal=signal.SIGQUIT)
        try:
            server.start()
            yield url, server
        finally:
            server.stop()


def unprivileged() -> str:
    """Whom root runs PostgreSQL as."""
    names = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def make_cluster(folder: Path, user: str) -> None:
    """``initdb`` without waiting for the disk; everybody on this machine may connect."""
    command = [program("initdb", "postgresql", PLACES), "-D", str(folder / "data"), "-U", "postgres", "--no-sync"]
    command += ["--auth=trust", "--encoding=UTF8", "--locale=C"]
    done = subprocess.run(
        [*as_user(user), *command],
        cwd=folder,
        env=base_environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"initdb failed: {done.stdout[-1000:]} {done.stderr[-1000:]}", pytrace=False)


def answers(url: str, port: int) -> bool:
    """Whether it serves queries; it listens a little earlier."""
    if not listens(port):
        return False
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def fresh_database(url: str, name: str) -> Iterator[str]:
    """The address of an empty database on a server, dropped afterwards with whoever is still connected."""
    run(url, f'CREATE DATABASE "{name}"')
    try:
        yield url.rpartition("/")[0] + f"/{name}"
    finally:
        run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def run(url: str, statement: str) -> None:
    """One statement outside a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())

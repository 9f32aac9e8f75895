"""How tritonserver is started: its arguments, its environment, free ports; used by process.py.

The one invariant: whoever finds its ports can infer and look, and nothing else without the token.
"""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from serving.backends.address import LOOPBACK
from serving.backends.triton.client import TRITON_TOKEN_HEADER
from serving.backends.triton.install import TritonInstall

HOST: Final = LOOPBACK
"""Where Triton shows its metrics, and its ports unless others must reach them."""
STUB_MEMORY_BYTES: Final = 1 << 20
"""Shared memory a model instance starts with, and grows by; big tensors grow it on their own."""


SOCKET_PORT: Final = 1
"""Triton adds the port to the name of its socket for gRPC."""


class Ports(NamedTuple):
    """Where one tritonserver is reached, on the loopback."""

    http: int
    grpc: int
    metrics: int


class Sockets(NamedTuple):
    """The Unix sockets of one tritonserver, for who is on its machine."""

    http: str
    grpc: str
    metrics: str

    @classmethod
    def within(cls, folder: Path) -> "Sockets":
        """Its sockets in a folder."""
        return cls(f"{folder}/http", f"{folder}/grpc:{SOCKET_PORT}", f"{folder}/metrics")


@dataclass(frozen=True, slots=True)
class Options:
    """How a tritonserver runs, the same at every restart.

    Args:
        gpus: how many GPUs the replica leased.
        host: address that inference is served on.
        exit_timeout_s: how long requests in flight may take to finish when it is told to end.
        completes: whether configurations may be incomplete, or models may come while it runs. Asking a backend about
            a model starts one more process: measured, 2.0 s instead of 0.4 s for four models.
    """

    gpus: int = 0
    host: str = HOST
    exit_timeout_s: float = 10.0
    completes: bool = False


def server_arguments(
    folder: Path,
    ports: Ports,
    shared_memory_prefix: str,
    token: str,
    trace_file: Path,
    options: Options,
    *,
    sockets: Sockets | None = None,
) -> list[str]:
    """The arguments of tritonserver.

    Model control, shared memory, tracing and log settings want the token: a client that finds the port can infer and
    look, and cannot map memory of this machine.
    """
    http, grpc, metrics, grpc_port = options.host, options.host, HOST, ports.grpc
    if sockets:
        http, grpc, metrics = (f"unix:{path}" for path in sockets)
        grpc_port = SOCKET_PORT
    restricted = f"model-repository,shared-memory,trace,logging:{TRITON_TOKEN_HEADER}={token}"
    return [
        f"--model-repository={folder / 'repository'}",
        f"--backend-directory={folder / 'backends'}",
        "--model-control-mode=explicit",
        *([] if options.completes else ["--disable-auto-complete-config"]),
        f"--http-address={http}",
        f"--http-port={ports.http}",
        f"--http-restricted-api={restricted}",
        f"--grpc-address={grpc.removesuffix(f':{SOCKET_PORT}')}",
        f"--grpc-port={grpc_port}",
        f"--grpc-restricted-protocol={restricted}",
        f"--metrics-address={metrics}",
        f"--metrics-port={ports.metrics}",
        f"--allow-gpu-metrics={'true' if options.gpus else 'false'}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        f"--backend-config=python,shm-default-byte-size={STUB_MEMORY_BYTES}",
        f"--exit-timeout-secs={round(options.exit_timeout_s)}",
        "--log-format=ISO8601",
        # Without a file no trace setting can be changed; none is written while the level is OFF, as it is at first.
        f"--trace-config=triton,file={trace_file}",
        *([] if options.gpus else ["--pinned-memory-pool-byte-size=0"]),
    ]


def environment(install: TritonInstall, programs: Path | None, *, gpus: int) -> dict[str, str]:
    """The environment of tritonserver; threads are bounded, as replicas share the node.

    Args:
        install: which server.
        programs: folder of the ``python3`` that the python backend's stub shall find first.
        gpus: how many GPUs the replica leased; with none, CUDA sees none.
    """
    variables = dict(os.environ) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # For stubs that start Python as usual, as that of NVIDIA's image; view.py sees to the isolated one.
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    if install.stub is not None:
        _put_first(variables, "LD_LIBRARY_PATH", install.stub.library)
        _put_first(variables, "PATH", programs or Path(sys.executable).parent)
    if not gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return variables


def _put_first(variables: dict[str, str], name: str, folder: Path) -> None:
    variables[name] = os.pathsep.join(filter(None, [str(folder), variables.get(name, "")]))


def free_ports() -> Ports:
    """Three ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in Ports._fields]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True

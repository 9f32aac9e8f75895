"""An Amazon SQS to test against: moto's server, over HTTP.

The one invariant: it is nobody else's, so no other test's reset takes its queues.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def sqs_server() -> Iterator[str]:
    """The address of an SQS without queues; any credentials will do."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()

"""Amazon's services to test against, SQS and S3: moto's server, over HTTP.

The one invariant: it is nobody else's, so no other test's reset takes what it holds while a test runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET: Final = "studio"


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of an SQS and S3 with nothing in them; any credentials will do."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def fresh_bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's client of a server that holds nothing but the empty bucket :data:`BUCKET`, for a second opinion."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{url}/moto-api/reset").raise_for_status()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()

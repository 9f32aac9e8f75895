"""Fixtures of real servers for every test: one of each kind for a whole run, started by the first test that asks.

The one invariant: a server that is not installed fails the tests that need it, and never skips them.
"""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.servers.aws import fresh_bucket, moto_server
from tests.servers.postgres import fresh_database, postgres_server
from tests.servers.rabbitmq import rabbitmq_server
from tests.servers.redis import redis_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server, as ``postgresql://user@host:port/postgres``; take ``postgres_database`` for tables."""
    with postgres_server() as (url, _):
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The address of an empty database of this test's own on the PostgreSQL server."""
    with fresh_database(postgres_url, f"test_{uuid4().hex[:12]}") as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server, as ``redis://host:port/0``; tests name their keys and queues apart."""
    with redis_server() as (url, _):
        yield url


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A RabbitMQ server, as ``amqp://user:password@host:port/``; tests name their queues apart. It starts slowly."""
    with rabbitmq_server() as (url, _):
        yield url


@pytest.fixture(scope="session")
def sqs_url() -> Iterator[str]:
    """An Amazon SQS, as ``http://host:port``; tests name their queues apart."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3, as ``http://host:port``; take ``bucket`` for one that is empty."""
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's view, a second opinion, of an S3 with one empty bucket, ``studio``, where the environment leads."""
    with fresh_bucket(s3_url, monkeypatch) as client:
        yield client

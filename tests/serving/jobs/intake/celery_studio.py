"""The studio's side of a Celery queue, for the tests of the intake: a client, and a worker in a process of its own."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import Celery, Signature
from celery.result import AsyncResult

from serving.settings import IntakeSettings
from tests.servers.process import Server
from tests.serving.jobs.intake.site import intake_settings

ROOT = Path(__file__).resolve().parents[4]


def make_app(broker: str, results: str) -> Celery:
    """As a studio has it; the name keeps its connections apart from all others of this process."""
    name = f"studio-{uuid4().hex[:8]}"
    options = {"client_name": name} if broker.startswith("redis") else {"client_properties": {"connection_name": name}}
    app = Celery("studio", broker=broker, backend=results, set_as_current=False)
    app.conf.update(broker_transport_options=options, result_backend_thread_safe=True)
    app.task(name="studio.note", shared=False)(note)
    return app


def note(*args: Any) -> list[Any]:
    """What a worker does with whatever it gets."""
    return list(args)


class Studio:
    """A client, all of whose calls are made in one thread, and the queue that it sends tasks to."""

    def __init__(self, broker: str, results: str) -> None:
        self.app = make_app(broker, results)
        self.settings: IntakeSettings = intake_settings("celery", broker)
        self.thread = ThreadPoolExecutor(1, "studio")

    async def ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.thread, lambda: call(*args, **options))

    async def send(self, title: str, *, name: str = "studio.film", **options: Any) -> AsyncResult:
        given = {"kwargs": {"title": title, "clips": 1}, "queue": self.settings.queue} | options
        return await self.ask(self.app.send_task, name, **given)

    async def get(self, result: AsyncResult | str, timeout_s: float = 20) -> Any:
        """What a client gets that waits for a result, or raises."""
        waited = AsyncResult(result, app=self.app) if isinstance(result, str) else result
        return await self.ask(waited.get, timeout=timeout_s)

    async def state(self, result: AsyncResult | str) -> tuple[str, Any]:
        waited = AsyncResult(result, app=self.app) if isinstance(result, str) else result
        return await self.ask(lambda: (waited.state, waited.info))

    def film(self, title: str) -> Signature:
        return self.app.signature("studio.film", kwargs={"title": title}, queue=self.settings.queue, immutable=True)

    async def take(self, queue: str) -> list[Any]:
        """The messages of another queue, as kombu finds them."""
        return await self.ask(self._take, queue)

    def _take(self, queue: str) -> list[Any]:
        found = []
        with self.app.pool.acquire() as connection, connection.channel() as channel:
            while message := channel.basic_get(queue, no_ack=True):
                found.append(message)
        return found

    def close(self) -> None:
        """Leave no connection behind."""
        self.thread.shutdown()
        backend = self.app.backend
        backend.on_result_fulfilled = lambda result: None  # results that are forgotten later would connect anew
        consumer = backend.result_consumer
        if getattr(consumer, "_pubsub", None) or getattr(consumer, "_consumer", None):
            consumer.stop()
        if client := backend.__dict__.get("client"):
            client.connection_pool.disconnect()
        self.app.amqp.producer_pool.force_close_all()
        self.app.pool.force_close_all()
        self.app.close()


@contextmanager
def studio(broker: str, results: str) -> Iterator[Studio]:
    opened = Studio(broker, results)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def worker(broker: str, results: str, queue: str, folder: Path) -> Iterator[Server]:
    """A Celery worker; its tasks may be sent before it is up."""
    command = [sys.executable, "-m", __name__, broker, results, queue]
    server = Server(command, folder, ready=lambda: True, environment={"PYTHONPATH": str(ROOT)})
    server.start()
    try:
        yield server
    finally:
        server.stop(at_once=True)


if __name__ == "__main__":
    make_app(sys.argv[1], sys.argv[2]).worker_main(
        ["worker", "-P", "solo", "-Q", sys.argv[3], "--without-gossip", "--without-mingle", "--without-heartbeat"]
    )

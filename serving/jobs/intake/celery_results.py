"""CeleryResults: what Celery clients hear of their tasks, through Celery's own result backends; used by its intake.

The one invariant: the library is synchronous, so all that it does runs in one thread of its own, never in the event
loop; and what a client does not find there is an exception here, to be told again later.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from celery import Celery, signature, states
from celery.app.amqp import AMQP, Queues
from celery.app.task import Context
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured
from kombu.entity import Exchange, Queue
from kombu.pools import ProducerPool
from kombu.utils.json import loads
from pydantic import JsonValue
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.errors import BadInput, shown

AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp")
PROGRESS: Final = "PROGRESS"
"""The state of a task whose job has not ended, as Celery's handbook calls it; the job's state is in its ``info``."""
DEFAULT_QUEUE: Final = "celery"
"""Where what follows a task goes if its signature names no queue: Celery's own default."""
_CONNECTIONS: Final = 10
"""One is used, but a canvas within a canvas may ask for another."""
_ANSWER_S: Final = 5.0
_TIDY_S: Final = 2.0
_TRY_TWICE: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
"""A connection that was lost is made anew once; what fails then is owed, and tried again by the intake."""


class TakenAsItIs(Queue):  # type: ignore[misc]  # neither celery nor kombu has types
    """A queue that is declared only if it is not there: a declaration that differs from what is there fails."""

    def declare(self, nowait: bool = False, channel: Any = None) -> str:  # noqa: ANN401  kombu has no type for it
        """Make it where it is missing; its name."""
        client = (channel or self.channel).connection.client
        if client.transport.driver_type == "amqp":
            try:
                with client.channel() as spare:  # a queue that is missing ends the channel
                    self(spare).queue_declare(passive=True)
            except client.channel_errors:
                super().declare(nowait=nowait, channel=channel)
        return str(self.name)


class _Queues(Queues):  # type: ignore[misc]
    def new_missing(self, name: str) -> Queue:
        return TakenAsItIs(name, Exchange(name), routing_key=name)


class _Amqp(AMQP):  # type: ignore[misc]
    queues_cls = _Queues
    _producer_pool: Any

    @property
    def producer_pool(self) -> ProducerPool:
        if self._producer_pool is None:
            self._producer_pool = ProducerPool(self.app.pool, limit=_CONNECTIONS)
        return self._producer_pool


class _App(Celery):  # type: ignore[misc]
    """A Celery app of the intake's addresses, whatever ``CELERY_BROKER_URL`` says, and with connections of its own.

    Celery's pools are those of all apps of a process that have the same broker; nobody could close them.

    Args:
        broker: its address.
        results: address of the result backend.
    """

    amqp_cls = _Amqp
    _pool: Any

    def __init__(self, broker: str, results: str) -> None:
        self._own_broker = broker.partition("?")[0] if broker.partition("://")[0] in AMQP_SCHEMES else verified(broker)
        self.backend_cls = verified(results)
        super().__init__(
            "reelmesh",
            loader="celery.loaders.app:AppLoader",
            set_as_current=False,
            fixups=(),
            config_source=_configuration(broker),
        )

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:  # noqa: ANN401  kombu's connection
        return super().connection_for_write(self._own_broker, **options)

    @property
    def pool(self) -> Any:  # noqa: ANN401  kombu's pool
        if self._pool is None:
            self._pool = self.connection_for_write().Pool(limit=_CONNECTIONS)
        return self._pool

    def tidy(self) -> None:
        """Close every connection; what comes after makes new ones."""
        self.amqp._producer_pool = None
        if self._pool is not None:
            self._pool.force_close_all()
            self._pool = None
        client = self.backend.__dict__.get("client")  # of Redis, if it was ever asked for
        if client is not None:
            client.connection_pool.disconnect()


def verified(url: str) -> str:
    """An address of Redis with what Celery asks for where it is ``rediss``: whether certificates are verified."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def tls_of(broker: str) -> dict[str, Any] | None:
    """What the query of an ``amqps`` address says of certificates, in py-amqp's words; the same as for aio-pika.

    Without any, the broker's certificate is verified by the authorities of this machine, and so is its host name.
    """
    parts = urlsplit(broker)
    if parts.scheme != "amqps":
        return None
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if asked.get("no_verify_ssl", "0") != "0":
        return {"cert_reqs": ssl.CERT_NONE}
    names = {"cafile": "ca_certs", "certfile": "certfile", "keyfile": "keyfile"}
    return {"server_hostname": None} | {own: asked[name] for name, own in names.items() if name in asked}


def _configuration(broker: str) -> dict[str, Any]:
    amqp = {"confirm_publish": True, "read_timeout": _ANSWER_S, "write_timeout": _ANSWER_S}
    redis = {"socket_timeout": _ANSWER_S, "socket_connect_timeout": _ANSWER_S}
    return {
        "broker_use_ssl": tls_of(broker),
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [TakenAsItIs(DEFAULT_QUEUE, Exchange(DEFAULT_QUEUE), routing_key=DEFAULT_QUEUE)],
        "task_publish_retry_policy": _TRY_TWICE,
        "broker_connection_timeout": _ANSWER_S,
        "broker_transport_options": redis if broker.startswith("redis") else amqp,
        "result_backend_transport_options": {"retry_policy": _TRY_TWICE},
        "redis_socket_timeout": _ANSWER_S,
        "redis_socket_connect_timeout": _ANSWER_S,
        "redis_backend_health_check_interval": 30,
    }


class CeleryResults:
    """Results of one broker's tasks.

    A reply is the request of :func:`serving.jobs.intake.celery_message.task_of`, which is all that any process needs.

    Args:
        broker: its address: results of ``rpc://`` go there, and the tasks that follow a task.
        results: address of the result backend.

    Raises:
        BadInput: Celery has no such backend, or not its library.
    """

    def __init__(self, broker: str, results: str) -> None:
        self._app = _App(broker, results)
        try:
            self._app.backend  # noqa: B018  made here, so that what it lacks is known before any result
        except (ImproperlyConfigured, ModuleNotFoundError) as error:
            raise BadInput(
                f"Celery has no result backend {shown(results.partition(':')[0])}, or not the library that it needs",
                field="intakes.results_url",
                fix="for example rpc:// or redis://redis.studio.example/0",
            ) from error
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Start the thread; connections are made by what is told first."""
        await self.close()
        self._thread = ThreadPoolExecutor(1, "celery-results", initializer=self._app.set_current)

    async def close(self) -> None:
        """End connections and thread; one that hangs on a broker ends by its own time limits."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        tidied = asyncio.get_running_loop().run_in_executor(thread, self._app.tidy)
        done, _ = await asyncio.wait({tidied}, timeout=_TIDY_S)
        thread.shutdown(wait=bool(done))

    async def progress(self, reply: Mapping[str, JsonValue], meta: Mapping[str, JsonValue]) -> None:
        """Tell of a job that has not ended."""
        if not reply["ignore_result"]:
            await self._run(self._progress, reply, dict(meta))

    async def done(self, reply: Mapping[str, JsonValue], answer: Mapping[str, JsonValue]) -> None:
        """Tell of a job that completed, and send what the client hung on the task."""
        await self._run(self._done, reply, dict(answer))

    async def failed(self, reply: Mapping[str, JsonValue], error: Exception) -> None:
        """Tell of a job that failed, and send the client's errbacks; the client raises ``error``."""
        await self._run(self._failed, reply, error)

    async def revoked(self, reply: Mapping[str, JsonValue], reason: str) -> None:
        """Tell of a job that was cancelled, or of a task that became none."""
        await self._run(self._revoked, reply, reason)

    async def _run(self, tell: Callable[[Any, Context, Any], None], reply: Mapping[str, JsonValue], what: Any) -> None:  # noqa: ANN401  what each tells
        if self._thread is None:
            raise ConnectionError("not connected")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._tell, tell, reply, what)

    def _tell(self, tell: Callable[[Any, Context, Any], None], reply: Mapping[str, JsonValue], what: Any) -> None:  # noqa: ANN401
        backend = self._app.backend
        backend.on_task_call = _nothing  # a client's part, which would wait here for results of what follows
        backend.retry_policy = backend.retry_policy | _TRY_TWICE
        if "client" not in backend.__dict__ and hasattr(backend, "connparams"):
            backend.connparams["retry"] = Retry(NoBackoff(), 0)  # the client of Redis has its own
        # Celery's own way of reading JSON, since a signature may hold times that it wrote.
        request = Context(loads(json.dumps(reply)), children=[], delivery_info={})
        tell(backend, request, what)

    def _progress(self, backend: Any, request: Context, meta: dict[str, JsonValue]) -> None:  # noqa: ANN401
        backend.store_result(request.id, meta, PROGRESS, request=request)

    def _done(self, backend: Any, request: Context, answer: dict[str, JsonValue]) -> None:  # noqa: ANN401
        if not _is_told(backend, request):
            self._go_on(request, answer)
        backend.mark_as_done(request.id, answer, request)

    def _go_on(self, request: Context, answer: dict[str, JsonValue]) -> None:
        """Send links and the rest of the chain, as Celery's tracer does before a result is stored."""
        whose = {"parent_id": request.id, "root_id": request.root_id or request.id}
        for link in request.callbacks or []:
            request.children.append(signature(link, app=self._app).apply_async((answer,), **whose))
        if request.chain:
            *rest, following = request.chain
            request.children.append(signature(following, app=self._app).apply_async((answer,), chain=rest, **whose))

    def _failed(self, backend: Any, request: Context, error: Exception) -> None:  # noqa: ANN401
        backend.mark_as_failure(request.id, error, request=request, store_result=not request.ignore_result)

    def _revoked(self, backend: Any, request: Context, reason: str) -> None:  # noqa: ANN401
        backend.mark_as_revoked(request.id, reason, request=request, store_result=not request.ignore_result)


def _is_told(backend: Any, request: Context) -> bool:  # noqa: ANN401
    """Whether a process that died told it already, as far as the backend keeps results."""
    if request.ignore_result or not isinstance(backend, BaseKeyValueStoreBackend):
        return False
    return bool(backend.get_task_meta(request.id, cache=False)["status"] == states.SUCCESS)


def _nothing(producer: object, task_id: str) -> None: ...

"""Closed-loop clients that send one fixed request as fast as it is answered; used by bench.inference.

They are thin on purpose (bytes out, bytes in, status checked), because on a small machine a client's own work
is taken from the server it measures. The one invariant: every measurement counts complete answers only, and
raises on a wrong one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc

from loadtests.payloads import Payload

Send = Callable[[], Awaitable[None]]


class Sample(NamedTuple):
    """Latencies of one measurement, in seconds, and how long it took."""

    latencies: list[float]
    seconds: float


class WrongAnswer(Exception):
    """The server answered with something else than a result; the text holds the beginning of it."""


async def closed_loop(senders: list[Send], seconds: float) -> Sample:
    """Let every sender send its next request when it has the answer, for ``seconds`` seconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def run(send: Send) -> None:
        while (started := time.perf_counter()) < end:
            await send()
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for send in senders:
            group.create_task(run(send))
    return Sample(latencies, time.perf_counter() - started)


async def http_loop(base_url: str, payload: Payload, concurrency: int, seconds: float) -> Sample:
    """One keep-alive connection per sender."""
    address = urlsplit(base_url)
    body, headers = payload.http()
    head = [f"POST {payload.path} HTTP/1.1", f"Host: {address.netloc}", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join([*head, "", ""]).encode() + body
    streams = [await asyncio.open_connection(address.hostname, address.port, limit=1 << 24) for _ in range(concurrency)]

    def sender(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Send:
        async def send() -> None:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(content_length(head))
            if not head.startswith(b"HTTP/1.1 200"):
                raise WrongAnswer(head[:200].decode(errors="replace"))

        return send

    try:
        return await closed_loop([sender(*stream) for stream in streams], seconds)
    finally:
        for _, writer in streams:
            writer.close()


def content_length(head: bytes) -> int:
    """From a response's head; WrongAnswer if it has none."""
    lower = head.lower()
    start = lower.find(b"\r\ncontent-length:")
    if start < 0:
        raise WrongAnswer(head[:200].decode(errors="replace"))
    start += len(b"\r\ncontent-length:")
    return int(lower[start : lower.index(b"\r\n", start)])


async def grpc_loop(target: str, payload: Payload, concurrency: int, seconds: float) -> Sample:
    """One channel, as tritonclient has; requests are serialized once and answers stay bytes."""
    request = payload.grpc()
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def send() -> None:
            if not await call(request):
                raise WrongAnswer("an empty message")

        return await closed_loop([send] * concurrency, seconds)


async def thread_loop(run: Callable[[], object], concurrency: int, seconds: float) -> Sample:
    """The baseline without a wire: ``run`` in as many threads, for functions that release the interpreter's
    lock.
    """

    def loop(end: float) -> list[float]:
        latencies = []
        while (started := time.perf_counter()) < end:
            run()
            latencies.append(time.perf_counter() - started)
        return latencies

    started = time.perf_counter()
    loops = asyncio.get_running_loop()
    with ThreadPoolExecutor(concurrency) as pool:
        pending = [loops.run_in_executor(pool, loop, started + seconds) for _ in range(concurrency)]
        latencies = [latency for part in await asyncio.gather(*pending) for latency in part]
    return Sample(latencies, time.perf_counter() - started)

"""The handlers in a real grpc.aio server, with real clients, and with what no client sends."""

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.oip_grpc_handler import grpc_handler
from serving.errors import QueueFull

LIMIT = 1 << 20
ECHO = "/test.Service/Echo"


class Calls:
    """Echoes, by the model's name."""

    def __init__(self):
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.answered = 0
        self.left_s = None

    async def echo(self, message, left_s, _told):
        self.left_s = left_s
        if message.model_name == "fail":
            raise RuntimeError("secret")
        if message.model_name == "full":
            raise QueueFull("Exceeds maximum queue size", retry_after_s=3)
        if message.model_name == "sleep":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return message

    async def slow(self, messages, _told):
        async for message in messages:
            await self.go_on.wait()
            yield message

    async def double(self, messages, _told):
        try:
            async for message in messages:
                yield message
                yield message
                self.answered += 2
                if message.model_name == "sleep":
                    await asyncio.sleep(30)
        finally:
            self.cancelled.set()


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
async def port(calls):
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", LIMIT), ("grpc.so_reuseport", 0)])
    unary = {"Echo": (pb.ModelInferRequest, calls.echo)}
    streams = {"Double": (pb.ModelInferRequest, calls.double), "Slow": (pb.ModelInferRequest, calls.slow)}
    server.add_generic_rpc_handlers((grpc_handler("test.Service", unary, streams),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


@pytest.fixture
async def channel(port):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


def echo(channel, message, **options):
    return channel.unary_unary(ECHO)(message, **options)


def named(name):
    return pb.ModelInferRequest(model_name=name).SerializeToString()


async def test_a_call_is_answered_and_knows_its_deadline(channel, calls):
    assert await echo(channel, named("m")) == named("m")
    assert calls.left_s is None
    assert await echo(channel, named("m"), timeout=9, compression=grpc.Compression.Gzip) == named("m")
    assert 5 < calls.left_s < 10


async def test_messages_far_beyond_the_flow_control_window_arrive(channel):
    big = pb.ModelInferRequest(raw_input_contents=[bytes(LIMIT - 100)]).SerializeToString()
    assert await echo(channel, big) == big


STATUSES = [
    (ECHO, named("fail"), grpc.StatusCode.INTERNAL, "internal error: RuntimeError"),
    (ECHO, named("full"), grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"),
    (ECHO, b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "is not a ModelInferRequest"),
    (ECHO, bytes(LIMIT + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ("/test.Service/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not found"),
]


@pytest.mark.parametrize(("path", "message", "code", "text"), STATUSES, ids=[case[3] for case in STATUSES])
async def test_every_failure_is_a_status_and_the_server_lives(channel, path, message, code, text):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path)(message)
    assert caught.value.code() == code
    assert text in caught.value.details()
    assert await echo(channel, named("m")) == named("m")


async def test_a_full_queue_tells_clients_that_retry_how_long_to_wait(channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo(channel, named("full"))
    assert ("grpc-retry-pushback-ms", "3000") in list(caught.value.trailing_metadata())


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_client_that_gives_up_ends_the_work(channel, calls, how):
    call = echo(channel, named("sleep"), timeout=0.1 if how == "deadline" else None)
    if how == "cancel":
        await asyncio.sleep(0.1)
        call.cancel()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
    await asyncio.wait_for(calls.cancelled.wait(), 2)


async def test_responses_of_a_stream_come_while_requests_still_go(channel):
    stream = channel.stream_stream("/test.Service/Double")()
    for name in ("a", "b"):
        await stream.write(named(name))
        assert [await stream.read(), await stream.read()] == [named(name)] * 2
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("finished", [False, True], ids=["still-writing", "done-writing"])
async def test_a_cancelled_stream_ends_its_work(channel, calls, finished):
    stream = channel.stream_stream("/test.Service/Double")()
    await stream.write(named("sleep" if finished else "a"))
    await stream.read()
    if finished:
        await stream.done_writing()
    stream.cancel()
    await asyncio.wait_for(calls.cancelled.wait(), 2)


async def test_a_broken_message_ends_its_stream_with_a_status(channel):
    stream = channel.stream_stream("/test.Service/Double")()
    await stream.write(b"\xff\xff")
    assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT


# Some 30 MiB, far more than transports and their windows hold.
MANY = 120


async def test_a_writer_faster_than_the_model_is_held_back_and_fails_nothing(channel, calls):
    stream = channel.stream_stream("/test.Service/Slow")()
    big = pb.ModelInferRequest(raw_input_contents=[bytes(LIMIT // 4)]).SerializeToString()
    written = 0

    async def write():
        nonlocal written
        for _ in range(MANY):
            await stream.write(big)
            written += 1
        await stream.done_writing()

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.3)
    assert written < MANY
    calls.go_on.set()
    answers = 0
    while await stream.read() is not grpc.aio.EOF:
        answers += 1
    await writing
    assert (answers, await stream.code()) == (MANY, grpc.StatusCode.OK)


async def test_what_a_client_does_not_read_is_not_produced(channel, calls):
    stream = channel.stream_stream("/test.Service/Double")()
    big = pb.ModelInferRequest(raw_input_contents=[bytes(LIMIT // 4)]).SerializeToString()

    async def write():
        for _ in range(MANY):
            await stream.write(big)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.5)
    produced = calls.answered
    await asyncio.sleep(0.2)
    assert produced == calls.answered < MANY
    writing.cancel()
    stream.cancel()
    await asyncio.wait_for(calls.cancelled.wait(), 2)


NONSENSE = [
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x00" * 100,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff\xff",
]


@pytest.mark.parametrize("data", NONSENSE, ids=["http1", "zeros", "frames", "headers"])
async def test_nonsense_on_the_wire_is_refused_and_the_server_lives(port, channel, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(5):
        while await reader.read(65536):
            continue
    writer.close()
    assert await echo(channel, named("m")) == named("m")

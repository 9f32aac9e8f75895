"""gRPC over uvicorn's HTTP/2, with real clients, and with what no client sends."""

import asyncio

import grpc
import pytest
import zttp
from tritonclient.grpc import service_pb2 as pb

from serving.backends.http_server import HttpServer
from serving.backends.ray.oip_grpc_app import GrpcApp
from serving.errors import QueueFull
from serving.protocol.grpc_wire import frame

LIMIT = 1 << 20
ECHO = "/test.Service/Echo"


class Calls:
    """Echoes, by the model's name."""

    def __init__(self):
        self.cancelled = asyncio.Event()
        self.left_s = None

    async def echo(self, message, left_s):
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

    async def double(self, messages):
        try:
            async for message in messages:
                yield message
                yield message
                if message.model_name == "sleep":
                    await asyncio.sleep(30)
        finally:
            self.cancelled.set()


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
async def port(calls):
    app = GrpcApp(
        "test.Service",
        {"Echo": (pb.ModelInferRequest, calls.echo)},
        {"Double": (pb.ModelInferRequest, calls.double)},
        LIMIT,
    )
    server = HttpServer(app, http2=True)
    await server.start()
    yield server.port
    await server.stop()


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
    ("/test.Service/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, "not served"),
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


NONSENSE = [
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x00" * 100,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff\xff",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(b"x" * 40),
]


@pytest.mark.parametrize("data", NONSENSE, ids=["http1", "zeros", "frames", "headers", "grpc"])
async def test_nonsense_on_the_wire_is_refused_and_the_server_lives(port, channel, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(5):
        while await reader.read(65536):
            continue
    writer.close()
    assert await echo(channel, named("m")) == named("m")


async def test_a_client_that_does_not_ask_for_trailers_gets_its_status_all_the_same(port):
    client = zttp.Connection(zttp.CLIENT, protocol=zttp.HTTP2)
    client.initiate_connection()
    headers = [(b"host", b"a"), (b"content-type", b"application/grpc")]
    stream = client.send_request(b"POST", ECHO.encode(), b"2", headers)
    stream.send_data(frame(named("m")))
    stream.end_message()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    trailers = None
    async with asyncio.timeout(5):
        while trailers is None:
            writer.write(client.data_to_send())
            client.receive_data(await reader.read(65536))
            while (event := client.next_event()) is not zttp.NEED_DATA:
                if isinstance(event, zttp.EndOfMessage):
                    trailers = dict(event.trailers or ())
    writer.close()
    assert trailers == {b"grpc-status": b"0"}

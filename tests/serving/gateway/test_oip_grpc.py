"""The OIP over gRPC: what is passed on, what is merged, and the status of everything that is refused."""

import asyncio
import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.protocol.oip_grpc import SERVICE
from tests.serving.gateway.replica import request

STEADY = pytest.mark.asyncio(loop_scope="module")


async def call(site, name, message, within_s=5, **options):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return await site.channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=within_s, **options)


def load(name, **parameters):
    message = pb.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        field = "bytes_param" if isinstance(value, bytes) else "string_param"
        setattr(message.parameters[key], field, value)
    return message


def files(path, data=b"abc"):
    return load("echo", **{"config": '{"backend": "python"}', f"file:{path}": data})


def register(**fields):
    return pb.SystemSharedMemoryRegisterRequest(**{"name": "a", "key": "/a", "byte_size": 1, **fields})


def trace(**settings):
    message = pb.TraceSettingRequest()
    for name, values in settings.items():
        message.settings[name].value.extend(values)
    return message


def log_level(value):
    message = pb.LogSettingsRequest()
    message.settings["log_info"].uint32_param = value
    return message


CASES = {
    "unknown": ("ModelInfer", request("nobody"), "NOT_FOUND", "Request for unknown model: 'nobody'"),
    "unknown-config": ("ModelConfig", pb.ModelConfigRequest(name="nobody"), "NOT_FOUND", "unknown model: 'nobody'"),
    "unknown-metadata": ("ModelMetadata", pb.ModelMetadataRequest(name="x"), "NOT_FOUND", "unknown model: 'x'"),
    "unknown-stats": ("ModelStatistics", pb.ModelStatisticsRequest(name="x"), "INVALID_ARGUMENT", "'x' is not avail"),
    "name": ("ModelInfer", request("../x"), "INVALID_ARGUMENT", "model name"),
    "long-name": ("ModelReady", pb.ModelReadyRequest(name="x" * 99_999), "INVALID_ARGUMENT", "model name"),
    "load-name": ("RepositoryModelLoad", load("../x"), "INVALID_ARGUMENT", "model name"),
    "load-path": ("RepositoryModelLoad", files("../x"), "INVALID_ARGUMENT", "inside the model's folder"),
    "load-absolute": ("RepositoryModelLoad", files("/x"), "INVALID_ARGUMENT", "inside the model's folder"),
    "load-text": ("RepositoryModelLoad", files("1/x", "abc"), "INVALID_ARGUMENT", "must be given as bytes_param"),
    "load-deep": ("RepositoryModelLoad", load("echo", config="[" * 100_000), "INVALID_ARGUMENT", "more than 64 deep"),
    "region-key": ("SystemSharedMemoryRegister", register(key="/../a"), "INVALID_ARGUMENT", "key: '/../a'"),
    "region-name": ("SystemSharedMemoryRegister", register(name=""), "INVALID_ARGUMENT", "region name"),
    "region": ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="z"), "NOT_FOUND", "region: 'z'"),
    "trace": ("TraceSetting", trace(trace_rate=["x"]), "INVALID_ARGUMENT", "Unable to parse 'trace_rate'"),
    "trace-many": ("TraceSetting", trace(trace_rate=["1", "2"]), "INVALID_ARGUMENT", "expects one value"),
    "log": ("LogSettings", log_level(3), "INVALID_ARGUMENT", "log_info: must be a boolean"),
    "garbage": ("ModelInfer", b"\xff\xff\xff", "INVALID_ARGUMENT", "is no ModelInferRequest"),
    "truncated": ("ModelConfig", b"\x0a\x20abc", "INVALID_ARGUMENT", "is no ModelConfigRequest"),
    "no-utf8": ("RepositoryIndex", b"\x0a\x02\xff\xfe", "INVALID_ARGUMENT", "is no RepositoryIndexRequest"),
    "no-such-call": ("ModelTelepathy", b"", "UNIMPLEMENTED", ""),
    "too-large": ("ModelInfer", bytes(3 << 20), "RESOURCE_EXHAUSTED", ""),
    "silent": ("ModelReady", pb.ModelReadyRequest(name="echo"), "UNIMPLEMENTED", ""),
}


@STEADY
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_refusals_have_their_status_and_words(steady, case):
    name, message, status, problem = case
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(steady, name, message)
    assert caught.value.code().name == status
    assert problem in caught.value.details()
    assert len(caught.value.details()) < 600
    assert pb.ServerLiveResponse.FromString(await call(steady, "ServerLive", b"")).live


@STEADY
@pytest.mark.parametrize("compression", list(grpc.Compression))
async def test_inference_is_passed_on_as_it_came_compressed_or_not(steady, compression):
    answer = await call(steady, "ModelInfer", request("echo", "r1"), compression=compression)
    assert pb.ModelInferResponse.FromString(answer).id == "r1"


@STEADY
async def test_requests_of_a_sequence_go_to_one_replica(steady):
    for sequence in ("a", "b", 7):
        answers = [await call(steady, "ModelInfer", request("together", sequence_id=sequence)) for _ in range(5)]
        found = [pb.ModelInferResponse.FromString(answer).parameters["replica"].string_param for answer in answers]
        assert len(set(found)) == 1


@STEADY
async def test_both_wires_tell_the_same(steady):
    stub, http = steady.stub, steady.http
    server = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert list(server.extensions) == (await http.get("/v2")).json()["extensions"]
    model = await stub.ModelMetadata(pb.ModelMetadataRequest(name="echo"))
    assert list(model.versions) == (await http.get("/v2/models/echo")).json()["versions"] == ["1", "2"]
    assert list(model.inputs[0].shape) == [-1]
    statistics = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="echo"))
    [told] = (await http.get("/v2/models/echo/stats")).json()["model_stats"]
    assert statistics.model_stats[0].inference_count == told["inference_count"] == 4
    assert statistics.model_stats[0].batch_stats[0].compute_infer.ns == 10
    assert (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats[0].name == "echo"
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    told = (await http.post("/v2/repository/index")).json()
    assert [(m.name, m.state) for m in index.models] == [(m["name"], m.get("state", "")) for m in told]
    assert "extra" in {m["name"] for m in told}
    assert "extra" not in {m.name for m in (await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models}
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready


@STEADY
async def test_readiness_of_an_unknown_model_is_an_answer_and_no_error(steady):
    answer = await call(steady, "ModelReady", pb.ModelReadyRequest(name="nobody"))
    assert not pb.ModelReadyResponse.FromString(answer).ready


KEYS = {
    "its-model": ("infer/ech*", "ModelInfer", request("echo"), None),
    "another": ("infer/ech*", "ModelInfer", request("silent"), "PERMISSION_DENIED"),
    "all-statistics": ("infer/echo", "ModelStatistics", b"", "PERMISSION_DENIED"),
    "control": ("infer/*", "LogSettings", b"", "PERMISSION_DENIED"),
    "control-allowed": ("control/*", "LogSettings", b"", None),
    "load-another": ("control/echo", "RepositoryModelLoad", load("extra"), "PERMISSION_DENIED"),
    "forged": ("everything/*", "ModelInfer", request("echo"), "PERMISSION_DENIED"),
    "index": ("infer/echo", "RepositoryIndex", b"", None),
}


@STEADY
@pytest.mark.parametrize("case", KEYS.values(), ids=KEYS.keys())
async def test_keys_are_checked_for_the_model_in_the_message(steady, case):
    grant, name, message, status = case
    metadata = (("x-reelmesh-key", "ci"), ("x-reelmesh-grant", grant))
    if status is None:
        await call(steady, name, message, metadata=metadata)
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(steady, name, message, metadata=metadata)
    assert caught.value.code().name == status


async def test_a_replica_that_is_gone_is_unavailable(oip):
    for replica in oip.replicas:
        await replica.grpc.stop(None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(oip, "ModelInfer", request("echo"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_request_that_no_replica_has_seen_goes_to_another(oip):
    await oip.replicas[0].grpc.stop(None)
    for number in range(8):
        answer = pb.ModelInferResponse.FromString(await call(oip, "ModelInfer", request("echo", f"{number}")))
        assert answer.parameters["replica"].string_param == "two"


async def test_a_replica_that_leaves_finishes_what_it_has(oip):
    working = asyncio.create_task(call(oip, "ModelInfer", request("echo", "slow", sleep_ms=700)))
    async with asyncio.timeout(5):
        while not any(replica.seen for replica in oip.replicas):  # noqa: ASYNC110 - it happens in a replica
            await asyncio.sleep(0.01)
    [leaving] = [replica for replica in oip.replicas if replica.seen]
    del oip.edge.beats[leaving.replica_id]
    await call(oip, "ModelInfer", request("echo", "next"))
    assert pb.ModelInferResponse.FromString(await working).id == "slow"


async def test_a_full_queue_says_when_to_come_again(oip):
    for control in oip.controls:
        control.loaded["full"] = "READY"
        await control.beat()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(oip, "ModelInfer", request("full"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "7000"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(path):
    """A header block of literals without indexing."""
    names = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    pieces = [b"\x00" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in names.items()]
    return frame(1, 4, 1, b"".join(pieces))


HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
INFER = headers("/inference.GRPCInferenceService/ModelInfer")
RAW = {
    "cut-in-the-length": HELLO + INFER + frame(0, 1, 1, b"\x00\x00\x00"),
    "cut-in-the-message": HELLO + INFER + frame(0, 1, 1, b"\x00\x00\x00\x00\x50abc"),
    "four-gigabytes-promised": HELLO + INFER + frame(0, 1, 1, b"\x00\xff\xff\xff\xffabc"),
    "compressed-garbage": HELLO + INFER + frame(0, 1, 1, b"\x01\x00\x00\x00\x03abc"),
    "no-message": HELLO + INFER + frame(0, 1, 1),
    "cut-stream": HELLO + headers("/inference.GRPCInferenceService/ModelStreamInfer") + frame(0, 1, 1, b"\x00\x00"),
    "no-http2": b"GET / HTTP/1.1\r\n\r\n",
    "broken-frame": HELLO + b"\xff" * 100,
    "headers-and-nothing": HELLO + INFER,
}


@STEADY
@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
async def test_broken_frames_end_their_connection_alone(steady, raw):
    host, port = steady.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    await writer.drain()
    await asyncio.wait({asyncio.create_task(reader.read(9999))}, timeout=0.2)
    writer.close()
    answer = await call(steady, "ModelInfer", request("echo", "alive"))
    assert pb.ModelInferResponse.FromString(answer).id == "alive"


@STEADY
@pytest.mark.parametrize("method", [m.name for m in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods])
async def test_every_call_of_the_service_is_served(steady, method):
    if method == "ModelStreamInfer":
        return  # tests of its own
    try:
        await call(steady, method, b"")
    except grpc.aio.AioRpcError as error:
        assert error.code() not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)

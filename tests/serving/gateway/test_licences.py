"""The gateway keeps commercial work from weights whose licence forbids it, in what it passes on itself."""

import grpc
import pytest

from serving.protocol.licences import NON_COMMERCIAL, USE_HEADER, metadata_of
from tests.serving.gateway.oip_site import open_oip
from tests.serving.gateway.replica import request

FREE = metadata_of(NON_COMMERCIAL)
TEXT = "model: not for sale: no other model here does the same for commercial work; or, for other work, "
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1.0]}]}


@pytest.fixture
async def oip():
    """A mesh of one replica whose model ``echo`` refuses commercial work."""
    async with open_oip(names=("one",)) as opened:
        for name, beat in opened.edge.beats.items():
            endpoints = [
                each.model_copy(update={"refuses": "not for sale" if each.model == "echo" else ""})
                for each in beat.endpoints
            ]
            opened.edge.beats[name] = beat.model_copy(update={"endpoints": endpoints})
        yield opened


@pytest.mark.parametrize("call", ["infer", "generate", "generate_stream"])
async def test_http_calls_are_refused_unless_they_say_that_they_are_not_commercial(oip, call):
    refused = await oip.http.post(f"/v2/models/echo/{call}", json=BODY)
    assert refused.status_code == 403
    assert refused.json()["error"].startswith(TEXT)
    async with oip.http.stream("POST", f"/v2/models/echo/{call}", json=BODY, headers=dict(FREE)) as answer:
        assert answer.status_code == 200


async def test_grpc_calls_are_refused_alike(oip):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oip.stub.ModelInfer(request("echo"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details().startswith(TEXT)
    assert (await oip.stub.ModelInfer(request("echo", "a"), metadata=FREE)).id == "a"


async def test_a_message_of_a_stream_is_refused_by_itself_and_the_stream_goes_on(oip):
    messages = [request("echo", "a"), request("decoupled", "b", 1)]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    told = {answer.infer_response.id: answer.error_message for answer in answers}
    assert told["a"].startswith(TEXT)
    assert told["b"] == ""
    free = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages[:1]), metadata=FREE)]
    assert [answer.error_message for answer in free] == [""]


async def test_reading_about_a_model_is_no_use_of_its_weights(oip):
    assert (await oip.http.get("/v2/models/echo/config")).status_code == 200


async def test_a_replica_hears_what_a_request_is_for(oip):
    (replica,) = oip.replicas
    await oip.http.post("/v2/models/echo/infer", json=BODY, headers=dict(FREE))
    await oip.stub.ModelInfer(request("echo"), metadata=FREE)
    await oip.stub.ModelStreamInfer(iter([request("echo")]), metadata=FREE).read()
    assert dict(replica.bodies[-1][1])[USE_HEADER] == NON_COMMERCIAL
    assert replica.uses == [NON_COMMERCIAL] * 2
    await oip.stub.ModelStreamInfer(iter([request("decoupled", "b", 1)])).read()
    assert replica.uses[2:] == [None], "what is commercial need not be told"

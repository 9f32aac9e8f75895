"""ModelStreamInfer through the gateway: merged answers, refusals and dead replicas in a stream that goes on."""

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_stream import InferStream
from tests.serving.gateway.oip_site import open_oip
from tests.serving.gateway.replica import request


async def told(call, count):
    answers = []
    async with asyncio.timeout(10):
        while len(answers) < count:
            answer = await call.read()
            assert answer is not grpc.aio.EOF
            answers.append(answer)
    return answers


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a replica
            await asyncio.sleep(0.01)


def ids(answers):
    return [answer.infer_response.id for answer in answers]


async def test_every_message_is_answered_and_the_stream_ends_with_the_client(oip):
    messages = [request("echo", f"r{number}") for number in range(50)]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    assert ids(answers) == [f"r{number}" for number in range(50)]
    assert not any(answer.error_message for answer in answers)
    assert len({answer.infer_response.parameters["replica"].string_param for answer in answers}) == 1


async def test_an_unknown_model_is_an_error_with_the_requests_id_and_the_stream_goes_on(oip):
    messages = [request("nobody", "a"), request("../x", "b"), request("echo", "c")]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    assert ids(answers) == ["a", "b", "c"]
    assert answers[0].error_message == "Request for unknown model: 'nobody' is not found"
    assert "model name" in answers[1].error_message
    assert not answers[2].error_message


@pytest.mark.parametrize("wanted", [True, False], ids=["asked-for", "not-asked-for"])
async def test_an_empty_final_response_comes_when_the_client_asked_for_it(oip, wanted):
    parameters = {"triton_enable_empty_final_response": True} if wanted else {}
    messages = [request("decoupled", "d", 3, **parameters), request("decoupled", "none", 0, **parameters)]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    assert ids(answers) == (["d"] * 4 + ["none"] if wanted else ["d"] * 3)


async def test_the_gateway_itself_knows_of_every_end_so_that_decoupled_streams_have_no_end(oip, monkeypatch):
    monkeypatch.setattr("serving.gateway.oip_stream.IN_FLIGHT", 4)
    messages = [request("decoupled", f"d{number}", 2) for number in range(20)]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    assert len(answers) == 40


async def test_messages_of_a_sequence_go_to_one_replica_and_sequences_are_spread(oip):
    messages = [request("together", f"{n}", sequence_id=1 + n % 20) for n in range(60)]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    assert len(answers) == 60
    places = [{m.parameters["sequence_id"].int64_param for m in replica.seen} for replica in oip.replicas]
    assert places[0] | places[1] == set(range(1, 21))
    assert places[0]
    assert places[1]
    assert not places[0] & places[1]


async def test_a_replica_that_dies_fails_its_requests_alone_and_others_take_over(oip):
    call = oip.stub.ModelStreamInfer()
    await call.write(request("echo", "first"))
    await told(call, 1)
    await call.write(request("silent", "lost"))
    await until(lambda: any(m.model_name == "silent" for replica in oip.replicas for m in replica.seen))
    [dying] = [each for each in oip.replicas if any(m.model_name == "silent" for m in each.seen)]
    await dying.grpc.stop(None)
    [lost] = await told(call, 1)
    assert lost.infer_response.id == "lost"
    assert "the replica ended the stream" in lost.error_message
    for number in range(10):
        await call.write(request("echo", f"n{number}"))
    answers = await told(call, 10)
    assert sorted(ids(answers)) == sorted(f"n{number}" for number in range(10))
    assert not any(answer.error_message for answer in answers)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_when_nobody_is_left_each_message_says_so(oip):
    for replica in oip.replicas:
        await replica.grpc.stop(None)
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter([request("echo", "a"), request("echo", "b")]))]
    assert ids(answers) == ["a", "b"]
    assert all("replica" in answer.error_message for answer in answers)


async def test_a_message_that_is_none_is_refused_in_the_stream(oip):
    call = oip.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
    for data in (b"\xff\xff\xff", b"\x0a\x40x", request("echo", "good").SerializeToString()):
        await call.write(data)
    await call.done_writing()
    answers = [pb.ModelStreamInferResponse.FromString(data) async for data in call]
    assert [bool(answer.error_message) for answer in answers] == [True, True, False]


async def test_a_client_that_cancels_ends_the_replicas_streams(oip):
    call = oip.stub.ModelStreamInfer()
    await call.write(request("silent", "s"))
    await until(lambda: any(replica.seen for replica in oip.replicas))
    call.cancel()
    await until(lambda: not any("_pump" in repr(task) for task in asyncio.all_tasks()))


async def test_the_clients_deadline_ends_the_stream(oip):
    call = oip.stub.ModelStreamInfer(timeout=0.5)
    await call.write(request("silent", "s"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await told(call, 2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_reads_nothing_holds_only_itself_up(oip):
    async def flood():
        call = oip.stub.ModelStreamInfer()
        try:
            for _ in range(200):
                await call.write(request("decoupled", "x", 100_000))
            await asyncio.sleep(30)
        finally:
            call.cancel()

    flooding = asyncio.create_task(flood())
    await until(lambda: any(replica.seen for replica in oip.replicas))
    await asyncio.sleep(0.3)
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter([request("echo", "ok")]), timeout=10)]
    assert ids(answers) == ["ok"]
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    await until(lambda: not any("InferStream" in repr(task) or "_pump" in repr(task) for task in asyncio.all_tasks()))


async def test_keys_are_checked_for_every_message(oip):
    metadata = (("x-reelmesh-key", "ci"), ("x-reelmesh-grant", "infer/ech*"))
    messages = [request("echo", "a"), request("silent", "b"), request("echo", "c")]
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages), metadata=metadata)]
    found = {answer.infer_response.id: answer.error_message for answer in answers}
    assert found["a"] == found["c"] == ""
    assert "does not allow ModelInfer for the model 'silent'" in found["b"]


async def test_an_error_of_a_replica_is_passed_on_with_its_id(oip):
    for control in oip.controls:
        control.loaded["refusing"] = "READY"
        await control.beat()
    answers = [answer async for answer in oip.stub.ModelStreamInfer(iter([request("refusing", "x")]))]
    assert (ids(answers), answers[0].error_message) == (["x"], "I refuse")


async def serving(oip, *models):
    for control in oip.controls:
        control.loaded |= dict.fromkeys(models, "READY")
        await control.beat()


async def test_a_replica_that_answers_nonsense_fails_its_requests_and_the_stream_goes_on(oip):
    await serving(oip, "nonsense")
    call = oip.stub.ModelStreamInfer()
    await call.write(request("nonsense", "x"))
    [answer] = await told(call, 1)
    assert (answer.infer_response.id, "nonsense" in answer.error_message) == ("x", True)
    await call.write(request("echo", "y"))
    assert ids(await told(call, 1)) == ["y"]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


STRICT = (("triton_grpc_error", "true"),)


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("nobody", grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
        ("failing", grpc.StatusCode.OUT_OF_RANGE, "that far I cannot count"),
    ],
    ids=["of-the-gateway", "of-a-replica"],
)
async def test_a_client_that_asks_for_it_has_its_stream_ended_by_the_first_errors_status(oip, model, code, words):
    await serving(oip, "failing")
    call = oip.stub.ModelStreamInfer(metadata=STRICT)
    await call.write(request("echo", "a"))
    assert ids(await told(call, 1)) == ["a"]
    await call.write(request(model, "b"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await told(call, 1)
    assert (caught.value.code(), caught.value.details()) == (code, words)


async def test_what_a_stream_holds_of_messages_is_bounded_with_all_others():
    async with open_oip(["one"], gateway_bytes=10_000) as oip:
        messages = [request("echo", "x" * 20_000), request("echo", "small")]
        answers = [answer async for answer in oip.stub.ModelStreamInfer(iter(messages))]
    assert "limits.gateway_bytes" in answers[0].error_message
    assert not answers[1].error_message


async def test_versions_that_a_client_makes_up_are_not_remembered_without_end(oip, monkeypatch):
    monkeypatch.setattr("serving.gateway.oip_stream.MOST_CHOSEN", 8)
    channels = Channels(oip.plane.mesh, oip.plane.limits)
    stream = InferStream(oip.plane, channels)

    async def messages():
        for number in range(50):
            message = request("echo", f"{number}")
            message.model_version = str(number)
            yield message.SerializeToString()

    answers = [answer async for answer in stream.answers(messages())]
    assert len(answers) == 50
    assert len(stream._chosen) <= 8
    await channels.close()

"""grpc.health.v1 and reflection, as Kubernetes and grpcurl ask them."""

import asyncio
import contextlib

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from serving.gateway import oip_health
from serving.protocol.oip_grpc import SERVICE

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def health(oip):
    return health_pb2_grpc.HealthStub(oip.channel)


async def lose(oip, state="UNAVAILABLE"):
    for control in oip.controls:
        control.loaded["echo"] = state
        await control.beat()


async def test_the_mesh_and_each_model_have_a_status(oip, health):
    for service in ("", SERVICE, "echo", "decoupled"):
        assert (await health.Check(pb.HealthCheckRequest(service=service))).status == SERVING
    assert (await health.Check(pb.HealthCheckRequest(service="extra"))).status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(pb.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await lose(oip, "LOADING")
    for service, status in (("", NOT_SERVING), (SERVICE, NOT_SERVING), ("echo", NOT_SERVING), ("decoupled", SERVING)):
        assert (await health.Check(pb.HealthCheckRequest(service=service))).status == status


async def test_a_watch_tells_every_change_and_several_may_watch(oip, health):
    watches = [health.Watch(pb.HealthCheckRequest(service="echo")) for _ in range(2)]
    async with asyncio.timeout(10):
        assert [(await watch.read()).status for watch in watches] == [SERVING] * 2
        await lose(oip)
        assert [(await watch.read()).status for watch in watches] == [NOT_SERVING] * 2
        watches[0].cancel()
        await lose(oip, "READY")
        assert (await watches[1].read()).status == SERVING
    watches[1].cancel()


async def test_what_is_unknown_may_be_watched_until_it_comes(oip, health):
    watch = health.Watch(pb.HealthCheckRequest(service="later"))
    async with asyncio.timeout(10):
        assert (await watch.read()).status == pb.HealthCheckResponse.SERVICE_UNKNOWN
        oip.controls[0].loaded["later"] = "READY"
        await oip.controls[0].beat()
        assert (await watch.read()).status == SERVING
    watch.cancel()


async def test_watches_are_bounded_and_those_that_end_make_room(oip, health, monkeypatch):
    """They need no key and never end: without a bound they lock everybody out."""
    monkeypatch.setattr(oip_health, "MOST_WATCHES", 2)
    watches = [health.Watch(pb.HealthCheckRequest()) for _ in range(2)]
    async with asyncio.timeout(10):
        assert [(await watch.read()).status for watch in watches] == [SERVING] * 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Watch(pb.HealthCheckRequest()).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await health.Check(pb.HealthCheckRequest())).status == SERVING
        watches.pop().cancel()
        while True:
            watches.append(health.Watch(pb.HealthCheckRequest()))
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert (await watches[-1].read()).status == SERVING
                break
    for watch in watches:
        watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_the_inference_service(oip, version):
    call = oip.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, described = [answer async for answer in call(iter(asked))]
    names = {service.name for service in services.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= names
    files = [FileDescriptorProto.FromString(data) for data in described.file_descriptor_response.file_descriptor_proto]
    assert "GRPCInferenceService" in {service.name for file in files for service in file.service}

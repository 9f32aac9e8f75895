import asyncio
import contextlib
import gc
import time

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.client import NEVER, Mesh, Retries
from serving.client.segments import FOLDER
from serving.errors import (
    BadInput,
    DeadlineExceeded,
    EngineFailed,
    NotFound,
    QueueFull,
    ReelmeshError,
    Unavailable,
    Unsupported,
)
from tests.serving.client.conftest import TOKEN, Answer, Scripted

real = pytest.mark.asyncio(loop_scope="session")
SMALL = np.arange(4, dtype=np.float32)
BIG = np.random.default_rng(0).random(1 << 19, np.float32)
ANSWER = pb.ModelInferResponse(
    model_name="m",
    outputs=[pb.ModelInferResponse.InferOutputTensor(name="Y", datatype="FP32", shape=[1])],
    raw_output_contents=[bytes(4)],
).SerializeToString()


@real
async def test_arrays_go_to_a_model_and_come_back(triton: str) -> None:
    async with Mesh(f"grpc://{triton}") as mesh:
        result = await mesh.infer("echo", X=SMALL, request_id="7", deadline_s=10, outputs=["Y"], priority=1)
        assert (result.model, result.version, result.id) == ("echo", "1", "7")
        assert result["Y"].tolist() == SMALL.tolist()
        words = np.array(["scene", "ünïcode", b"\x00raw"], dtype=object)
        assert (await mesh.infer("strings", {"X": words}))["Y"].tolist() == [b"scene", "ünïcode".encode(), b"\x00raw"]


@real
async def test_the_best_classes_are_asked_for_by_their_number(triton: str) -> None:
    async with Mesh(triton) as mesh:
        result = await mesh.infer("echo", X=SMALL, outputs={"Y": 2})
        [row] = result.classes("Y")
        assert [(best.index, best.score) for best in row] == [(3, 3.0), (2, 2.0)]


@real
async def test_big_arrays_go_through_shared_memory_that_is_used_again_and_removed(triton: str) -> None:
    async with Mesh(triton, metadata=TOKEN) as mesh:
        for _ in range(3):
            result = await mesh.infer("echo", X=BIG, outputs=["Y"], output_bytes={"Y": BIG.nbytes})
            assert np.array_equal(result["Y"], BIG)
            del result
            gc.collect()
        [segment] = mesh._regions._all
        assert await mesh.registered(segment.name)
        assert np.array_equal((await mesh.infer("echo", X=BIG))["Y"], BIG)
        assert len(mesh._regions._all) == 1
    assert not (FOLDER / segment.name).exists()
    async with Mesh(triton, metadata=TOKEN) as mesh:
        assert not await mesh.registered(segment.name)


@real
async def test_answers_that_are_kept_keep_their_values(triton: str) -> None:
    async with Mesh(triton, metadata=TOKEN) as mesh:
        kept = [
            (await mesh.infer("echo", X=BIG + number, outputs=["Y"], output_bytes={"Y": BIG.nbytes}))["Y"]
            for number in range(3)
        ]
    assert [round(float(array[0] - BIG[0])) for array in kept] == [0, 1, 2]


@real
async def test_a_server_that_opens_no_shared_memory_gets_big_arrays_by_the_wire(triton: str) -> None:
    async with Mesh(triton) as mesh:
        assert np.array_equal((await mesh.infer("echo", X=BIG))["Y"], BIG)
        assert mesh._regions.held_bytes == 0


@real
async def test_a_server_that_lost_its_regions_gets_big_arrays_by_the_wire(triton: str) -> None:
    async with Mesh(triton, metadata=TOKEN) as mesh:
        await mesh.infer("echo", X=BIG)
        [segment] = mesh._regions._all
        await mesh.unregister(segment.name)
        assert np.array_equal((await mesh.infer("echo", X=BIG))["Y"], BIG)


@real
async def test_a_region_that_a_late_answer_may_still_be_written_to_is_not_used_again(triton: str) -> None:
    slow = BIG.copy()
    slow[0] = -0.5
    async with Mesh(triton, metadata=TOKEN) as mesh:
        with pytest.raises(DeadlineExceeded):
            await mesh.infer("echo", X=slow, outputs=["Y"], output_bytes={"Y": BIG.nbytes}, deadline_s=0.2)
        result = await mesh.infer("echo", X=BIG, outputs=["Y"], output_bytes={"Y": BIG.nbytes})
        await asyncio.sleep(0.5)
        assert np.array_equal(result["Y"], BIG)


@real
async def test_an_unknown_model_or_input_is_told_by_its_class(triton: str) -> None:
    async with Mesh(triton, server="Triton") as mesh:
        with pytest.raises(NotFound, match="nothing: Triton: Request for unknown model"):
            await mesh.infer("nothing", X=SMALL)
        with pytest.raises(BadInput, match="unexpected inference input 'Q'"):
            await mesh.infer("echo", Q=SMALL)


@real
async def test_a_decoupled_model_is_a_loop(triton: str) -> None:
    async with Mesh(triton) as mesh:
        parts = [part["Y"].tolist() async for part in mesh.stream("count", X=np.float32([3]))]
        assert parts == [[0], [1], [2]]
        assert [part async for part in mesh.stream("count", X=np.float32([0]))] == []
        whole = [part["Y"].tolist() async for part in mesh.stream("echo", X=SMALL)]
        assert whole == [SMALL.tolist()]


@real
async def test_leaving_the_loop_cancels_the_request(triton: str) -> None:
    async with Mesh(triton) as mesh:
        started = time.monotonic()
        async with contextlib.aclosing(mesh.stream("count", X=np.float32([3000]))) as parts:
            async for part in parts:
                if part["Y"][0] >= 2:
                    break
        # The model answers one request at a time: the next one waits until the first has ended.
        assert len([part async for part in mesh.stream("count", X=np.float32([1]), deadline_s=10)]) == 1
        assert time.monotonic() - started < 10


@real
async def test_a_stream_that_fails_is_told(triton: str) -> None:
    async with Mesh(triton) as mesh:
        with pytest.raises(ReelmeshError, match="nothing: Request for unknown model"):
            [part async for part in mesh.stream("nothing", X=SMALL)]
        with pytest.raises(DeadlineExceeded):
            [part async for part in mesh.stream("count", X=np.float32([500]), deadline_s=0.3)]


def after(failures: int, code: grpc.StatusCode, *metadata: tuple[str, str]) -> Answer:
    """Fails some times, then answers."""
    left = failures

    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        nonlocal left
        left -= 1
        if left >= 0:
            await context.abort(code, "not now", metadata)
        return ANSWER

    return answer


async def test_a_full_queue_is_asked_again_when_it_said_so(scripted: tuple[str, Scripted]) -> None:
    address, server = scripted
    server.answers = {"ModelInfer": after(2, grpc.StatusCode.UNAVAILABLE, ("retry-after", "0"))}
    async with Mesh(address) as mesh:
        assert (await mesh.infer("m", X=SMALL))["Y"].shape == (1,)
    assert len(server.calls) == 3


async def test_a_full_queue_that_stays_full_is_told_with_its_wait(scripted: tuple[str, Scripted]) -> None:
    address, server = scripted
    server.answers = {"ModelInfer": after(9, grpc.StatusCode.UNAVAILABLE, ("retry-after", "30"))}
    async with Mesh(address) as mesh:
        with pytest.raises(QueueFull) as caught:
            await mesh.infer("m", X=SMALL, deadline_s=5)
    assert caught.value.retry_after_s == 30
    assert len(server.calls) == 1


@pytest.mark.parametrize(("idempotent", "calls"), [(False, 1), (True, 3)], ids=["once", "may run twice"])
async def test_a_request_that_may_have_run_is_repeated_only_when_it_may_run_twice(
    scripted: tuple[str, Scripted], idempotent: bool, calls: int
) -> None:
    address, server = scripted
    server.answers = {"ModelInfer": after(2, grpc.StatusCode.UNAVAILABLE)}
    async with Mesh(address) as mesh:
        with contextlib.nullcontext() if idempotent else pytest.raises(Unavailable, match="m: not now"):
            await mesh.infer("m", X=SMALL, idempotent=idempotent)
    assert len(server.calls) == calls


async def test_an_engine_that_failed_is_not_asked_again(scripted: tuple[str, Scripted]) -> None:
    address, server = scripted
    server.answers = {"ModelInfer": after(1, grpc.StatusCode.INTERNAL)}
    async with Mesh(address) as mesh:
        with pytest.raises(EngineFailed):
            await mesh.infer("m", X=SMALL, idempotent=True)
    assert len(server.calls) == 1


async def test_a_server_that_starts_late_is_found(free_port: int) -> None:
    handler = Scripted()
    handler.answers = {"ModelInfer": after(0, grpc.StatusCode.OK)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{free_port}")
    async with Mesh(f"127.0.0.1:{free_port}", retries=Retries(attempts=50, longest_pause_s=0.1)) as mesh:
        asking = asyncio.create_task(mesh.infer("m", X=SMALL))
        await asyncio.sleep(0.2)
        assert not asking.done()
        await server.start()
        assert (await asking)["Y"].shape == (1,)
    await server.stop(None)


async def test_nobody_there_is_told_within_the_bound_of_attempts(free_port: int) -> None:
    async with Mesh(f"127.0.0.1:{free_port}", retries=NEVER) as mesh:
        with pytest.raises(Unavailable, match="no server answers"):
            await mesh.infer("m", X=SMALL)


async def test_a_model_that_takes_no_shared_memory_gets_big_arrays_by_the_wire(scripted: tuple[str, Scripted]) -> None:
    async def infer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if b"shared_memory_region" in message[:1000]:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "shared memory is not supported for 'X'")
        return ANSWER

    async def empty(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b""

    address, server = scripted
    server.answers = {
        "ModelInfer": infer, "SystemSharedMemoryRegister": empty, "SystemSharedMemoryUnregister": empty,
    }  # fmt: skip
    async with Mesh(address) as mesh:
        await mesh.infer("m", X=BIG)
        await mesh.infer("m", X=BIG)
    assert server.calls.count("ModelInfer") == 3
    assert server.calls.count("SystemSharedMemoryRegister") == 1


async def test_the_key_travels_as_bearer_token(scripted: tuple[str, Scripted]) -> None:
    async def infer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if ("authorization", "Bearer secret") not in [tuple(pair) for pair in context.invocation_metadata()]:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
        return ANSWER

    address, server = scripted
    server.answers = {"ModelInfer": infer}
    async with Mesh(address, key="secret") as mesh:
        await mesh.infer("m", X=SMALL)
    with pytest.raises(Unsupported):
        async with Mesh(address) as mesh:
            await mesh.server()

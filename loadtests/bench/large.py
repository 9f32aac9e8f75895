"""A tensor of 64 MiB: by shared memory against a plain memcpy, by gRPC against bare Triton; used by loadtests.bench.

The one invariant: the ways are measured in turns, and every answer's shape and last element are looked at.
"""

import contextlib
import json
import mmap
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from loadtests.bench.inference import Addresses
from loadtests.bench.models import LARGE_BYTES
from loadtests.bench.results import Large
from loadtests.bench.wire import GRPC_OPTIONS, METHOD, WrongAnswer, post
from loadtests.payloads import Payload
from serving.protocol.oip import Tensor
from serving.protocol.oip_wire import RESPONSE_CONTENTS, split_contents

FOLDER: Final = Path("/dev/shm")  # noqa: S108  where Linux shows POSIX shared memory
ROUNDS: Final = 7
CALL_S: Final = 60.0
_OK: Final = 200

Stub = Callable[[bytes], bytes]


def measure_large(mesh: Addresses, triton: Addresses | None, rounds: int = ROUNDS) -> Large:
    """All of it; raises :class:`WrongAnswer` where the mesh refuses."""
    values = np.random.default_rng(0).random(LARGE_BYTES // 4, np.float32)
    payload = Payload("identity", (Tensor("X", "FP32", values.shape, values.view(np.uint8).data),), "Y")
    message = payload.grpc()
    times: dict[str, list[float]] = {"memcpy": [], "shared": [], "mesh": [], "bare": []}
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(channel(mesh.grpc))
        bare = stack.enter_context(channel(triton.grpc)) if triton else None
        region = stack.enter_context(registered(mesh.http or ""))
        asked = shared_request(region.name, values.shape)
        before = compute_s(target)
        for number in range(rounds + 1):
            taken = {
                "memcpy": timed(lambda: region.write(values)),
                "shared": timed(lambda: shared_call(target, asked, region, values)),
                "mesh": timed(lambda: wire_call(target, message, values)),
                "bare": timed(lambda: wire_call(bare, message, values)) if bare else 0.0,
            }
            if number:  # the first round warms up
                for name, seconds in taken.items():
                    times[name].append(seconds)
        model_s = (compute_s(target) - before) / (2 * (rounds + 1))
    return Large(
        mib=LARGE_BYTES >> 20,
        memcpy_ms=_ms(times["memcpy"]),
        model_ms=round(model_s * 1000, 2),
        shared_ms=_ms(times["shared"]),
        mesh_grpc_ms=_ms(times["mesh"]),
        bare_grpc_ms=_ms(times["bare"]) if triton else None,
    )


class Region:
    """Shared memory of twice the tensor: the input, then the output."""

    def __init__(self, name: str) -> None:
        self.name = name
        descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, 2 * LARGE_BYTES)
            self.memory = mmap.mmap(descriptor, 2 * LARGE_BYTES)
        finally:
            os.close(descriptor)

    def write(self, values: np.ndarray[Any, Any]) -> None:
        """Copy the input in: the plain memcpy."""
        np.copyto(np.frombuffer(self.memory, np.float32, len(values)), values)

    def last(self) -> float:
        """The output's last element."""
        return float(np.frombuffer(self.memory, np.float32, 1, 2 * LARGE_BYTES - 4)[0])


@contextlib.contextmanager
def registered(base_url: str) -> Iterator[Region]:
    """A region that the whole mesh knows; raises :class:`WrongAnswer` when it is refused."""
    region = Region(f"reelmesh-bench-{secrets.token_hex(6)}")
    path = f"{base_url}/v2/systemsharedmemory/region/{region.name}"
    body = json.dumps({"key": f"/{region.name}", "offset": 0, "byte_size": 2 * LARGE_BYTES}).encode()
    try:
        status, _, answer = post(f"{path}/register", body, {"Content-Type": "application/json"})
        if status != _OK:
            raise WrongAnswer(f"shared memory: {status} {answer[:200]!r}")
        yield region
    finally:
        with contextlib.suppress(OSError):
            post(f"{path}/unregister", b"{}", {"Content-Type": "application/json"})
        (FOLDER / region.name).unlink()


def shared_request(name: str, shape: tuple[int, ...]) -> bytes:
    """Input and output by shared memory."""
    message = pb.ModelInferRequest(model_name="identity")
    tensors = ((message.inputs.add(name="X", datatype="FP32", shape=shape), 0), (message.outputs.add(name="Y"), 1))
    for tensor, place in tensors:
        tensor.parameters["shared_memory_region"].string_param = name
        tensor.parameters["shared_memory_byte_size"].int64_param = LARGE_BYTES
        tensor.parameters["shared_memory_offset"].int64_param = place * LARGE_BYTES
    return bytes(message.SerializeToString())


@contextlib.contextmanager
def channel(target: str | None) -> Iterator[grpc.Channel]:
    """A channel that large messages fit through."""
    with grpc.insecure_channel(target, options=GRPC_OPTIONS) as made:
        yield made


def shared_call(target: grpc.Channel, message: bytes, region: Region, values: np.ndarray[Any, Any]) -> None:
    """Write the input, infer, look at the output: all that a client does."""
    region.write(values)
    _call(target, message)
    if region.last() != values[-1]:
        raise WrongAnswer("identity: the output in shared memory is another")


def wire_call(target: grpc.Channel, message: bytes, values: np.ndarray[Any, Any]) -> None:
    """Infer with the tensor in the message, there and back."""
    _, contents = split_contents(_call(target, message), RESPONSE_CONTENTS)
    if len(contents[0]) != LARGE_BYTES or np.frombuffer(contents[0], np.float32)[-1] != values[-1]:
        raise WrongAnswer("identity: the output is another")


def compute_s(target: grpc.Channel) -> float:
    """Seconds that the model itself has computed so far, from its statistics."""
    request = pb.ModelStatisticsRequest(name="identity").SerializeToString()
    answer = _call(target, request, METHOD.replace("ModelInfer", "ModelStatistics"))
    stats = pb.ModelStatisticsResponse.FromString(answer).model_stats
    return float(sum(entry.inference_stats.compute_infer.ns for entry in stats)) / 1e9


def timed(run: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _call(target: grpc.Channel, message: bytes, method: str = METHOD) -> bytes:
    try:
        answer: bytes = target.unary_unary(method)(message, timeout=CALL_S)
    except grpc.RpcError as error:
        raise WrongAnswer(f"identity: {error.code().name}: {error.details()}") from error
    return answer


def _ms(seconds: list[float]) -> float:
    return round(median(seconds) * 1000, 2)

"""One request as the bytes that travel, its right answer, and the measurement without a wire; used by bench.inference
and bench.h2load.

The one invariant: before a way is measured one answer of it was looked at, and its length is what the others are held
to.
"""

import http.client
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from loadtests.payloads import Payload, split_answer
from serving.protocol.oip_wire import RESPONSE_CONTENTS, split_contents

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
FIRST_ANSWER_S: Final = 60.0
GRPC_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_OK: Final = 200
_FRAME_BYTES: Final = 5


class Sample(NamedTuple):
    """Latencies of one measurement, in seconds, and how long it took."""

    latencies: list[float]
    seconds: float


class WrongAnswer(Exception):
    """The server answered with something else than a result; the text holds the beginning of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one client sends, again and again.

    Args:
        url: with the path.
        body: of HTTP, or the framed message of gRPC.
        headers: beside those that the client adds itself.
        grpc: HTTP/2 and a framed message.
        answer_bytes: length of a right answer's body.
    """

    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    grpc: bool = False
    answer_bytes: int = 0


def http_request(base_url: str, payload: Payload) -> tuple[Request, bytes]:
    """The request by HTTP with binary tensors, and the output's raw bytes; raises :class:`WrongAnswer`."""
    body, headers = payload.http()
    status, answered, answer = post(base_url + payload.path, body, headers)
    if status != _OK:
        raise WrongAnswer(f"{payload.model}: {status} {answer[:200]!r}")
    try:
        _, outputs = split_answer(answered, answer)
    except ValueError:
        # Where the request does not ask for binary outputs, or a server ignores it.
        raise WrongAnswer(f"{payload.model}: no binary answer: {answer[:200]!r}") from None
    return Request(base_url + payload.path, body, headers, answer_bytes=len(answer)), outputs[payload.output]


def grpc_request(target: str, payload: Payload) -> tuple[Request, bytes]:
    """The request by gRPC, and the first output's raw bytes; raises :class:`WrongAnswer`."""
    message = payload.grpc()
    with grpc.insecure_channel(target, options=GRPC_OPTIONS) as channel:
        try:
            answer: bytes = channel.unary_unary(METHOD)(message, timeout=FIRST_ANSWER_S)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{payload.model}: {error.code().name}: {error.details()}") from error
    rest, contents = split_contents(answer, RESPONSE_CONTENTS)
    names = [output.name for output in pb.ModelInferResponse.FromString(rest).outputs]
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    headers = {"content-type": "application/grpc", "te": "trailers"}
    request = Request(f"http://{target}{METHOD}", framed, headers, True, len(answer) + _FRAME_BYTES)
    return request, bytes(contents[names.index(payload.output)])


def plain_request(url: str, payload: Payload) -> tuple[Request, bytes]:
    """The first input's raw bytes by a plain POST, and the raw bytes of the answer; raises :class:`WrongAnswer`."""
    body = bytes(payload.inputs[0].data)
    headers = {"Content-Type": "application/octet-stream"}
    status, _, answer = post(url, body, headers)
    if status != _OK:
        raise WrongAnswer(f"{payload.model}: {status} {answer[:200]!r}")
    return Request(url, body, headers, answer_bytes=len(answer)), answer


def check_output(payload: Payload, got: bytes, wanted: bytes) -> None:
    """Raise :class:`WrongAnswer` unless the output is what the model gives in process."""
    same = len(got) == len(wanted) and np.allclose(
        np.frombuffer(got, np.float32), np.frombuffer(wanted, np.float32), rtol=1e-3, atol=1e-4
    )
    if not same:
        raise WrongAnswer(f"{payload.model}: the answer is another than in process")


def post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one POST."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=FIRST_ANSWER_S)
    try:
        connection.request("POST", address.path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def thread_loop(run: Callable[[], object], concurrency: int, seconds: float) -> Sample:
    """The baseline without a wire: ``run`` in as many threads, for functions that release the interpreter's lock."""

    def loop(end: float) -> list[float]:
        latencies = []
        while (started := time.perf_counter()) < end:
            run()
            latencies.append(time.perf_counter() - started)
        return latencies

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        parts = list(pool.map(loop, [started + seconds] * concurrency))
    return Sample([latency for part in parts for latency in part], time.perf_counter() - started)

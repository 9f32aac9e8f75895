"""Triton's streaming examples against `reelmesh serve`: sequences, decoupled models, generate, keepalive, counts."""

import itertools
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from tests.flows.conftest import Mesh
from tests.flows.test_triton_clients import check, given, named, numbers

KINDS = pytest.mark.parametrize("kind", ["triton", "ray"])
ANSWER_S = 20
SEQUENCES = itertools.count(1000)


@contextmanager
def stream(served: Mesh) -> Iterator[tuple[Any, "queue.Queue[Any]"]]:
    """A gRPC client with an open stream, and the queue of its answers and errors."""
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        yield client, answers
        client.stop_stream()


def value(answer: Any, name: str) -> int:
    if isinstance(answer, Exception):
        raise answer
    return int(answer.as_numpy(name).reshape(-1)[0])


def number(module: Any, value: int) -> list[Any]:
    return given(module, INPUT=np.array([[value]], dtype=np.int32))


@KINDS
@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_two_sequences_at_a_time_by_single_requests(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    first, second = next(SEQUENCES), next(SEQUENCES)
    totals: dict[int, list[int]] = {first: [], second: []}
    values = [11, 7, 5, 3, 2, 0, 1]
    for position, add in enumerate(values):
        for sequence, sign in ((first, 1), (second, -1)):
            answer = client.infer(
                named("simple_sequence", kind),
                number(module, sign * add),
                sequence_id=sequence,
                sequence_start=position == 0,
                sequence_end=position == len(values) - 1,
            )
            totals[sequence].append(value(answer, "OUTPUT"))
    sums = list(itertools.accumulate(values))
    assert totals == {first: sums, second: [-total for total in sums]}


@KINDS
def test_two_sequences_at_a_time_in_one_stream(served: Mesh, kind: str) -> None:
    module = tritonclient.grpc
    sequences = (next(SEQUENCES), next(SEQUENCES))
    with stream(served) as (client, answers):
        for position in range(5):
            for sequence in sequences:
                client.async_stream_infer(
                    named("simple_sequence", kind),
                    number(module, sequence),
                    request_id=f"{sequence}_{position}",
                    sequence_id=sequence,
                    sequence_start=position == 0,
                    sequence_end=position == 4,
                )
        found = [answers.get(timeout=ANSWER_S) for _ in range(10)]
    totals = {answer.get_response().id: value(answer, "OUTPUT") for answer in found}
    assert totals == {f"{each}_{position}": each * (position + 1) for each in sequences for position in range(5)}


@KINDS
def test_a_sequence_without_its_start_is_refused(served: Mesh, kind: str) -> None:
    module, client = served.client("grpc")
    with pytest.raises(InferenceServerException, match=r"must specify the START flag"):
        client.infer(named("simple_sequence", kind), number(module, 1), sequence_id=next(SEQUENCES))
    with pytest.raises(InferenceServerException, match=r"must specify a non-zero or non-empty correlation ID"):
        client.infer(named("simple_sequence", kind), number(module, 1))


def repeat(module: Any, count: int, *, delay_ms: int = 0, wait_ms: int = 0) -> list[Any]:
    return [
        *given(module, IN=np.arange(count, dtype=np.int32)),
        *given(module, "UINT32", DELAY=np.full(count, delay_ms, dtype=np.uint32)),
        *given(module, "UINT32", WAIT=np.array([wait_ms], dtype=np.uint32)),
    ]


@KINDS
def test_a_decoupled_model_answers_one_request_many_times(served: Mesh, kind: str) -> None:
    with stream(served) as (client, answers):
        tensors = repeat(tritonclient.grpc, 5, delay_ms=10, wait_ms=10)
        client.async_stream_infer(named("repeat_int32", kind), tensors, request_id="five")
        found = [answers.get(timeout=ANSWER_S) for _ in range(5)]
        assert [(value(answer, "OUT"), value(answer, "IDX")) for answer in found] == [(n, n) for n in range(5)]
        assert {answer.get_response().id for answer in found} == {"five"}


@KINDS
@pytest.mark.parametrize("count", [0, 3])
def test_the_end_of_a_decoupled_answer_is_marked_where_that_was_asked_for(served: Mesh, kind: str, count: int) -> None:
    with stream(served) as (client, answers):
        client.async_stream_infer(
            named("repeat_int32", kind), repeat(tritonclient.grpc, count), enable_empty_final_response=True
        )
        finals = []
        while not finals or not finals[-1]:
            answer = answers.get(timeout=ANSWER_S)
            assert not isinstance(answer, Exception), answer
            finals.append(answer.get_response().parameters["triton_final_response"].bool_param)
        assert finals == [False] * count + [True]


@KINDS
def test_answers_come_as_they_are_made(served: Mesh, kind: str) -> None:
    with stream(served) as (client, answers):
        client.async_stream_infer(named("repeat_int32", kind), repeat(tritonclient.grpc, 2, delay_ms=0, wait_ms=700))
        value(answers.get(timeout=ANSWER_S), "OUT")
        value(answers.get(timeout=0.6), "OUT")


@KINDS
def test_a_decoupled_model_is_not_answered_by_a_single_request(served: Mesh, kind: str) -> None:
    module, client = served.client("grpc")
    with pytest.raises(InferenceServerException, match="decoupled"):
        client.infer(named("repeat_int32", kind), repeat(module, 2))


@KINDS
def test_an_error_in_a_stream_ends_its_request_and_not_the_stream(served: Mesh, kind: str) -> None:
    with stream(served) as (client, answers):
        client.async_stream_infer("nobody", numbers(tritonclient.grpc))
        assert "unknown model: 'nobody'" in str(answers.get(timeout=ANSWER_S))
        client.async_stream_infer(named("simple", kind), numbers(tritonclient.grpc))
        check(answers.get(timeout=ANSWER_S))


@KINDS
async def test_streams_of_the_asyncio_client(served: Mesh, kind: str) -> None:
    async def requests() -> Any:
        yield {"model_name": named("repeat_int32", kind), "inputs": repeat(tritonclient.grpc, 3)}

    async with tritonclient.grpc.aio.InferenceServerClient(served.grpc) as client:
        answers = client.stream_infer(requests())
        found = [value(error or answer, "OUT") async for answer, error in answers]
    assert found == [0, 1, 2]


@KINDS
def test_keepalive(served: Mesh, kind: str) -> None:
    options = tritonclient.grpc.KeepAliveOptions(
        keepalive_time_ms=100, keepalive_timeout_ms=2000, keepalive_permit_without_calls=True
    )
    with tritonclient.grpc.InferenceServerClient(served.grpc, keepalive_options=options) as client:
        check(client.infer(named("simple", kind), numbers(tritonclient.grpc)))
        threading.Event().wait(0.5)
        check(client.infer(named("simple", kind), numbers(tritonclient.grpc)))


def generate(served: Mesh, kind: str, how: str, **body: object) -> httpx.Response:
    url = f"{served.http}/v2/models/{named('words', kind)}/{how}"
    return httpx.post(url, json=body, timeout=ANSWER_S)


@KINDS
def test_generate_answers_once(served: Mesh, kind: str) -> None:
    answer = generate(served, kind, "generate", PROMPT="good morning", id="a")
    assert answer.status_code == 200, answer.text
    assert answer.json()["TEXT"] == "GOOD MORNING"
    assert answer.json()["model_name"] == named("words", kind)
    refused = generate(served, kind, "generate", PROMPT="good morning", STREAM=True)
    assert "expects model to produce exactly 1 response" in refused.json()["error"]


@KINDS
def test_generate_stream_answers_by_server_sent_events(served: Mesh, kind: str) -> None:
    answer = generate(served, kind, "generate_stream", PROMPT="good morning all", STREAM=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert [event["TEXT"] for event in events] == ["GOOD", "MORNING", "ALL"]


def test_an_ensemble_of_triton_models(served: Mesh) -> None:
    module, client = served.client("grpc")
    answer = client.infer("simple_ensemble", numbers(module))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), 2 * numbers_of("INPUT0"))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), 2 * numbers_of("INPUT1"))


def numbers_of(name: str) -> np.ndarray:
    return {"INPUT0": np.arange(16, dtype=np.int32), "INPUT1": np.full(16, 3, np.int32)}[name].reshape(1, 16)


def counted(served: Mesh, model: str) -> int:
    _, client = served.client("http")
    (statistics,) = client.get_inference_statistics(model)["model_stats"]
    return int(statistics["inference_stats"]["success"]["count"])


@KINDS
def test_counts_of_both_replicas_add_up(served: Mesh, kind: str) -> None:
    model = named("mlp", kind)
    before = counted(served, model)
    for _ in range(20):
        module, client = served.client("http")  # a connection of its own, so that both replicas get some
        client.infer(model, given(module, "FP32", X=np.ones((1, 16), np.float32)))
        client.close()
    assert counted(served, model) == before + 20


def test_the_index_and_all_statistics_are_of_the_whole_mesh(served: Mesh) -> None:
    for wire in ("http", "grpc"):
        _, client = served.client(wire)
        as_json = {} if wire == "http" else {"as_json": True}
        index = client.get_model_repository_index(**as_json)
        rows = index if wire == "http" else index["models"]
        states = {row["name"]: row.get("state") for row in rows}
        assert states == {row["name"]: "READY" for row in served.models}
        assert len(rows) == len(states), "one line for a model, however many replicas hold it"
        statistics = client.get_inference_statistics(**as_json)["model_stats"]
        assert {row["name"] for row in statistics} == set(states)


def test_the_command_told_of_every_model_and_who_serves_it(served: Mesh) -> None:
    told = {row["name"]: (row["served_by"], row["replicas"], row["state"]) for row in served.models}
    assert told["simple"] == ("triton", 2, "READY")
    assert told["simple_ray"] == ("ray", 2, "READY")
    assert len(told) == 21


def test_metrics_of_triton_and_of_the_mesh_are_one_exposition(served: Mesh) -> None:
    exposition = httpx.get(served.metrics, timeout=10).text
    assert "nv_inference_count" in exposition
    assert "reelmesh_edge_endpoints" in exposition

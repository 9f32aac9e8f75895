import grpc
import pytest

from serving.client.status import ERRORS, LONGEST_RETRY_AFTER_S, error_of, retry_after_s, turned
from serving.errors import (
    BadInput,
    DeadlineExceeded,
    EngineFailed,
    NotFound,
    QueueFull,
    RateLimited,
    ReelmeshError,
    TooLarge,
    Unavailable,
    Unsupported,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", BadInput),
        ("NOT_FOUND", NotFound),
        ("UNIMPLEMENTED", Unsupported),
        ("RESOURCE_EXHAUSTED", TooLarge),
        ("DEADLINE_EXCEEDED", DeadlineExceeded),
        ("UNAVAILABLE", Unavailable),
        ("INTERNAL", EngineFailed),
        ("DATA_LOSS", EngineFailed),
    ],
)
def test_a_grpc_status_becomes_the_error_that_it_means(status: str, kind: type[ReelmeshError]) -> None:
    error = error_of(status, "it broke", "music", "Triton")
    assert type(error) is kind
    assert str(error) == "music: Triton: it broke"


@pytest.mark.parametrize(("status", "told"), [(404, True), (405, True), (503, False), (502, False)])
def test_the_answer_of_an_http_port_says_which_port_is_wanted(status: int, told: bool) -> None:
    error = error_of("UNIMPLEMENTED", f"Received http2 header with status: {status}", "m")
    assert (error.fix == "this looks like an HTTP port; the client wants the gRPC address (8001)") is told


def test_what_a_server_says_is_cut_to_a_bounded_length() -> None:
    assert len(error_of("INTERNAL", "x" * 10_000, "m").problem) < 300


@pytest.mark.parametrize("status", sorted(ERRORS))
def test_the_table_agrees_with_the_statuses_that_the_errors_themselves_carry(status: str) -> None:
    translated = {"OUT_OF_RANGE": "INVALID_ARGUMENT", "ALREADY_EXISTS": "FAILED_PRECONDITION"}
    assert ERRORS[status].grpc_status == translated.get(status, status)


def failure(code: grpc.StatusCode, *metadata: tuple[str, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), "full")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.RESOURCE_EXHAUSTED, RateLimited), (grpc.StatusCode.UNAVAILABLE, QueueFull)],
    ids=["rate", "queue"],
)
def test_a_call_that_was_told_to_come_back_has_not_run(code: grpc.StatusCode, kind: type[ReelmeshError]) -> None:
    how = turned(failure(code, ("retry-after", "3")), "m")
    assert type(how.error) is kind
    assert how.error.retryable
    assert (how.ran, how.retry_after_s) == (False, 3)


def test_a_broken_connection_may_have_run() -> None:
    assert turned(failure(grpc.StatusCode.UNAVAILABLE), "m").ran


def test_a_refusal_that_is_not_about_load_is_not_repeated_whatever_its_metadata() -> None:
    how = turned(failure(grpc.StatusCode.INVALID_ARGUMENT, ("retry-after", "3")), "m")
    assert (type(how.error), how.ran) == (BadInput, True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2), ("0", 0), ("99999999999999999999", LONGEST_RETRY_AFTER_S), ("soon", None), ("-1", None), ("١", None)],
)
def test_how_long_to_wait_is_a_bounded_number_of_seconds(value: str, seconds: int | None) -> None:
    assert retry_after_s([("Retry-After", value)]) == seconds


@pytest.mark.parametrize(("value", "seconds"), [("2000", 2), ("1", 1), ("0", 0), ("99999999999", 60), ("-1", None)])
def test_grpcs_own_word_for_it_is_in_milliseconds(value: str, seconds: int | None) -> None:
    assert retry_after_s([("grpc-retry-pushback-ms", value)]) == seconds

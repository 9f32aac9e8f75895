"""What a request is for, and how a refusal reads where only endpoints are known."""

import pytest

from serving.protocol.endpoint import Endpoint
from serving.protocol.licences import (
    COMMERCIAL,
    MOST_NAMED,
    NON_COMMERCIAL,
    USE_HEADER,
    metadata_of,
    refusal_of,
    use_of,
)


@pytest.mark.parametrize(
    ("headers", "use"),
    [
        pytest.param({}, COMMERCIAL, id="nothing said"),
        pytest.param({USE_HEADER: "non_commercial"}, NON_COMMERCIAL, id="said"),
        pytest.param({USE_HEADER: "commercial"}, COMMERCIAL, id="the same said"),
        pytest.param({USE_HEADER: "Non_Commercial"}, COMMERCIAL, id="said otherwise"),
        pytest.param({USE_HEADER: ""}, COMMERCIAL, id="empty"),
    ],
)
def test_what_does_not_say_that_it_is_not_commercial_is_commercial(headers: dict[str, str], use: str) -> None:
    assert use_of(headers) == use


def test_metadata_tells_a_replica_what_it_would_not_assume() -> None:
    assert metadata_of(COMMERCIAL) == ()
    assert use_of(dict(metadata_of(NON_COMMERCIAL))) == NON_COMMERCIAL


def endpoint(model: str, task: str = "speech", refuses: str = "") -> Endpoint:
    return Endpoint(model=model, http="h:1", grpc="h:2", task=task, refuses=refuses)


def test_a_model_that_refuses_nothing_or_is_not_there_is_no_refusal() -> None:
    assert refusal_of("m", [endpoint("m"), endpoint("n", refuses="no")]) is None
    assert refusal_of("gone", [endpoint("m")]) is None


def test_one_replica_that_refuses_is_enough_and_alternatives_are_those_that_no_replica_refuses() -> None:
    living = [endpoint("m"), endpoint("m", refuses="no"), endpoint("half"), endpoint("half", refuses="no")]
    error = refusal_of("m", [*living, endpoint("free"), endpoint("tune", "music")])
    assert error is not None
    assert str(error) == "model: no: use 'free'; or, for other work, x-reelmesh-use: non_commercial"


def test_few_of_many_alternatives_are_named() -> None:
    error = refusal_of("m", [endpoint("m", refuses="no"), *(endpoint(f"n{index}") for index in range(20))])
    assert str(error).count("'n") == MOST_NAMED

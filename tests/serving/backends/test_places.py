import asyncio

import pytest

from serving.backends.call import Call
from serving.backends.places import Places, counted
from serving.errors import BadInput, Cancelled, EngineFailed, ReelmeshError, Unavailable
from serving.telemetry import METRICS


def requests(model: str, outcome: str) -> float:
    labels = {"model": model, "protocol": "task", "outcome": outcome}
    return METRICS.get_sample_value("reelmesh_requests_total", labels) or 0.0


def test_a_full_replica_refuses_and_has_room_again_later() -> None:
    places = Places(1)
    with places.hold("m", Call()), pytest.raises(Unavailable, match="holds 1 requests"), places.hold("m", Call()):
        pass
    assert places.taken == 0


@pytest.mark.parametrize(
    ("raised", "leaves", "outcome"),
    [
        pytest.param(BadInput("no"), BadInput, "invalid_argument", id="ours"),
        pytest.param(ZeroDivisionError("x"), EngineFailed, "engine_failed", id="foreign"),
    ],
)
def test_what_fails_is_counted_and_leaves_as_an_error_of_ours(
    raised: Exception, leaves: type[ReelmeshError], outcome: str
) -> None:
    places, before = Places(1), requests("m", outcome)
    with pytest.raises(leaves), counted("m", Call()), places.hold("m", Call()):
        raise raised
    assert (places.taken, requests("m", outcome)) == (0, before + 1)


def test_a_cancel_reaches_the_call_and_is_counted_as_one() -> None:
    places, call, before = Places(1), Call(), requests("m", "cancelled")
    with pytest.raises(asyncio.CancelledError), counted("m", call), places.hold("m", call):
        raise asyncio.CancelledError
    with pytest.raises(Cancelled):
        call.checkpoint()
    assert (places.taken, requests("m", "cancelled")) == (0, before + 1)

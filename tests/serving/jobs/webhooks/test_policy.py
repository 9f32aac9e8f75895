"""What is sent, when again, and when no more."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.jobs.webhooks.policy import (
    EVENTS,
    GROWTH,
    LONGEST_PAUSE_S,
    DeliveryState,
    Outcome,
    message,
    retry_after_s,
    verdict,
)
from serving.settings import WebhookSettings

SETTINGS = WebhookSettings(tries=5, retry_s=5, max_age_s=3600)
FAILED = Outcome(500, "oops")


@pytest.mark.parametrize(
    ("outcome", "tries", "age_s", "state"),
    [
        pytest.param(Outcome(200), 1, 0, "sent", id="ok"),
        pytest.param(Outcome(204), 5, 9999, "sent", id="ok at last"),
        pytest.param(Outcome(410), 1, 0, "gone", id="gone"),
        pytest.param(FAILED, 1, 0, "waiting", id="failed"),
        pytest.param(Outcome(302), 1, 0, "waiting", id="a redirect is no success"),
        pytest.param(Outcome(404), 1, 0, "waiting", id="not there yet"),
        pytest.param(Outcome(problem="no answer"), 4, 0, "waiting", id="no answer"),
        pytest.param(FAILED, 5, 0, "dead", id="tries used up"),
        pytest.param(FAILED, 1, 3600, "dead", id="too old"),
        pytest.param(Outcome(problem="private", final=True), 1, 0, "dead", id="not allowed"),
    ],
)
def test_the_outcome_of_a_try_decides(outcome: Outcome, tries: int, age_s: float, state: str) -> None:
    assert verdict(outcome, tries=tries, age_s=age_s, settings=SETTINGS, chance=0.5).state == state


def test_pauses_grow_and_a_receiver_can_only_lengthen_them() -> None:
    pauses = [verdict(FAILED, tries=tries, age_s=0, settings=SETTINGS, chance=0.5).pause_s for tries in range(1, 5)]
    assert pauses == [5 * GROWTH**n for n in range(4)]
    asked = Outcome(503, "busy", retry_after_s=60)
    assert verdict(asked, tries=1, age_s=0, settings=SETTINGS, chance=0.5).pause_s == 60
    assert verdict(asked, tries=4, age_s=0, settings=SETTINGS, chance=0.5).pause_s == 320


@given(
    st.integers(1, 10_000),
    st.floats(0, 1e9),
    st.floats(0, 1),
    st.floats(0, 1e12),
    st.none() | st.integers(100, 599),
)
def test_every_delivery_ends_and_no_pause_passes_the_bound(
    tries: int, age_s: float, chance: float, wish_s: float, status: int | None
) -> None:
    settings = WebhookSettings(tries=100)
    found = verdict(Outcome(status, retry_after_s=wish_s), tries=tries, age_s=age_s, settings=settings, chance=chance)
    if tries >= settings.tries or age_s > settings.max_age_s:
        assert found.state is not DeliveryState.WAITING
    assert 0 <= found.pause_s <= 1.2 * LONGEST_PAUSE_S
    if found.state is DeliveryState.WAITING:
        assert found.pause_s >= 0.8 * settings.retry_s


@given(st.none() | st.text(max_size=30) | st.integers(0, 10**30).map(str))
def test_retry_after_is_seconds_within_the_bound_or_nothing(header: str | None) -> None:
    assert 0 <= retry_after_s(header) <= LONGEST_PAUSE_S


def row(**changes: object) -> dict[str, object]:
    files = {f"file{n}": {"sha256": "0" * 64} for n in range(100)}
    plain = {
        "job_id": "17", "job_type": "film", "title": "Ä film", "created_at": 1.0, "parent_id": None, "seq": 9,
        "at": 1795366148.25, "state": "completed", "progress": 1.0, "reason": None, "error": None,
        "output": {"files": files},
    }  # fmt: skip
    return {**plain, **changes}


def test_a_message_has_type_time_and_data_and_bounded_files() -> None:
    told = json.loads(message("job.completed", row()))
    assert list(told) == ["type", "timestamp", "data"]
    assert (told["type"], told["timestamp"]) == ("job.completed", "2026-11-22T16:49:08.250000Z")
    assert (told["data"]["title"], told["data"]["url"]) == ("Ä film", "/v1/jobs/17")
    assert len(told["data"]["files"]) == 64
    failed = json.loads(message("job.failed", row(state="failed", error={"code": "engine_failed"}, output=None)))
    assert failed["data"]["error"] == {"code": "engine_failed"}
    assert "files" not in failed["data"]


def test_what_comes_before_the_end_tells_nothing_that_may_change() -> None:
    first = message("job.rendering", row(state="rendering", output=None))
    assert first == message("job.rendering", row(state="rendering", error={"code": "x"}))


def test_there_is_an_event_for_every_state_a_job_comes_to() -> None:
    assert {"job.queued", "job.completed", "job.failed", "job.cancelled"} < set(EVENTS)
    assert "job.submitted" not in EVENTS

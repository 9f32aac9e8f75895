import pytest

from serving.client.retries import NEVER, Deadline, Retries
from serving.client.status import Turned
from serving.errors import BadInput, DeadlineExceeded, Unavailable

BROKE = Turned(Unavailable("the connection broke"))
UNSENT = Turned(Unavailable("no server"), ran=False)
FULL = Turned(Unavailable("full"), ran=False, retry_after_s=2)


@pytest.mark.parametrize(
    ("failed", "attempt", "idempotent", "pause"),
    [
        (UNSENT, 1, False, 0.05),
        (UNSENT, 2, False, 0.1),
        (UNSENT, 3, False, 0.2),
        (UNSENT, 4, False, None),
        (BROKE, 1, False, None),
        (BROKE, 1, True, 0.05),
        (FULL, 1, False, 2.05),
        (Turned(BadInput("no"), ran=False), 1, True, None),
    ],
    ids=["not sent", "twice", "thrice", "the last", "may have run", "may run twice", "asked to wait", "not retryable"],
)
def test_a_call_is_repeated_when_that_is_safe_and_may_help(
    failed: Turned, attempt: int, idempotent: bool, pause: float | None
) -> None:
    said = Retries().pause_s(failed, attempt, idempotent=idempotent, remaining_s=10, chance=1.0)
    assert said == (pause if pause is None else pytest.approx(pause))


def test_no_pause_reaches_past_the_deadline() -> None:
    assert Retries().pause_s(FULL, 1, idempotent=False, remaining_s=2) is None


def test_pauses_are_drawn_and_bounded() -> None:
    retries = Retries(attempts=100)
    pauses = {retries.pause_s(UNSENT, 50, idempotent=False, remaining_s=10) for _ in range(20)}
    assert len(pauses) > 1
    assert all(pause is not None and 0 <= pause <= retries.longest_pause_s for pause in pauses)


def test_who_does_not_want_retries_gets_none() -> None:
    assert NEVER.pause_s(UNSENT, 1, idempotent=True, remaining_s=10) is None


def test_a_deadline_counts_down_and_passes() -> None:
    assert 9 < Deadline.after(10, "m").remaining_s() <= 10
    with pytest.raises(DeadlineExceeded, match="m: the deadline passed"):
        Deadline.after(-1, "m").remaining_s()

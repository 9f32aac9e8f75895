import pytest

from serving.jobs.states import ALLOWED, FINAL, WORKING, may_become, sources_of
from serving.jobs.types import JobState

S = JobState


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_has_its_next_states_and_only_final_ones_have_none(state: JobState) -> None:
    assert (not ALLOWED[state]) == (state in FINAL)


@pytest.mark.parametrize(
    ("state", "other", "allowed"),
    [
        pytest.param(S.SUBMITTED, S.QUEUED, True, id="accepted"),
        pytest.param(S.QUEUED, S.PROCESSING, True, id="taken up"),
        pytest.param(S.QUEUED, S.CANCELLED, True, id="cancelled while waiting"),
        pytest.param(S.QUEUED, S.COMPLETED, False, id="done without work"),
        pytest.param(S.PROCESSING, S.POST_PROCESSING, True, id="skips rendering"),
        pytest.param(S.RENDERING, S.PROCESSING, False, id="backwards"),
        pytest.param(S.RENDERING, S.QUEUED, True, id="worker lost"),
        pytest.param(S.UPLOADING, S.COMPLETED, True, id="done"),
        pytest.param(S.COMPLETED, S.QUEUED, False, id="after the end"),
        pytest.param(S.CANCELLED, S.PROCESSING, False, id="revived"),
    ],
)
def test_only_allowed_steps_are_taken(state: JobState, other: JobState, allowed: bool) -> None:
    assert may_become(state, other) is allowed
    assert (state in sources_of(other)) is allowed


def test_working_states_only_go_forward() -> None:
    for index, state in enumerate(WORKING):
        assert not ALLOWED[state] & set(WORKING[: index + 1])

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.jobs.progress import job_progress
from serving.jobs.types import JobState, Stage

STAGES = (Stage("a", JobState.PROCESSING, 6), Stage("b", JobState.RENDERING, 2), Stage("c", JobState.UPLOADING, 2))


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        pytest.param({}, 0.0, id="nothing started"),
        pytest.param({"a": 0.5}, 0.3, id="half a stage"),
        pytest.param({"a": 1.0}, 0.6, id="one stage"),
        pytest.param({"a": 1.0, "c": 0.5}, 0.9, id="a skipped stage counts as done"),
        pytest.param({"a": 1.0, "b": 1.0, "c": 1.0}, 1.0, id="all"),
    ],
)
def test_progress_is_the_weighted_part_that_is_done(done: dict[str, float], expected: float) -> None:
    assert job_progress(STAGES, done) == pytest.approx(expected)


def test_stages_without_weight_make_no_progress() -> None:
    assert job_progress([Stage("a", JobState.PROCESSING, 0.0)], {"a": 1.0}) == 0.0


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)))
def test_progress_stays_between_nothing_and_all(done: dict[str, float]) -> None:
    assert 0.0 <= job_progress(STAGES, done) <= 1.0

"""When to come back, from how long requests took."""

import pytest

from serving.backends.ray.pace import Pace


@pytest.mark.parametrize(
    ("measured", "ahead", "expected"),
    [([], 100, 1), ([0.001], 10, 1), ([2.0], 3, 6), ([2.0, 2.0, 12.0], 1, 4), ([1e9], 1, 600)],
    ids=["unknown", "at once", "slow", "mean", "bounded"],
)
def test_the_time_to_come_back_grows_with_the_line_and_the_pace(measured, ahead, expected):
    pace = Pace()
    for each_s in measured:
        pace.measured(each_s)
    assert pace.retry_after_s(ahead) == expected

"""Which requests run together."""

import pytest

from serving.backends.ray.engines.network.batching import next_batch


@pytest.mark.parametrize(
    ("keys", "most", "expected"),
    [
        pytest.param([], 4, [], id="none"),
        pytest.param([None, None], 4, [0], id="shares with nobody"),
        pytest.param(["a", "b", "a", None, "a"], 4, [0, 2, 4], id="equal keys"),
        pytest.param(["a", "a", "a"], 2, [0, 1], id="as many as may"),
        pytest.param(["a", "a"], 0, [0], id="at least one"),
    ],
)
def test_the_oldest_goes_with_its_like(keys: list[str | None], most: int, expected: list[int]) -> None:
    assert next_batch(keys, most) == expected

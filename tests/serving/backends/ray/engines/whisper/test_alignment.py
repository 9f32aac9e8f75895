"""Times of tokens from attention: the path that dynamic time warping finds."""

from itertools import pairwise

import numpy as np
import pytest

from serving.backends.ray.engines.whisper.alignment import starts_of, warp


def test_a_clear_attention_gives_its_times() -> None:
    weights = np.full((2, 4, 100), 0.001, np.float32)
    for token, frame in enumerate((0, 20, 50, 70)):
        weights[:, token, frame : frame + 15] = 0.5
    assert starts_of(weights) == pytest.approx([0.0, 0.4, 1.0, 1.4], abs=0.2)


def test_times_ascend_whatever_the_attention_is() -> None:
    weights = np.random.default_rng(0).random((3, 30, 200)).astype(np.float32)
    found = starts_of(weights)
    assert len(found) == 30
    assert all(a <= b for a, b in pairwise(found))
    assert 0 <= found[0] <= found[-1] < 4


@pytest.mark.parametrize("frames", [1, 2, 3], ids=str)
def test_sounds_shorter_than_the_filter_have_times_too(frames: int) -> None:
    found = starts_of(np.random.default_rng(0).random((1, 5, frames)).astype(np.float32))
    assert len(found) == 5
    assert max(found) <= frames * 0.02


def test_the_path_is_the_cheapest() -> None:
    costs = np.random.default_rng(1).random((6, 9)).astype(np.float32)
    assert warp(costs) == _slowly(costs)


def _slowly(costs: np.ndarray) -> list[int]:
    """Cell by cell, as it is written in books; ties as there: both, then the token, then the frame."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    came = {}
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            before = {
                (-1, -1): total[row - 1, column - 1],
                (-1, 0): total[row - 1, column],
                (0, -1): total[row, column - 1],
            }
            came[row, column] = min(before, key=lambda step: before[step])
            total[row, column] = costs[row - 1, column - 1] + before[came[row, column]]
    row, column, first = rows, columns, [0] * rows
    while row > 0 and column > 0:
        first[row - 1] = column - 1
        step = came[row, column]
        row, column = row + step[0], column + step[1]
    return first

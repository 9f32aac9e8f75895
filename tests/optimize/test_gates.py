import numpy as np
import pytest

from optimize.gates import compare

ONES = np.linspace(-2, 2, 5, dtype=np.float32)


@pytest.mark.parametrize(
    ("expected", "found", "reason"),
    [
        pytest.param(ONES, ONES[:4], "instead of", id="another shape"),
        pytest.param(ONES, ONES.astype(np.float64), "float64", id="another type"),
        pytest.param(ONES, ONES * np.float32("nan"), "not finite", id="not a number"),
        pytest.param(np.zeros(4, np.float32), np.zeros(4, np.float32), "constant", id="zeros against zeros"),
        pytest.param(np.ones(4, np.float32), np.ones(4, np.float32), "constant", id="a constant reference"),
        pytest.param(ONES[:0], ONES[:0], "constant", id="nothing at all"),
    ],
)
def test_a_comparison_that_proves_nothing_fails(expected: np.ndarray, found: np.ndarray, reason: str) -> None:
    row = compare("case", "OUT", expected, found)
    assert row.relative == float("inf")
    assert reason in row.reason


def test_the_difference_is_relative_to_the_largest_value_expected() -> None:
    found = ONES.copy()
    found[2] += 0.002
    assert compare("case", "OUT", ONES, found).relative == pytest.approx(0.001, rel=1e-3)


def test_integers_are_compared_without_overflow() -> None:
    expected, found = np.array([0, 200], np.uint8), np.array([2, 200], np.uint8)
    assert compare("case", "OUT", expected, found).relative == pytest.approx(0.01)

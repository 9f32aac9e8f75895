import numpy as np
import pytest

from optimize.int8.measure import snr_db
from serving.errors import BadInput

SIGNAL = np.array([3, -4], np.float32)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(SIGNAL, np.inf, id="equal"),
        pytest.param(SIGNAL + np.float32([0.5, 0]), 20, id="a hundredth of the energy"),
        pytest.param(SIGNAL[:1], -np.inf, id="another shape"),
        pytest.param(SIGNAL * np.float32("nan"), -np.inf, id="not a number"),
    ],
)
def test_noise_is_told_in_decibels_of_the_signal(found: np.ndarray, expected: float) -> None:
    assert snr_db([{"y": SIGNAL}], [{"y": found}]) == pytest.approx(expected)


def test_the_worst_floating_output_counts_and_energies_add_up_over_feeds() -> None:
    expected = [{"a": SIGNAL, "b": SIGNAL, "ids": np.array([1])}, {"a": SIGNAL, "b": SIGNAL, "ids": np.array([2])}]
    found = [{"a": SIGNAL, "b": SIGNAL + np.float32([0.5, 0]), "ids": np.array([7])}, expected[1]]
    assert snr_db(expected, found) == pytest.approx(10 * np.log10(200))


def test_outputs_without_energy_prove_nothing() -> None:
    silent = {"y": np.zeros(4, np.float32)}
    with pytest.raises(BadInput, match="zero"):
        snr_db([silent], [silent])


def test_noise_on_an_output_without_energy_is_the_worst() -> None:
    expected = [{"a": SIGNAL, "zero": np.zeros(2, np.float32)}]
    assert snr_db(expected, expected) == np.inf
    assert snr_db(expected, [{"a": SIGNAL, "zero": SIGNAL}]) == -np.inf

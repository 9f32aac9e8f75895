"""Memory switches: nothing where there is room, and what costs least first."""

import pytest

from serving.backends.ray.engines.network.switches import Switches, switches

GIB = 1 << 30
TILED = Switches(vae_slicing=True, vae_tiling=True)
SLICED = Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True)
SAVING = {"vae_slicing": True, "vae_tiling": True, "attention_slicing": True}


@pytest.mark.parametrize(
    ("share_gib", "expected"),
    [
        pytest.param(None, Switches(), id="no share"),
        pytest.param(24, Switches(), id="everything fits"),
        pytest.param(14.5, TILED, id="tiles fit"),
        pytest.param(12.5, SLICED, id="slices fit"),
        pytest.param(9, Switches(**SAVING, offload="model"), id="parts fit"),
        pytest.param(4, Switches(**SAVING, offload="sequential"), id="layers fit"),
    ],
)
def test_the_least_slow_savers_that_fit_are_turned_on(share_gib: float | None, expected: Switches) -> None:
    share = None if share_gib is None else int(share_gib * GIB)
    assert switches(10 * GIB, 5 * GIB, 20 * GIB, share) == expected

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.int8.search import GROUPS, Found, Trial, neighbours, search


def additive(costs: list[float], bound: float) -> Found:
    """Quality 0 with all in float; every INT8 layer costs its share."""
    nodes = [f"n{index}" for index in range(len(costs))]
    cost = dict(zip(nodes, costs, strict=True))

    def try_without(kept: tuple[str, ...]) -> Trial:
        quality = -sum(cost[name] for name in nodes if name not in kept)
        return Trial(kept_float=kept, quality=quality, ms=1, float_ms=2, bytes=1)

    return search(nodes, bound, try_without, lambda group: -sum(cost[name] for name in group))


def test_nothing_is_ranked_where_all_layers_together_reach_the_bound() -> None:
    found = additive([1, 2], -3)
    assert found.accepted is not None
    assert (found.accepted.kept_float, len(found.trials), found.sensitivity) == ((), 1, ())


def test_the_most_sensitive_layers_stay_in_float_and_no_more() -> None:
    found = additive([1, 20, 1, 7, 1], -4)
    assert found.accepted is not None
    assert found.accepted.kept_float == ("n1", "n3")
    assert [entry.nodes for entry in found.sensitivity][:2] == [("n1",), ("n3",)]


def test_a_bound_out_of_reach_accepts_nothing_and_never_tries_the_float_file() -> None:
    found = additive([1, 2, 3], -0.5)
    assert found.accepted is None
    assert all(len(trial.kept_float) < 3 for trial in found.trials)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=30), st.floats(-400, -1))
def test_the_fewest_of_the_ranked_layers_are_found_in_few_trials(costs: list[int], bound: float) -> None:
    found = additive([float(cost) for cost in costs], bound)
    ranked = sorted(costs, reverse=True)
    fewest = next(count for count in range(len(costs) + 1) if -sum(ranked[count:]) >= bound)
    if fewest == len(costs):
        assert found.accepted is None
    else:
        assert found.accepted is not None
        assert found.accepted.quality >= bound
        assert len(found.accepted.kept_float) == fewest
    assert len(found.trials) <= 6


@pytest.mark.parametrize("count", [1, 5, GROUPS, GROUPS + 1, 1000])
def test_runs_of_neighbours_hold_every_layer_once_in_even_parts(count: int) -> None:
    nodes = list(map(str, range(count)))
    groups = neighbours(nodes, GROUPS)
    assert [name for group in groups for name in group] == nodes
    assert len(groups) == min(count, GROUPS)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_a_trial_survives_json_with_an_infinite_quality() -> None:
    trial = Trial(kept_float=("a",), quality=float("inf"), ms=2, float_ms=3, bytes=4)
    assert Trial.model_validate_json(trial.model_dump_json()) == trial
    assert trial.speedup == 1.5

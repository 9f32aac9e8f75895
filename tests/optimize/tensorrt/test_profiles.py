from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.recipe import Tensor
from optimize.tensorrt.profiles import Declaration, plan_tensors, profiles, sizes_of
from serving.errors import BadInput
from serving.repository.plan_file import Range, misfit

from .files import declared


def test_a_profile_spans_the_cases_and_is_best_at_the_most_frequent_one() -> None:
    [profile] = profiles(declared())
    assert profile == {"X": Range(min=(1, 4, 8), opt=(2, 16, 8), max=(4, 64, 8))}


def test_of_equally_frequent_cases_the_largest_is_best() -> None:
    [profile] = profiles(declared(sizes=[{"batch": 1, "length": 9}, {"batch": 2, "length": 3}]))
    assert profile["X"].opt == (1, 9, 8)
    assert profile["X"].min == (1, 3, 8)


def test_the_best_size_may_be_declared_for_some_axes() -> None:
    [profile] = profiles(declared(optimum={"length": 48}))
    assert profile["X"].opt == (2, 48, 8)


def test_several_profiles_split_the_cases_from_small_to_large() -> None:
    small, large = profiles(declared(), 2)
    assert (small["X"].min, small["X"].max) == ((1, 4, 8), (1, 4, 8))
    assert (large["X"].min, large["X"].opt, large["X"].max) == ((2, 16, 8), (2, 16, 8), (4, 64, 8))


def test_there_are_no_more_profiles_than_different_cases() -> None:
    assert len(profiles(declared(), 9)) == 3


def test_a_file_without_dynamic_axes_has_one_profile_of_its_own_shapes() -> None:
    fixed = Declaration([Tensor("X", "float32", (2, 8)), Tensor("S", "float32", ())], [], [{}, {}])
    assert profiles(fixed, 3) == ({"X": Range(min=(2, 8), opt=(2, 8), max=(2, 8)), "S": Range(min=(), opt=(), max=())},)


@pytest.mark.parametrize(
    ("changes", "count", "said"),
    [
        pytest.param({"sizes": []}, 1, "sizes: no case was captured", id="no case"),
        pytest.param(
            {"sizes": [{"batch": 1}]}, 1, r"sizes\[0\]: case 0 does not say the size of axis 'length'", id="axis"
        ),
        pytest.param({"sizes": [{"batch": 0, "length": 1}]}, 1, r"sizes\[0\]: axis 'batch' has size 0", id="empty"),
        pytest.param(
            {"optimum": {"length": 65}}, 1, "optimum.length: .* nowhere 65: use a size from 4 to 64", id="beyond"
        ),
        pytest.param({"optimum": {"height": 3}}, 1, "optimum.height: .*: there are: batch, length", id="unknown"),
        pytest.param({}, 0, "profiles: 0 profiles", id="count"),
    ],
)
def test_what_makes_no_profile_is_refused(changes: dict[str, Any], count: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        profiles(declared(**changes), count)


@given(
    cases=st.lists(
        st.fixed_dictionaries({"batch": st.integers(1, 8), "length": st.integers(1, 4096)}), min_size=1, max_size=12
    ),
    count=st.integers(1, 4),
)
def test_every_case_fits_into_a_profile_and_every_profile_is_consistent(
    cases: list[dict[str, int]], count: int
) -> None:
    declaration = declared(sizes=cases)
    made = profiles(declaration, count)
    tensors = plan_tensors(declaration.inputs)
    assert 1 <= len(made) <= count
    for profile in made:
        shapes = profile["X"]
        assert all(a <= b <= c for a, b, c in zip(shapes.min, shapes.opt, shapes.max, strict=True))
    for case in cases:
        shape = (case["batch"], case["length"], 8)
        assert any(misfit(tensors, profile, {"X": shape}) is None for profile in made)
    highest = max(case["length"] for case in cases)
    assert all(misfit(tensors, profile, {"X": (1, highest + 1, 8)}) is not None for profile in made)


PAIR = (Tensor("X", "float32", ("batch", 4, "length")), Tensor("M", "int64", ("batch", "length")))


def test_sizes_are_read_off_a_captured_call() -> None:
    assert sizes_of(PAIR, {"X": (2, 4, 7), "M": (2, 7)}) == {"batch": 2, "length": 7}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        pytest.param({"X": (2, 4, 7), "M": (3, 7)}, "M: axis 'batch' has size 3, and 2 elsewhere", id="two sizes"),
        pytest.param({"X": (2, 5, 7), "M": (2, 7)}, "X: axis 4 has size 5, and 4 elsewhere", id="fixed"),
        pytest.param({"X": (2, 7), "M": (2, 7)}, "X: has 2 axes", id="axes"),
    ],
)
def test_a_call_that_is_not_as_declared_is_refused(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        sizes_of(PAIR, shapes)

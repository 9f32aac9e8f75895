import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadInput
from serving.placement.cards import Card, Load
from serving.placement.pack import pack
from serving.placement.plan import check_placed

GIB = 1024.0


def card(name: str, gib: float = 24, **more: object) -> Card:
    return Card(name, name.partition("/")[0], gib * GIB, **more)  # type: ignore[arg-type]


def load(model: str, weights: float, peak: float = 1, **more: object) -> Load:
    return Load(model, weights * GIB, peak * GIB, **more)  # type: ignore[arg-type]


def test_peaks_that_take_turns_share_a_card_and_those_that_overlap_do_not() -> None:
    cards = [card("a/0")]
    turns = pack(cards, [load("sdxl", 6, 5), load("music", 4, 6)], {"sdxl": 1, "music": 1})
    assert turns.unplaced == []
    assert turns.rooms()["a/0"].taken_mib == 16 * GIB
    quick = [load("voice", 6, 5, pace="quick"), load("words", 6, 6, pace="quick")]
    (left,) = pack(cards, quick, {"voice": 1, "words": 1}).unplaced
    assert left.replica == "voice#0"
    assert left.lacks_mib == pytest.approx(23 * GIB - 24 * GIB * 0.92)
    assert left.change == "let its requests take 942 MiB less on a/0: smaller sizes or batches"


def test_who_is_waited_for_is_kept_away_from_long_calls() -> None:
    loads = [load("clip", 4, 4, pace="long"), load("voice", 1, pace="quick"), load("pictures", 4, 4)]
    plan = pack([card("a/0"), card("a/1")], loads, {"clip": 1, "voice": 1, "pictures": 1})
    assert plan.unplaced == []
    assert plan.placed["clip#0"] != plan.placed["voice#0"]
    (left,) = pack([card("a/0")], loads, {"clip": 1, "voice": 1}).unplaced
    assert (left.replica, left.why) == ("clip#0", "a/0 is not for it: somebody waits for answers there")
    assert left.change == "add a card of 8,904 MiB"


def test_stages_that_hand_over_big_arrays_are_on_one_node_and_replicas_of_a_model_are_not() -> None:
    cards = [card("a/0"), card("b/0")]
    loads = [load("clip", 8, 4), load("lips", 1, near=frozenset({"clip"})), load("words", 1)]
    plan = pack(cards, loads, {"clip": 1, "lips": 1, "words": 2})
    assert plan.cards[plan.placed["lips#0"]].node == plan.cards[plan.placed["clip#0"]].node
    assert {plan.placed["words#0"], plan.placed["words#1"]} == {"a/0", "b/0"}


def test_a_smaller_replica_makes_room() -> None:
    cards, loads = [card("a/0", 10), card("b/0", 6)], [load("small", 1), load("large", 8, 1)]
    before = {"small#0": "a/0"}
    plan = pack(cards, loads, {"small": 1, "large": 1}, before)
    assert plan.placed == {"small#0": "b/0", "large#0": "a/0"}
    assert [(move.replica, move.source, move.target) for move in plan.moves] == [("small#0", "a/0", "b/0")]
    assert plan.moved_mib == GIB


def test_nothing_moves_where_nothing_has_to() -> None:
    cards = [card("a/0"), card("a/1"), card("b/0")]
    loads = [load("sdxl", 6, 5), load("voice", 1, pace="quick"), load("words", 3)]
    first = pack(cards, loads, {"sdxl": 2, "voice": 2, "words": 1})
    more = pack(cards, loads, {"sdxl": 2, "voice": 3, "words": 1}, first.placed)
    assert (more.moves, more.started, more.stopped) == ([], ["voice#2"], [])
    less = pack(cards, loads, {"sdxl": 1, "voice": 2, "words": 1}, more.placed)
    assert (less.moves, less.started, less.stopped) == ([], [], ["sdxl#1", "voice#2"])


def test_when_a_card_vanishes_only_its_replicas_move() -> None:
    cards = [card("a/0"), card("a/1"), card("b/0")]
    loads = [load("sdxl", 6, 5), load("words", 3)]
    first = pack(cards, loads, {"sdxl": 3, "words": 2})
    gone = first.placed["sdxl#1"]
    plan = pack([each for each in cards if each.name != gone], loads, {"sdxl": 3, "words": 2}, first.placed)
    assert {move.replica for move in plan.moves} == {name for name, where in first.placed.items() if where == gone}
    assert plan.unplaced == []


def test_a_model_larger_than_any_card_says_what_it_needs() -> None:
    (left,) = pack([card("a/0"), card("a/1", 48)], [load("ltx2", 62, 12)], {"ltx2": 1}).unplaced
    assert left.why == "needs a card of 82,365 MiB, of which 8% are kept free, and the largest has 49,152"
    assert left.change == "add one, or serve the model in fewer bits or with smaller limits"
    (close,) = pack([card("a/0", 80)], [load("ltx2", 62, 12)], {"ltx2": 1}).unplaced
    assert close.change.startswith("keep 7.5% free instead, or add one")
    (nowhere,) = pack([], [load("words", 1)], {"words": 1}).unplaced
    assert nowhere.why.endswith("there is none")


def test_a_slice_is_one_replicas_alone() -> None:
    cards = [card("a/0/3g-0", 40, is_slice=True), card("a/0/3g-1", 40, is_slice=True)]
    plan = pack(cards, [load("words", 2)], {"words": 3})
    assert sorted(plan.placed.values()) == ["a/0/3g-0", "a/0/3g-1"]
    assert plan.unplaced[0].why == "a/0/3g-0 is not for it: a slice is one replica's"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: load("sdxl", -1), "sdxl: weights_mib: -1024.0 is no amount of memory: give MiB between 0 and"),
        (lambda: load("sdxl", 1, float("nan")), "sdxl: peak_mib: nan is no amount"),
        (lambda: card("a/0", 0), "a/0: memory_mib: 0.0 is no amount of memory: give MiB between 1"),
        (lambda: card("a/0", 1e9), "is no amount of memory"),
        (lambda: load("sdxl", 1, pace="slow"), "there is no pace 'slow': use one of quick, long, any"),
        (lambda: pack([card("a/0"), card("a/0")], [], {}), "a/0: two cards have this name"),
        (lambda: pack([card("a/0")], [], {}, headroom=1.0), "headroom: 1.0 is no part of a card"),
        (lambda: pack([card("a/0")], [], {"sdxl": 1}), "sdxl: nothing is known of its memory: run `reelmesh models"),
        (lambda: pack([card("a/0")], [load("sdxl", 1)], {"sdxl": -1}), "sdxl: -1 replicas: use 0 to 10,000"),
    ],
)
def test_absurd_figures_are_refused_by_name(make, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("placed", "words"),
    [
        ({"sdxl#0": "c/0"}, "sdxl#0: there is no card 'c/0': use one of a/0, s/0"),
        ({"sdxl#0": "a/0", "clip#0": "a/0"}, "clip#0: a/0 lacks 15,278 MiB for it"),
        ({"voice#0": "s/0", "voice#1": "s/0"}, "voice#1: cannot share s/0 with voice#0: a slice is one replica's"),
        ({"other#0": "a/0"}, "other#0: nothing is known of its model's memory"),
    ],
    ids=["no card", "no memory", "two on a slice", "no profile"],
)
def test_an_assignment_by_hand_is_checked(placed: dict[str, str], words: str) -> None:
    loads = [load("sdxl", 12, 5), load("clip", 20, 5, pace="long"), load("voice", 1, pace="quick")]
    models = {name: name.partition("#")[0] for name in placed}
    with pytest.raises(BadInput) as caught:
        check_placed([card("a/0"), card("s/0", 10, is_slice=True)], loads, placed, models)
    assert words in str(caught.value)


MIB = st.integers(1, 60_000).map(float)
LOADS = st.lists(
    st.tuples(MIB, MIB, st.sampled_from(["quick", "long", "any"]), st.integers(0, 4)), min_size=1, max_size=8
)
CARDS = st.lists(st.tuples(st.integers(1, 90_000).map(float), st.booleans()), min_size=0, max_size=8)


def case(cards: list[tuple[float, bool]], loads: list[tuple[float, float, str, int]]):
    made = [
        Card(f"n{index // 2}/{index}", f"n{index // 2}", mib, is_slice=sliced)
        for index, (mib, sliced) in enumerate(cards)
    ]
    models = [Load(f"m{index}", weights, peak, pace) for index, (weights, peak, pace, _) in enumerate(loads)]  # type: ignore[arg-type]
    return made, models, {f"m{index}": count for index, (*_, count) in enumerate(loads)}


@settings(max_examples=300, deadline=None)
@given(CARDS, LOADS, CARDS, LOADS)
def test_no_plan_or_change_of_plan_gives_a_card_more_than_it_has(cards, loads, later_cards, later_loads) -> None:
    """Whatever comes, everything wanted is placed or told, rules hold, and the plan passes the check by hand."""
    plan = None
    for step in ((cards, loads), (later_cards, later_loads)):
        made, models, wanted = case(*step)
        plan = pack(made, models, wanted, plan.placed if plan else None)
        assert set(plan.placed) | {left.replica for left in plan.unplaced} == set(plan.models)
        assert not set(plan.placed) & {left.replica for left in plan.unplaced}
        assert Counter(plan.models.values()) == Counter({name: count for name, count in wanted.items() if count})
        check_placed(made, models, plan.placed, plan.models)
        for room in plan.rooms().values():
            assert room.taken_mib <= room.usable_mib * (1 + 1e-9)
        for left in plan.unplaced:
            assert all(not room.takes(plan.loads[plan.models[left.replica]]) for room in plan.rooms().values())


@settings(max_examples=100, deadline=None)
@given(CARDS, LOADS)
def test_packing_again_changes_nothing(cards, loads) -> None:
    made, models, wanted = case(cards, loads)
    first = pack(made, models, wanted)
    again = pack(made, models, wanted, first.placed)
    assert again.moves == []
    assert set(again.placed) >= set(first.placed)


def test_two_hundred_replicas_are_packed_quickly() -> None:
    cards = [card(f"n{index // 8}/{index}", 24 if index % 3 else 80) for index in range(64)]
    loads = [
        load(f"m{index}", 1 + index % 9, 1 + index % 5, pace=("quick", "long", "any")[index % 3]) for index in range(40)
    ]
    began = time.perf_counter()
    plan = pack(cards, loads, {f"m{index}": 5 for index in range(40)})
    assert len(plan.models) == 200
    assert plan.unplaced == []
    assert time.perf_counter() - began < 5  # a bound on its growth; `make bench` measures it

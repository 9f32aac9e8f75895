"""Which of those waiting are the next batch."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.ray.batch_forming import PATIENCE_S, Choice, in_order, next_batch
from serving.backends.ray.batch_rules import BatchRules


@dataclass(eq=False)
class One:
    rows: int = 1
    bucket: object = "a"
    arrived_s: float = 0.0
    level: int = 0


def line(*sizes, bucket="a", arrived_s=0.0):
    return [One(rows, bucket, arrived_s) for rows in sizes]


def rules(**kwargs):
    return BatchRules(**({"joins": True, "most": 8} | kwargs))


TABLE = [
    ("nobody", [], rules(), 0, None),
    ("no-joining", line(1, 1), rules(joins=False), 1, None),
    ("no-delay-takes-what-is-there", line(1, 1, 1), rules(), 3, None),
    ("never-over-the-most", line(3, 3, 3), rules(), 2, None),
    ("what-does-not-fit-is-not-overtaken", line(5, 4, 3), rules(), 1, None),
    ("waits-for-company", line(1, 1), rules(delay_s=0.5), 0, 0.4),
    ("a-full-batch-does-not-wait", line(4, 4, 1), rules(delay_s=0.5), 2, None),
    ("one-that-cannot-grow-does-not-wait", line(5, 4), rules(delay_s=0.5), 1, None),
    ("the-delay-passed", line(1, 1), rules(delay_s=0.1), 2, None),
    ("the-largest-preferred-size", line(*[1] * 7), rules(preferred=(2, 4), delay_s=9), 4, None),
    ("none-of-the-preferred-sizes", line(3), rules(preferred=(4,), delay_s=9), 0, 8.9),
]


@pytest.mark.parametrize(
    ("waiting", "given_rules", "taken", "wait_s"), [c[1:] for c in TABLE], ids=[c[0] for c in TABLE]
)
def test_the_decision(waiting, given_rules, taken, wait_s):
    choice = next_batch(waiting, given_rules, 0.1)
    assert list(choice.taken) == waiting[:taken]
    assert choice.wait_s == pytest.approx(wait_s)


def test_a_lone_client_does_not_wait():
    assert len(next_batch(line(1), rules(delay_s=9), 0.0, patient=False).taken) == 1


def test_shapes_meet_across_others_but_not_where_order_is_kept():
    mixed = [One(bucket=bucket) for bucket in "abab"]
    assert [one.bucket for one in next_batch(mixed, rules(), 0.0).taken] == ["a", "a"]
    assert list(next_batch(mixed, rules(keep_order=True, delay_s=9), 0.0).taken) == mixed[:1]


def test_a_full_batch_goes_while_another_shape_still_waits():
    waiting = [One(bucket="slow"), *line(4, 4, bucket="full")]
    assert list(next_batch(waiting, rules(delay_s=9), 0.0).taken) == waiting[1:]


def test_priorities_go_first_until_patience_ends():
    high, low = line(1, 1), line(1, 1)
    assert list(in_order({2: low, 1: high}, 1.0)) == [*high, *low]
    assert list(in_order({2: low, 1: high}, PATIENCE_S + 1)) == [low[0], *high, low[1]]
    assert list(in_order({1: high, 2: []}, 99.0)) == high


ONES = st.builds(One, rows=st.integers(1, 8), bucket=st.sampled_from("abc"), level=st.integers(1, 3))
RULES = st.builds(
    BatchRules,
    joins=st.booleans(),
    most=st.just(8),
    preferred=st.sampled_from([(), (4,), (2, 6)]),
    delay_s=st.sampled_from([0.0, 0.5, 9.0]),
    keep_order=st.booleans(),
)


@given(st.lists(ONES, max_size=30), RULES, st.floats(0, 10), st.booleans())
def test_any_choice_is_one_bucket_within_bounds_and_in_order(waiting, given_rules, now_s, patient):
    choice = next_batch(waiting, given_rules, now_s, patient=patient)
    taken = list(choice.taken)
    assert isinstance(choice, Choice)
    assert sum(one.rows for one in taken) <= 8
    assert len({one.bucket for one in taken}) <= 1
    assert bool(waiting) == bool(taken or choice.wait_s is not None)
    if taken:
        same = [one for one in waiting if one.bucket == taken[0].bucket]
        assert taken == same[: len(taken)]
    else:
        assert choice.wait_s is None or 0 < choice.wait_s <= given_rules.delay_s


@given(st.lists(ONES, min_size=1, max_size=20), RULES)
def test_everybody_is_served_even_while_higher_priorities_keep_coming(waiting, given_rules):
    left, now = list(waiting), 0.0
    for _ in range(20 * len(waiting) + 20):
        crowd = [One(rows=8, bucket="a", arrived_s=now, level=0)]
        levels = {level: [one for one in [*crowd, *left] if one.level == level] for level in range(4)}
        taken = set(map(id, next_batch(in_order(levels, now), given_rules, now).taken))
        left = [one for one in left if id(one) not in taken]
        now += PATIENCE_S
    assert not left

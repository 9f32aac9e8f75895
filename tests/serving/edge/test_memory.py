"""The control plane's calls are kept in order, and within bounds."""

import pytest

from serving.edge.memory import ControlMemory, call_bytes
from serving.errors import TooLarge, Unavailable
from serving.protocol.control import ControlCall


def call(key, **body):
    return ControlCall(key=key, path=f"/v2/{key}", body=body)


def remembered(*calls, most_calls=10, most_bytes=10_000):
    memory = ControlMemory(most_calls, most_bytes)
    for each in calls:
        memory = memory.remember(each)
    return memory


def test_calls_are_recalled_in_the_order_they_were_made():
    calls = [call("model/b"), call("model/a"), call("logging", log_verbose_level=1)]
    assert remembered(*calls).recall() == calls


def test_a_later_call_with_the_same_key_takes_the_place_of_the_older_one():
    memory = remembered(call("model/a", x=1), call("model/b"), call("model/a", x=2))
    assert memory.recall() == [call("model/b"), call("model/a", x=2)]


def test_what_is_forgotten_gives_its_room_back():
    memory = remembered(call("model/a"), call("model/b"))
    for key in ("model/a", "model/a", "nobody", "model/b"):
        memory = memory.forget(key)
    assert memory.recall() == []
    assert memory.used_bytes == 0


def test_one_call_may_be_recalled_alone():
    memory = remembered(call("model/a"), call("model/ab"))
    assert memory.recall("model/a") == [call("model/a")]
    assert memory.recall("model/") == []


def test_all_of_a_kind_may_be_forgotten_at_once():
    memory = remembered(call("system/a"), call("model/a"), call("system/b")).forget("system/")
    assert memory.recall() == [call("model/a")]
    assert memory.used_bytes == call_bytes(call("model/a"))


def test_one_call_too_many_is_refused_by_the_name_of_the_bound_and_changes_nothing():
    full = remembered(call("a"), call("b"), most_calls=2)
    with pytest.raises(Unavailable, match=r"limits\.control_calls.*2 control calls"):
        full.remember(call("c"))
    assert full.remember(call("a", x=1)).recall() == [call("b"), call("a", x=1)]


def test_too_many_bytes_are_refused_by_the_name_of_the_bound():
    memory = remembered(call("a", file="x" * 600), most_bytes=1000)
    with pytest.raises(Unavailable, match=r"limits\.control_bytes"):
        memory.remember(call("b", file="x" * 600))
    assert [each.key for each in memory.remember(call("a", file="y" * 700)).recall()] == ["a"]


def test_a_call_that_would_never_fit_is_not_worth_another_try():
    with pytest.raises(TooLarge, match=r"limits\.control_bytes") as caught:
        remembered(call("a", file="x" * 600), most_bytes=1000).remember(call("b", file="x" * 1001))
    assert not caught.value.retryable


def test_size_counts_text_wherever_it_stands():
    nested = call("a", parameters={"file:1/model": "x" * 1000, "list": ["y" * 500, None, 1.5, True]})
    assert 1500 < call_bytes(nested) < 1700


def test_nesting_does_not_break_the_count():
    deep = []
    for _ in range(50_000):
        deep = [deep]
    assert call_bytes(ControlCall.model_construct(key="a", path="/", body={"deep": deep})) > 50_000

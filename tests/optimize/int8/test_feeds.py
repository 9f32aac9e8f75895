from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from optimize.int8.feeds import Feed, Reader, check_feeds, inputs_of
from serving.errors import BadInput

GRAPH = helper.make_graph(
    [],
    "step",
    [
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "tokens", 4]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, [None, "tokens"]),
        helper.make_tensor_value_info("past", TensorProto.FLOAT, ["batch", "past", 4]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4]),
    ],
    [],
    [helper.make_tensor("weight", TensorProto.FLOAT, [4], [0.0] * 4)],
)
INPUTS = inputs_of(GRAPH)


def feed(**changes: np.ndarray) -> Feed:
    good = {
        "hidden": np.random.default_rng(0).standard_normal((2, 3, 4), np.float32),
        "mask": np.ones((2, 3), np.float32),
        "past": np.zeros((2, 0, 4), np.float32),
        "ids": np.array([5, 5]),
    }
    return good | changes


def without(name: str) -> Feed:
    return {key: value for key, value in feed().items() if key != name}


def test_a_mask_of_ones_and_an_empty_cache_are_real_calls() -> None:
    assert [entry.name for entry in INPUTS] == ["hidden", "mask", "past", "ids"]
    check_feeds(INPUTS, [feed(), feed()])


@pytest.mark.parametrize(
    ("make", "field", "says"),
    [
        pytest.param(list, "feeds", "no calibration feeds", id="none at all"),
        pytest.param(lambda: [feed(), without("ids")], "feeds[1].ids", "missing", id="a missing name"),
        pytest.param(lambda: [feed(idz=np.array([1]))], "feeds[0].idz", "hidden, mask", id="an unknown name"),
        pytest.param(lambda: [feed(ids=np.array([5, 5], np.int32))], "feeds[0].ids", "int64", id="another type"),
        pytest.param(lambda: [feed(mask=np.ones(3, np.float32))], "feeds[0].mask", "x tokens", id="another rank"),
        pytest.param(
            lambda: [feed(hidden=np.ones((2, 3, 5), np.float32))], "feeds[0].hidden", "x 4", id="another fixed axis"
        ),
        pytest.param(
            lambda: [feed(hidden=np.full((2, 3, 4), np.inf, np.float32))], "feeds[0].hidden", "finite", id="infinite"
        ),
        pytest.param(
            lambda: [feed(hidden=np.ones((2, 3, 4), np.float32), ids=np.array([1, 2]))],
            "feeds: hidden, mask",
            "the same",
            id="all floats constant",
        ),
    ],
)
def test_feeds_of_the_wrong_kind_are_refused_by_name(make: Callable[[], list[Feed]], field: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_feeds(INPUTS, make())
    assert caught.value.field == field
    assert says in str(caught.value)
    assert caught.value.fix


def test_ids_alone_must_vary_between_feeds() -> None:
    ids = [entry for entry in INPUTS if entry.name == "ids"]
    check_feeds(ids, [{"ids": np.array([5])}, {"ids": np.array([6])}])
    with pytest.raises(BadInput, match="no range"):
        check_feeds(ids, [{"ids": np.array([5])}, {"ids": np.array([5])}])


def test_the_reader_hands_out_every_feed_once() -> None:
    reader = Reader([{"a": np.zeros(1)}, {"a": np.ones(1)}])
    assert [next_feed["a"][0] for next_feed in iter(reader.get_next, None)] == [0, 1]

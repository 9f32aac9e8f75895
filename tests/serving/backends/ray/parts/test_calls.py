"""Calls as flat tensors and trees, and back."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DecoderOutput
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache

from serving.backends.ray.engines.networks.fomm_keypoints import Keypoints
from serving.backends.ray.parts.calls import SizeOf, bound, collect, flatten, key_of, rebuild
from serving.errors import EngineFailed

NAMES = st.text("abcdefgh_", min_size=1, max_size=6)
CONSTANTS = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, -2.0]) | st.text("xyz", max_size=3)
TENSORS = st.lists(st.integers(1, 3), max_size=3).map(torch.rand)
VALUES = st.recursive(
    CONSTANTS | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=8,
)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return type(one) is type(other) and list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


@given(VALUES)
def test_a_value_comes_back_whole(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = flatten(value, "in", tensors)
    assert equal(rebuild(tree, tensors), value)


@given(VALUES)
def test_a_trees_names_find_the_same_tensors_in_an_equal_value(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = flatten(value, "in", tensors)
    found: dict[str, torch.Tensor] = {}
    collect(tree, rebuild(tree, tensors), found)
    assert found.keys() == tensors.keys()
    assert all(found[name] is tensors[name] for name in tensors)


def test_named_tuples_come_back_as_what_they_were() -> None:
    value = Keypoints(torch.rand(1, 2), torch.rand(1, 3))
    tensors: dict[str, torch.Tensor] = {}
    tree = flatten(value, "driving", tensors)
    assert list(tensors) == ["driving.places", "driving.jacobians"]
    assert equal(rebuild(tree, tensors), value)
    found: dict[str, torch.Tensor] = {}
    collect(tree, value, found)
    assert found == tensors


def test_names_say_where_a_tensor_was() -> None:
    tensors: dict[str, torch.Tensor] = {}
    call = {"sample": torch.rand(2), "more": {"ids": torch.rand(1)}, "residuals": [torch.rand(1), torch.rand(3)]}
    flatten(call, "", tensors)
    assert list(tensors) == ["sample", "more.ids", "residuals.0", "residuals.1"]


def test_what_is_handed_through_has_its_inputs_name() -> None:
    kept, made = torch.rand(2), torch.rand(3)
    tensors = {"kept": kept}
    assert flatten((made, kept), "output", tensors) == {"tuple": [{"tensor": "output.0"}, {"tensor": "kept"}]}


def test_a_number_may_be_told_by_a_tensors_size() -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = flatten({"frames": torch.rand(2, 5), "count": SizeOf("frames", 1)}, "", tensors)
    back = rebuild(tree, {"frames": torch.rand(3, 7)})
    assert isinstance(back, dict)
    assert back["count"] == 7


def test_an_answer_of_a_library_comes_back_as_its_class() -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = flatten(DecoderOutput(sample=torch.ones(2)), "output", tensors)
    back = rebuild(tree, tensors)
    assert isinstance(back, DecoderOutput)
    assert torch.equal(back.sample, torch.ones(2))


def test_a_file_names_no_class_of_elsewhere() -> None:
    with pytest.raises(EngineFailed, match="may not answer with a subprocess:Popen: publish the part again"):
        rebuild({"answer": "subprocess:Popen", "dict": {}}, {})


def filled(layers: int, length: int) -> DynamicCache:
    cache = DynamicCache()
    for index in range(layers):
        cache.update(torch.rand(1, 2, length, 4), torch.rand(1, 2, length, 4), index)
    return cache


@pytest.mark.parametrize("crossed", [0, 5])
def test_caches_go_by_keys_and_values(crossed: int) -> None:
    cache = EncoderDecoderCache(filled(2, 3), filled(2, crossed) if crossed else DynamicCache())
    tensors: dict[str, torch.Tensor] = {}
    tree = flatten(cache, "past", tensors)
    assert len(tensors) == (8 if crossed else 4)
    back = rebuild(tree, tensors)
    assert isinstance(back, EncoderDecoderCache)
    assert back.get_seq_length() == 3
    assert back.is_updated == cache.is_updated
    assert torch.equal(back.self_attention_cache.layers[1].values, tensors["past.1.1"])


def test_an_empty_cache_is_another_kind_of_call() -> None:
    empty, full = EncoderDecoderCache(DynamicCache(), DynamicCache()), EncoderDecoderCache(filled(1, 2), filled(1, 3))
    assert key_of(flatten(empty, "past", {})) != key_of(flatten(full, "past", {}))


class Layer(nn.Module):
    def forward(self, sample: torch.Tensor, scale: float = 1.0, mask: torch.Tensor | None = None, **more: int) -> None:
        return None


def test_it_does_not_matter_who_left_a_default_out() -> None:
    sample = torch.rand(1)
    given_all = bound(Layer(), (sample, 1.0), {"mask": None})
    assert list(given_all) == list(bound(Layer(), (), {"sample": sample})) == ["sample"]
    assert bound(Layer(), (sample,), {"scale": 2.0, "frames": 3}) == {"sample": sample, "scale": 2.0, "frames": 3}


def test_what_cannot_be_an_input_is_named() -> None:
    with pytest.raises(EngineFailed, match=r"sample\.cross is a object"):
        flatten({"cross": object()}, "sample", {})

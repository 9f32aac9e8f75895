"""Synthetic weights follow their seed."""

import torch

from serving.backends.ray.engines.networks.sadtalker_audio2exp import Audio2Exp
from serving.backends.ray.tiny.faces import random_weights


def test_equal_seeds_give_equal_weights_and_other_seeds_others() -> None:
    one, same, other = (random_weights(Audio2Exp, seed) for seed in (1, 1, 2))
    assert one.keys() == Audio2Exp().state_dict().keys()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["mapping1.weight"], other["mapping1.weight"])

"""What is emptied when a part is swapped in, and what is not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from serving.backends.ray.parts.place import by_torch, empty, module_at
from serving.errors import BadInput


class Translator(nn.Module):
    """Encoder and scores share the embedding, as in Marian."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4))
        self.scores = nn.Linear(4, 10, bias=False)
        self.scores.weight = self.encoder[0].weight


def test_numbers_that_another_module_shares_stay() -> None:
    engine = SimpleNamespace(network=Translator())
    assert empty(engine, "network.encoder") == 4 * (4 * 4 + 4)
    assert engine.network.encoder[1].weight.numel() == 0
    assert engine.network.scores.weight.shape == (10, 4)


def test_a_whole_network_is_emptied() -> None:
    engine = SimpleNamespace(network=Translator())
    assert empty(engine, "network") == 4 * (10 * 4 + 4 * 4 + 4)
    assert [held.numel() for held in engine.network.parameters()] == [0, 0, 0]


def test_a_module_is_found_by_attributes_and_numbers() -> None:
    engine = SimpleNamespace(network=Translator())
    assert module_at(engine, "network.encoder.1") is engine.network.encoder[1]
    for path in ("network.encoder.2", "network.encoder.first", "pipeline"):
        with pytest.raises(BadInput, match="no module at"):
            module_at(engine, path)


def test_a_pass_by_torch_goes_by_what_stands_in_for_it_and_puts_it_back_when_it_fails() -> None:
    layer, values = nn.Linear(4, 4), torch.ones(1, 4)
    own = layer(values)
    layer.forward = lambda given: given + 1
    with pytest.raises(ValueError, match="broken"), by_torch(layer):
        assert torch.equal(layer(values), own)
        raise ValueError("broken")
    assert torch.equal(layer(values), values + 1)


def test_a_module_in_whose_place_nothing_stands_runs_as_ever() -> None:
    layer = nn.Linear(4, 4)
    with by_torch(layer):
        layer(torch.ones(1, 4))
    assert "forward" not in vars(layer)

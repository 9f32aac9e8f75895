from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers import AceStepTransformer1DModel
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSafeConv3d
from diffusers.models.embeddings import CogVideoXPatchEmbed
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from optimize.diffusion_fixes import ALL_FIXES, argsort, attention
from optimize.fixes import applied
from optimize.onnx_export import export
from serving.errors import EngineFailed


class Looks(nn.Module):
    def forward(self, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(values, values, values, seen).transpose(1, 2).flatten(2)


class Sorts(nn.Module):
    def forward(self, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(1 - seen.int(), dim=1, stable=True)
        return torch.gather(values, 1, order)


class Turns(nn.Module):
    def forward(self, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        powers = torch.pow(10_000.0, torch.linspace(0.0, 1.0, 8, dtype=torch.float64))
        return torch.cos(values[..., None] * (powers * torch.pi / 2.0).float()) * seen[..., None]


class Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = CogVideoXPatchEmbed(
            in_channels=2,
            embed_dim=16,
            text_embed_dim=8,
            max_text_seq_length=3,
            use_learned_positional_embeddings=False,
        )

    def forward(self, values: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return self.embed(words, values)


class Convolves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = CogVideoXSafeConv3d(2, 3, 3)

    def forward(self, values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.convolution(values) + other.shape[0]


class Pads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = AceStepTransformer1DModel(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
            head_dim=8, in_channels=12, audio_acoustic_hidden_dim=4, sliding_window=8,
        ).eval()  # fmt: skip

    def forward(self, values: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        time = words[:, 0, 0]
        return self.network(values[..., 8:], time, time, words, values[..., :8], return_dict=False)[0]


def drawn(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes)))


def masks(*sizes: int) -> torch.Tensor:
    """The first half of all places is not to be seen."""
    return torch.arange(sizes[-1]).expand(sizes) >= sizes[-1] // 2


Axes = Mapping[int, str]
ROWS: Axes = {0: "batch"}
CASES = [
    pytest.param(
        "attention",
        Looks(),
        [(drawn(n, 2, 6, 4), masks(n, 1, 6, 6).tril()) for n in (2, 3)],
        (ROWS, ROWS),
        id="attention",
    ),
    pytest.param("argsort", Sorts(), [(drawn(n, 6), masks(n, 6)) for n in (2, 3)], (ROWS, ROWS), id="argsort"),
    pytest.param("doubles", Turns(), [(drawn(n, 6), masks(n, 6).float()) for n in (2, 3)], (ROWS, ROWS), id="doubles"),
    pytest.param(
        "joined_positions",
        Places(),
        [(drawn(2, n, 2, 4, 6), drawn(2, 3, 8)) for n in (3, 5)],
        ({1: "frames"}, {}),
        id="joined_positions",
    ),
    pytest.param(
        "undivided", Convolves(), [(drawn(n, 2, 4, 5, 6), drawn(n, 1)) for n in (2, 3)], (ROWS, ROWS), id="undivided"
    ),
    pytest.param(
        "whole_patches",
        Pads(),
        [(drawn(2, n, 12), drawn(2, 5, 16)) for n in (24, 31)],
        ({1: "length"}, {}),
        id="whole_patches",
    ),
]


def furthest(file: Path, module: nn.Module, inputs: tuple[torch.Tensor, torch.Tensor]) -> float:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"values": inputs[0].numpy(), "other": inputs[1].numpy()})
    with torch.no_grad():
        expected = module(*inputs).numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize(("name", "module", "examples", "axes"), CASES)
def test_a_cure_makes_the_file_answer_as_torch_does_at_the_traced_size_and_at_another(
    name: str,
    module: nn.Module,
    examples: list[tuple[torch.Tensor, torch.Tensor]],
    axes: tuple[Axes, Axes],
    tmp_path: Path,
) -> None:
    names = (["values", "other"], ["found"], axes)
    exported = export(module.eval(), examples[0], *names, tmp_path / "cured.onnx", fixes=[ALL_FIXES[name]])
    assert exported.fixes == (name,)
    for inputs in examples:
        assert furthest(tmp_path / "cured.onnx", module, inputs) < 1e-5


@pytest.mark.parametrize(("name", "module", "examples", "axes"), CASES)
def test_without_its_cure_the_fault_is_there(
    name: str,
    module: nn.Module,
    examples: list[tuple[torch.Tensor, torch.Tensor]],
    axes: tuple[Axes, Axes],
    tmp_path: Path,
) -> None:
    try:
        export(module.eval(), examples[0], ["values", "other"], ["found"], axes, tmp_path / "plain.onnx")
        assert max(furthest(tmp_path / "plain.onnx", module, inputs) for inputs in examples) > 1e-4
    except (EngineFailed, AssertionError, ort.capi.onnxruntime_pybind11_state.Fail):
        return


@pytest.mark.parametrize("name", [case.values[0] for case in CASES])
def test_nothing_of_a_cure_stays_in_the_module(name: str) -> None:
    (module,) = [case.values[1] for case in CASES if case.values[0] == name]
    before = {path: dict(vars(part)) for path, part in module.named_modules()}
    with applied([ALL_FIXES[name]], module):
        pass
    assert {path: dict(vars(part)) for path, part in module.named_modules()} == before


def test_equal_integers_keep_their_order_from_both_ends() -> None:
    values = torch.tensor([[1, 0, 1, 0, 1]])
    for descending in (False, True):
        expected = torch.argsort(values, dim=1, descending=descending, stable=True)
        found = argsort(values, dim=1, descending=descending, stable=True)
        assert found is not None
        assert torch.equal(found, expected)
    assert argsort(values) is None
    assert argsort(values.float(), stable=True) is None


def test_attention_that_sees_nothing_is_zero_as_in_torch() -> None:
    values, seen = drawn(1, 2, 6, 4), masks(1, 1, 6, 6).tril()
    found = attention(values, values, values, seen)
    assert found is not None
    assert torch.equal(found, scaled_dot_product_attention(values, values, values, seen))
    assert torch.equal(found[:, :, 0], torch.zeros(1, 2, 4))
    assert attention(values, values, values) is None

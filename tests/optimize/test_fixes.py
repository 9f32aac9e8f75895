from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn
from transformers import EncodecConfig, EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d

from optimize.fixes import FIXES, Fix, applied, cat, inverse, lstm, repeat_interleave, squeeze
from optimize.onnx_export import Exported, export
from serving.errors import EngineFailed


class Repeats(nn.Module):
    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(like.shape[0], dim=0)


class Squeezes(nn.Module):
    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return values.squeeze(1) + like.shape[0]


class Inverts(nn.Module):
    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return torch.inverse(values) + like.shape[0]


class Pads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = EncodecConv1d(EncodecConfig(), 4, 6, 5, stride=2)

    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self.convolution(values) + like.shape[0]


class Concatenates(nn.Module):
    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return torch.concat([values, like.sin().reshape((values.shape[0], -1))], dim=-1)


class Spaces(nn.Module):
    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-1, 1, values.shape[-1]) * values + like.shape[0]


class Recurs(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(4, 5, num_layers=2, **options)

    def forward(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        output, (states, cells) = self.lstm(values.transpose(1, 2))
        return torch.cat([output.flatten(), states.flatten(), cells.flatten()]) + like.shape[0]


TIMES = {0: "batch", 2: "time"}
CASES = [
    pytest.param("repeat_interleave", Repeats, (3,), torch.float32, {0: "batch"}, id="repeat_interleave"),
    pytest.param("squeeze", Squeezes, (3,), torch.float32, {0: "batch"}, id="squeeze"),
    pytest.param("inverse", Inverts, (2, 2), torch.float32, {0: "batch"}, id="inverse"),
    pytest.param("integer_padding", Pads, (4, 30), torch.float32, TIMES, id="integer_padding"),
    pytest.param("lstm", partial(Recurs, batch_first=True), (4, 6), torch.float32, TIMES, id="lstm"),
    pytest.param("lstm", partial(Recurs, bidirectional=True), (4, 6), torch.float32, TIMES, id="lstm both ways"),
    pytest.param("lstm", partial(Recurs, bias=False), (4, 6), torch.float32, TIMES, id="lstm without bias"),
    pytest.param("linspace", Spaces, (4, 6), torch.float32, TIMES, id="linspace"),
    pytest.param("cat", Concatenates, (3,), torch.float16, {0: "batch"}, id="cat"),
]


def inputs(batch: int, shape: tuple[int, ...], dtype: torch.dtype, longer: int = 0) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(batch)
    sizes = (*shape[:-1], shape[-1] + longer)
    return torch.randn(batch, *sizes, generator=random).to(dtype), torch.randn(batch, 5, generator=random)


def run(file: Path, values: tuple[torch.Tensor, ...]) -> np.ndarray:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"values": values[0].numpy(), "like": values[1].numpy()})[0]


@pytest.mark.parametrize(("name", "kind", "shape", "dtype", "axes"), CASES)
def test_what_fails_without_a_fix_equals_torch_with_it(
    tmp_path: Path,
    name: str,
    kind: Callable[[], nn.Module],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    axes: dict[int, str],
) -> None:
    module = kind().eval()
    second = inputs(3, shape, dtype, longer=7 if 2 in axes else 0)
    file = tmp_path / "model.onnx"

    def exported(*fixes: Fix) -> Exported:
        example = inputs(4, shape, dtype)
        return export(module, example, ["values", "like"], ["result"], [axes, {0: "batch"}], file, fixes=fixes)

    with pytest.raises((EngineFailed, ort.capi.onnxruntime_pybind11_state.Fail, AssertionError, RuntimeError)):
        exported()
        np.testing.assert_allclose(run(file, second), module(*second).detach().numpy(), atol=1e-3)
    report = exported(FIXES[name])
    assert report.fixes == (name,)
    assert report.tools["fixes"] == name
    with torch.no_grad():
        expected = module(*second).numpy()
    np.testing.assert_allclose(run(file, second), expected, atol=1e-4 if dtype == torch.float32 else 2e-3)


def test_a_fix_that_had_nothing_to_do_is_not_listed(tmp_path: Path) -> None:
    example = inputs(4, (3,), torch.float32)
    axes = [{0: "batch"}, {0: "batch"}]
    report = export(
        nn.Bilinear(3, 5, 2).eval(),
        example,
        ["values", "like"],
        ["result"],
        axes,
        tmp_path / "model.onnx",
        fixes=list(FIXES.values()),
    )
    assert report.fixes == ()
    assert "fixes" not in report.tools


def test_the_module_is_as_before_even_after_an_error() -> None:
    module = Pads().eval()
    before = {name: value.clone() for name, value in module.named_buffers()}
    values = inputs(2, (4, 31), torch.float32)
    expected = module(*values)
    with pytest.raises(ZeroDivisionError), applied(list(FIXES.values()), module) as done:
        assert module.convolution.padding_total == 3
        torch.testing.assert_close(module(*values), expected)
        assert done == {"integer_padding"}
        raise ZeroDivisionError
    after = dict(module.named_buffers())
    assert after.keys() == before.keys() == {f"convolution.{n}" for n in ("stride", "kernel_size", "padding_total")}
    assert all(torch.equal(after[name], before[name]) for name in before)
    torch.testing.assert_close(module(*values), expected)
    assert torch.equal(torch.cat([torch.ones(1), torch.ones(1)]), torch.ones(2))


def projected() -> tuple[object, ...]:
    """What torch calls for ``nn.LSTM(3, 4, proj_size=2)``."""
    network = nn.LSTM(3, 4, proj_size=2)
    start = (torch.zeros(1, 2, 2), torch.zeros(1, 2, 4))
    return torch.rand(5, 2, 3), start, network._flat_weights, True, 1, 0.0, False, False, False


@pytest.mark.parametrize(
    ("mine", "theirs", "values"),
    [
        pytest.param(repeat_interleave, torch.repeat_interleave, (torch.rand(2, 3), 4), id="flattened"),
        pytest.param(repeat_interleave, torch.repeat_interleave, (torch.rand(2, 3), 4, -1), id="last axis"),
        pytest.param(squeeze, torch.squeeze, (torch.rand(2, 1, 3), (1, 2)), id="some of the axes"),
        pytest.param(squeeze, torch.squeeze, (torch.rand(2, 1, 3), -1), id="none of the axes"),
        pytest.param(inverse, torch.inverse, (torch.rand(5, 2, 2, dtype=torch.float64),), id="2x2"),
        pytest.param(cat, torch.cat, ([torch.ones(2, dtype=torch.int32), torch.rand(2).half()],), id="types"),
    ],
)
def test_a_replacement_computes_the_same(
    mine: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor], values: tuple[object, ...]
) -> None:
    torch.testing.assert_close(mine(*values), theirs(*values))


def test_a_packed_sequence_is_left_as_it_is() -> None:
    network = nn.LSTM(3, 4)
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])
    expected = network(packed)[0].data
    with applied([FIXES["lstm"]], network) as done:
        torch.testing.assert_close(network(packed)[0].data, expected)
    assert done == set()


def test_the_decoder_of_encodec_takes_any_length(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_filters": 4, "codebook_size": 32, "codebook_dim": 16}
    decoder = EncodecModel(EncodecConfig(**sizes, upsampling_ratios=[4, 2])).eval().decoder
    file = tmp_path / "model.onnx"
    fixes = [FIXES["lstm"], FIXES["integer_padding"]]
    example = (torch.randn(2, 16, 20),)
    report = export(decoder, example, ["codes"], ["audio"], [{0: "batch", 2: "frames"}], file, fixes=fixes)
    assert report.fixes == ("integer_padding", "lstm")
    assert report.outputs == (("batch", 1, "8*frames"),)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    for frames in (7, 33):
        codes = torch.randn(1, 16, frames)
        with torch.no_grad():
            expected = decoder(codes).numpy()
        np.testing.assert_allclose(session.run(None, {"codes": codes.numpy()})[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(repeat_interleave(torch.rand(2), torch.tensor([1, 2])), id="counts"),
        pytest.param(squeeze(torch.rand(2, 1)), id="no axis"),
        pytest.param(squeeze(torch.rand(2, 1), 1), id="an axis of one"),
        pytest.param(inverse(torch.eye(3)), id="3x3"),
        pytest.param(cat([torch.rand(2), torch.rand(2)]), id="one type"),
        pytest.param(lstm(*projected()), id="projected states"),
    ],
)
def test_other_calls_are_left_as_they_are(answer: object) -> None:
    assert answer is None

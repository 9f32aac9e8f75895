"""`python -m bench.int8`: INT8 against float32 in ONNX Runtime on networks of four shapes, by mode and size of input.

Random weights of real widths: a transformer stack, Whisper's encoder (tiny), a decoder step of Marian's width with its
cache, and residual blocks of a UNet. The one invariant: every figure is a ratio of two files that ran in turns, on the
same threads, in the same seconds.
"""

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple, get_args

import numpy as np
import torch
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from optimize.int8.feeds import Array, Feed
from optimize.int8.graph import Mode
from optimize.int8.measure import Runner, in_turns
from optimize.int8.quantize import quantize
from serving.errors import BadInput

RESULTS: Final = Path(__file__).parent / "int8.json"
"""Kept in git: docs/optimize.md tells of it."""
BOUND_DB: Final = 20.0
"""Low on purpose: all layers in INT8 are measured, and quality is shown beside."""

HEAD: Final = 64


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of heads: (batch, heads, tokens, 64) each to (batch, tokens, width)."""
    mixed = nn.functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


def split(hidden: Tensor) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, 64)."""
    return hidden.view(*hidden.shape[:2], -1, HEAD).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block with four times the width inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) to the same."""
        normed = self.before(hidden)
        hidden = hidden + self.out(attend(*(split(layer(normed)) for layer in (self.query, self.key, self.value))))
        result: Tensor = hidden + self.inner(self.between(hidden))
        return result


class Whisper(nn.Module):
    """The encoder of Whisper tiny: two convolutions over 80 mel bands, four blocks of width 384."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, 384, 3, padding=1)
        self.second = nn.Conv1d(384, 384, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(384) for _ in range(4)))

    def forward(self, mel: Tensor) -> Tensor:
        """(batch, 80, frames) to (batch, frames / 2, 384)."""
        hidden = nn.functional.gelu(self.second(nn.functional.gelu(self.first(mel))))
        result: Tensor = self.blocks(hidden.transpose(1, 2))
        return result


class Step(nn.Module):
    """Six blocks over one new word, then 32,000 scores; keys and values of earlier words are inputs."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.blocks = [Block(width) for _ in range(6)]
        self.registered = nn.ModuleList(self.blocks)
        self.words = nn.Linear(width, 32000, bias=False)

    def forward(self, hidden: Tensor, past: Tensor) -> Tensor:
        """(batch, 1, width) and (12, batch, 8, past, 64) to (batch, 1, words)."""
        for index, block in enumerate(self.blocks):
            normed = block.before(hidden)
            keys, values = (
                torch.cat([past[2 * index + offset], split(layer(normed))], 2)
                for offset, layer in enumerate((block.key, block.value))
            )
            hidden = hidden + block.out(attend(split(block.query(normed)), keys, values))
            hidden = hidden + block.inner(block.between(hidden))
        scores: Tensor = self.words(hidden)
        return scores


class Residual(nn.Module):
    """A residual block of a UNet: group norm, SiLU and a 3x3 convolution, twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = (nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.body = nn.Sequential(*layers, nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, sample: Tensor) -> Tensor:
        """(batch, width, height, columns) to the same."""
        result: Tensor = sample + self.body(sample)
        return result


class Case(NamedTuple):
    """A network, the shapes of its inputs at each size, and which of their axes are dynamic."""

    name: str
    module: Callable[[], nn.Module]
    sizes: Sequence[Mapping[str, tuple[int, ...]]]
    dynamic: Mapping[str, dict[int, str]]


TOKENS: Final = {"hidden": {0: "batch", 1: "tokens"}}

CASES: Final = (
    Case(
        "4 blocks, width 512",
        lambda: nn.Sequential(*(Block(512) for _ in range(4))),
        [{"hidden": (1, tokens, 512)} for tokens in (77, 256, 1024)],
        TOKENS,
    ),
    Case(
        "2 blocks, width 1024",
        lambda: nn.Sequential(*(Block(1024) for _ in range(2))),
        [{"hidden": (1, tokens, 1024)} for tokens in (77, 256, 1024)],
        TOKENS,
    ),
    Case("Whisper encoder", Whisper, [{"mel": (1, 80, 3000)}], {"mel": {0: "batch", 2: "frames"}}),
    Case(
        "decoder step",
        Step,
        [{"hidden": (batch, 1, 512), "past": (12, batch, 8, 20, HEAD)} for batch in (1, 4, 16)],
        {"hidden": {0: "batch"}, "past": {1: "batch", 3: "past"}},
    ),
    Case(
        "3 residual blocks, 320 channels",
        lambda: nn.Sequential(*(Residual(320) for _ in range(3))),
        [{"sample": (1, 320, 64, 64)}],
        {"sample": {0: "batch", 2: "height", 3: "columns"}},
    ),
)


def export(case: Case, file: Path) -> None:
    """Write a case's network with seeded weights."""
    torch.manual_seed(0)
    shapes = {name: [2 if i in case.dynamic[name] else n for i, n in enumerate(s)] for name, s in case.sizes[0].items()}
    for name, axes in case.dynamic.items():
        for offset, axis in enumerate(sorted(set(axes) - {0}), start=3):
            shapes[name][axis] = 32 + 2 * offset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            case.module().eval(),
            tuple(torch.randn(shape) for shape in shapes.values()),
            file,
            dynamo=True,
            opset_version=20,
            input_names=list(shapes),
            dynamic_shapes=tuple(case.dynamic[name] for name in shapes),
            external_data=False,
            verbose=False,
        )


def feed_of(shapes: Mapping[str, tuple[int, ...]]) -> Feed:
    """Seeded normal inputs."""
    random = np.random.default_rng(0)
    arrays: dict[str, Array] = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return arrays


class Row(BaseModel):
    """One size of one network in one mode: milliseconds of both files, in turns, and what INT8 keeps."""

    network: str
    mode: Mode
    shapes: str
    float_ms: float
    int8_ms: float
    snr_db: float

    @property
    def faster(self) -> float:
        """Times."""
        return self.float_ms / self.int8_ms


def measure(case: Case, folder: Path) -> list[Row]:
    """A row for every mode that has a layer for the network, and every size."""
    source = folder / "float.onnx"
    export(case, source)
    feeds = [feed_of(shapes) for shapes in case.sizes]
    rows = []
    for mode in get_args(Mode):
        target = folder / f"{mode}.onnx"
        try:
            done = quantize(source, target, feeds, mode=mode, bound=BOUND_DB)
        except BadInput:  # nothing but convolutions, or none
            continue
        floats, int8 = Runner(source), Runner(target)
        for shapes, feed in zip(case.sizes, feeds, strict=True):
            float_ms, ms = in_turns(floats, int8, [feed])
            size = ", ".join("x".join(map(str, shape)) for shape in shapes.values())
            found = {"network": case.name, "mode": mode, "shapes": size, "snr_db": done.quality}
            rows.append(Row(**found, float_ms=float_ms, int8_ms=ms))
    return rows


def best(rows: Sequence[Row]) -> dict[str, tuple[Mode, float]]:
    """For each network the mode that is fastest by its median over the sizes."""
    found: dict[str, tuple[Mode, float]] = {}
    for name in dict.fromkeys(row.network for row in rows):
        modes = {row.mode: [one.faster for one in rows if (one.network, one.mode) == (name, row.mode)] for row in rows}
        medians: dict[Mode, float] = {mode: median(ratios) for mode, ratios in modes.items() if ratios}
        mode = max(medians, key=medians.__getitem__)
        found[name] = (mode, medians[mode])
    return found


def main() -> None:
    """Measure every case, print the table, and keep the figures."""
    rows: list[Row] = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="reelmesh-bench-") as folder:
            rows += measure(case, Path(folder))
    table = Table("network", "mode", "input", "float32 ms", "INT8 ms", "faster", "signal to noise")
    for row in rows:
        figures = (f"{row.float_ms:.1f}", f"{row.int8_ms:.1f}", f"{row.faster:.2f}x", f"{row.snr_db:.1f} dB")
        table.add_row(row.network, row.mode, row.shapes, *figures)
    console = Console(width=160)
    console.print(table)
    for name, (mode, ratio) in best(rows).items():
        console.print(f"{name}: {mode} is {ratio:.2f}x as fast as float32, median over the sizes")
    RESULTS.write_text(json.dumps([row.model_dump() for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A small network in an engine's place, and a part of it, exported in a second."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from optimize.onnx_export import export
from serving.backends.ray.parts.capture import RecordedCall, recording
from serving.repository.part_file import PART_FILE, PartFile, PartTensor, Variant


class Mixer(nn.Module):
    """Two layers, a number that scales, and a state that is handed through."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)
        self.width = 4

    def forward(
        self, sample: torch.Tensor, time: torch.Tensor, *, double: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.second(self.first(sample).tanh()) * (2 if double else 1) + time
        return hidden, sample


def engine() -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(pipeline=SimpleNamespace(mixer=Mixer().eval()))


def call(mixer: nn.Module, rows: int = 3, *, double: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(rows)
    with torch.inference_mode():
        found: tuple[torch.Tensor, torch.Tensor] = mixer(torch.rand(rows, 4), torch.tensor(0.5), double=double)
    return found


def recorded(held: SimpleNamespace, *rows: int, double: bool = False) -> list[RecordedCall]:
    mixer = held.pipeline.mixer
    with recording({"mixer": mixer}, {}) as recorders:
        for count in rows:
            call(mixer, count, double=double)
    return recorders["mixer"].calls


def exported(held: SimpleNamespace, folder: Path, *, rows: int | None = None, weights: str = "w") -> PartFile:
    """The part in a folder; with ``rows`` its batch is fixed."""
    (first,) = recorded(held, rows or 3)

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = held.pipeline.mixer

        def forward(self, sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self.mixer(sample, time.reshape(()))[0]

    folder.mkdir(parents=True, exist_ok=True)
    example = [first.inputs["sample"], first.inputs["time"].reshape(1)]
    axes: list[dict[int, str]] = [{} if rows else {0: "batch"}, {}]
    export(Flat().eval(), example, ["sample", "time"], ["output.0"], axes, folder / "model.onnx")
    axis = rows or "batch"
    inputs = [
        PartTensor(name="sample", dtype="float32", axes=[axis, 4]),
        PartTensor(name="time", dtype="float32", axes=[1], scalar=True),
    ]
    outputs = [PartTensor(name="output.0", dtype="float32", axes=[axis, 4])]
    variant = Variant(file="model.onnx", call=first.call, answer=first.answer, inputs=inputs, outputs=outputs)
    part = PartFile(
        model="studio", part="mixer", at="pipeline.mixer", precision="fp32", weights_digest=weights, variants=[variant]
    )
    (folder / PART_FILE).write_text(part.model_dump_json())
    return part

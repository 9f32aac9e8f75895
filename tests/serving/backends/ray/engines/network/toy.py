"""A small network of our own on a real safetensors checkpoint, for the tests of what all engines share.

The one invariant: it does real work in torch, and its request says how it shall go wrong.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import yaml
from PIL import Image

from serving.backends.base import EngineContext
from serving.backends.ray.engines.network.engine import NetworkEngine, Written
from serving.backends.ray.engines.network.seeds import generator
from serving.backends.ray.engines.network.steps import Steps
from serving.protocol.task_tensors import config_text
from serving.protocol.tasks import ImageRequest, MusicRequest
from serving.repository.load import load_repository
from serving.repository.model import Model

CARD = {
    "description": "A toy.",
    "task": "music",
    "backend": "ray",
    "engine": "synth",
    "license": {"name": "MIT", "commercial_use": True},
}


class Toy(NamedTuple):
    """A prepared request: noise is mixed ``steps`` times."""

    seed: int
    steps: int
    prompt: str


class ToyEngine(NetworkEngine[MusicRequest, Toy, np.ndarray]):
    """``prompt`` says what happens: ``fail``, ``hog`` (more memory than there is), ``short`` (too few outputs)."""

    request_type = MusicRequest
    lower = ("duration_s", "steps")

    def load(self) -> None:
        from safetensors.torch import load_file

        self.weight = load_file(self.weights.folder / "model.safetensors")["weight"]
        self.batches: list[int] = []
        self.recovered = 0

    def prepare(self, request: MusicRequest, files: Mapping[str, Path]) -> Toy:
        return Toy(request.seed, request.steps or 4, request.prompt)

    def batch_key(self, prepared: Toy) -> Hashable | None:
        return prepared.steps

    def generate(self, batch: Sequence[Toy], steps: Steps) -> Sequence[np.ndarray]:
        import torch

        self.batches.append(len(batch))
        rows = torch.stack([torch.randn(64, 8, generator=generator(toy.seed)) for toy in batch])
        for done in range(1, batch[0].steps + 1):
            rows = torch.tanh(rows @ self.weight)
            for toy in batch:
                self._misbehave(toy.prompt)
            steps(done, batch[0].steps)
        return [] if batch[0].prompt == "short" else list(rows.numpy())

    def _misbehave(self, prompt: str) -> None:
        import torch

        if prompt == "fail":
            raise ZeroDivisionError("somewhere inside")
        if prompt == "hog":
            torch.empty(1 << 58, dtype=torch.uint8)

    def recover(self) -> None:
        self.recovered += 1

    def write(self, request: MusicRequest, output: np.ndarray, folder: Path) -> Written:
        soundfile.write(folder / "toy.wav", output[:, :2], 48_000, "PCM_16")
        return Written({"duration_s": 1.0}, {"audio": (folder / "toy.wav", "audio/wav")})

    def smallest(self) -> MusicRequest:
        return MusicRequest(duration_s=1, steps=1)


class Painter(ToyEngine):
    """The same noise as a picture of a task whose requests name fine-tunes."""

    request_type = ImageRequest

    def write(self, request: ImageRequest, output: np.ndarray, folder: Path) -> Written:
        Image.fromarray((output * 255).astype(np.uint8)).save(folder / "toy.png")
        return Written({"width": 8, "height": 64}, {"image": (folder / "toy.png", "image/png")})


def toy_model(folder: Path, **card: Any) -> Model:
    """A model folder with a checkpoint of 64 numbers."""
    import torch
    from safetensors.torch import save_file

    home = folder / "models" / "toy"
    (home / "weights").mkdir(parents=True)
    save_file({"weight": torch.eye(8) + 0.1}, home / "weights" / "model.safetensors")
    (home / "config.pbtxt").write_text(config_text("toy", str(card.get("task", "music"))))
    source = {"uri": "file:weights", "revision": "r1"}
    (home / "model.yaml").write_text(yaml.safe_dump({**CARD, "source": source, **card}))
    return load_repository([folder / "models"]).get("toy")


def toy_engine(folder: Path, context: EngineContext, **card: Any) -> ToyEngine:
    return ToyEngine(toy_model(folder, **card), context)

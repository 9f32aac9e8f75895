"""Medium random-weight checkpoints, and how fast engines load them; measured by bench.engines.

The one invariant: files are read and loaded from the page cache, in turns, so that the disk plays no part.
"""

import json
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import yaml
from pydantic import JsonValue

from bench.cases import loaded
from serving.backends.base import EngineContext
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.repository.load import load_repository

ROUNDS: Final = 5
_MIB: Final = 1 << 20


class Load(NamedTuple):
    """One checkpoint: a tiny one of which a part was grown.

    Args:
        model: of the repository, whose engine loads it.
        part: folder of the part; empty for the checkpoint itself.
        library: module of its class.
        grown: values of its config.json.
    """

    model: str
    part: str
    library: str
    grown: Mapping[str, JsonValue]

    def measure(self, models: Path, home: Path, context: EngineContext) -> tuple[float, float, float]:
        """Size in MiB, and medians in milliseconds of reading the files and of loading the engine."""
        folder = home / self.model / "weights"
        shutil.copytree(tiny_checkpoint(self.model), folder)
        self._grow(folder / self.part)
        card = yaml.safe_load((models / self.model / "model.yaml").read_text(encoding="utf-8"))
        card["source"]["uri"] = "file:weights"
        (folder.parent / "model.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
        shutil.copyfile(models / self.model / "config.pbtxt", folder.parent / "config.pbtxt")
        model = load_repository([home]).get(self.model)
        files = sorted(folder.rglob("*.safetensors"))
        reads, loads = [], []
        for number in range(ROUNDS + 1):
            took = time.perf_counter()
            for file in files:
                file.read_bytes()
            took = time.perf_counter() - took
            engine = loaded(model, context)  # checks digests the first time
            if number:
                reads.append(1000 * took)
                loads.append(1000 * engine.cold_start.load_s)
            engine.unload()
            engine.weights.close()
        size = sum(file.stat().st_size for file in files)
        return size / _MIB, statistics.median(reads), statistics.median(loads)

    def _grow(self, folder: Path) -> None:
        """Replace the part's network by a larger one of random weights."""
        import importlib

        told = json.loads((folder / "config.json").read_text(encoding="utf-8")) | dict(self.grown)
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        library = importlib.import_module(self.library)
        if self.library == "diffusers":
            network = getattr(library, told["_class_name"]).from_config(told)
        else:
            kind = getattr(library, told["architectures"][0])
            network = kind(kind.config_class.from_dict(told))
        settings = (
            folder / "generation_config.json"
        )  # of the tiny one, which knows its tokens; a new network's does not
        kept = settings.read_bytes() if settings.is_file() else None
        network.save_pretrained(folder)
        if kept is not None:
            settings.write_bytes(kept)


LOADS: Final[tuple[Load, ...]] = (
    Load("sdxl", "unet", "diffusers", {"block_out_channels": [320, 640], "norm_num_groups": 32}),
    Load("ltx_video", "transformer", "diffusers", {"num_layers": 40, "num_attention_heads": 32}),
    Load(
        "whisper_transformers",
        "",
        "transformers",
        {"d_model": 1024, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096},
    ),
    Load(
        "opus_mt_en_hi",
        "",
        "transformers",
        {"d_model": 1024, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096},
    ),
)
"""With ``grown`` chosen so that a checkpoint has a hundred to a thousand MiB."""

"""Models and files of weights that the tests of this folder share."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.model import License, Model, ModelCard, Source
from serving.settings import Settings, WeightsSettings
from serving.weights.cache import WeightsCache

PICKLE = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s."
QUICK: dict[str, Any] = {"retry_s": 0.01, "timeout_s": 20.0, "tries": 4}


def model(folder: Path, uri: str, name: str = "writer", **source: Any) -> Model:
    card = ModelCard(
        description="a model with weights",
        task="tensor",
        backend="ray",
        engine="diffusers",
        license=License(name="MIT", commercial_use=True),
        source=Source(uri=uri, **source),
    )
    return Model(name, folder / name, card, ModelConfig(name=name), ())


def cache(folder: Path, **settings: Any) -> WeightsCache:
    return WeightsCache.of(Settings(home=folder / "home", weights=WeightsSettings(**{**QUICK, **settings})).resolved())


def safetensors(tensors: Mapping[str, tuple[int, ...]], fill: int = 0) -> bytes:
    """A file of U8 tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors.items():
        size = 1
        for length in shape:
            size *= length
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * at


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


FILES = {"model.safetensors": safetensors({"a.weight": (4, 8), "a.bias": (4,)}), "config.json": b"{}"}

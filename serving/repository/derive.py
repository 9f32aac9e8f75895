"""What a model folder implies where its files are silent: backend, card, engine, versions; used by read and load.

The one invariant: it decides as Triton does when it completes a configuration, so that a folder means the same here.
"""

import re
from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.model import TENSOR_TASK, License, ModelCard, Source

DEFAULT_FILES: Final = {
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "pytorch": "model.pt",
    "openvino": "model.xml",
    "python": "model.py",
    "dali": "model.dali",
    "tensorflow": "model.savedmodel",
}
"""File each Triton backend loads from a version folder (Triton's model repository documentation)."""

TENSOR_ENGINES: Final = ("onnxruntime", "python")
"""Engines of Ray replicas that run a Triton model's own files; each has the name of the Triton backend it replaces."""

RAY_BACKEND: Final = "ray"
"""``backend`` in the config.pbtxt of a model that a Ray replica serves, so that a bare Triton refuses it by name."""

PLATFORM_BACKENDS: Final = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "ensemble",
}
"""Triton's older ``platform`` names and the backend each means."""


_VERSION: Final = re.compile(r"0|[1-9][0-9]{0,9}")


def is_version(name: str) -> bool:
    """Whether a folder of this name is a version to Triton: digits without a leading zero, 0 itself among them."""
    return _VERSION.fullmatch(name) is not None


def triton_backend(config: ModelConfig) -> str:
    """The Triton backend a configuration names, by ``backend`` or the older ``platform``; "" where neither is set."""
    return str(config.backend or PLATFORM_BACKENDS.get(config.platform, config.platform))


def file_backend(folder: Path, versions: tuple[int, ...], config: ModelConfig | None = None) -> str:
    """The backend whose file lies in the newest version folder, or that ``default_model_filename`` names; else ""."""
    if config is not None and config.default_model_filename:
        suffix = Path(config.default_model_filename).suffix
        return next((backend for backend, file in DEFAULT_FILES.items() if Path(file).suffix == suffix), "")
    newest = folder / str(versions[-1] if versions else 1)
    return next((backend for backend, file in DEFAULT_FILES.items() if (newest / file).exists()), "")


def tensor_engine(folder: Path, versions: tuple[int, ...], config: ModelConfig) -> str:
    """The engine that runs a folder's files in a Ray replica; "" where no engine can.

    Args:
        folder: of the model.
        versions: its version folders.
        config: names a Triton backend where the model moved over from Triton, else ``ray``.
    """
    named = triton_backend(config)
    engine = named if named not in ("", RAY_BACKEND) else file_backend(folder, versions, config)
    return engine if engine in TENSOR_ENGINES else ""


def derived_card(backend: str, engine: str = "") -> ModelCard:
    """The card of a model without model.yaml: reached by OIP alone, terms unknown.

    Args:
        backend: as config.pbtxt names it; ``ray`` makes a model that a Ray replica serves.
        engine: of a model that Ray serves.
    """
    on_ray = backend == RAY_BACKEND
    return ModelCard(
        description=f"Triton model ({(engine if on_ray else backend) or 'unknown'} backend) without a model.yaml",
        task=TENSOR_TASK,
        backend="ray" if on_ray else "triton",
        engine=(engine or "unknown") if on_ray else TENSOR_TASK,
        license=License(name="unknown", commercial_use="conditional"),
        source=Source(uri="file:."),
    )


def served_versions(config: ModelConfig, versions: tuple[int, ...]) -> tuple[int, ...]:
    """The versions that ``version_policy`` asks for, ascending; by default the newest."""
    policy = config.version_policy
    if policy.HasField("all"):
        return versions
    if policy.HasField("specific"):
        return tuple(version for version in versions if version in policy.specific.versions)
    newest = policy.latest.num_versions if policy.HasField("latest") else 1
    return versions[-max(1, newest) :]

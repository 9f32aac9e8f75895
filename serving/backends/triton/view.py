"""The folders that one tritonserver sees: its models, its backends, its Python; built before every start.

A view of the models because one repository has to work everywhere: it holds this server's share alone (Triton
refuses a name that two repositories have; the mesh lets the first one win), and its config.pbtxt files fit the
device that the replica leased.
The one invariant: models are linked, never copied or changed; only config.pbtxt is written anew.
"""

import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.backends.triton.install import PYTHON, StubNeeds, TritonInstall
from serving.errors import MissingDependency
from serving.repository.derive import triton_backend
from serving.repository.model import Model, ModelCard

MEMORY_HEADROOM: Final = 1.25
"""A session may use this much more than the measured peak before ONNX Runtime refuses to allocate."""

OWN_FILES: Final = frozenset({"config.pbtxt", "model.yaml"})

ONNXRUNTIME: Final = "onnxruntime"
ENSEMBLE: Final = "ensemble"

PYTHON_BACKEND: Final = Path(__file__).with_name("onnxruntime_backend")


def backend_of(config: ModelConfig) -> str:
    """The backend Triton will look for; empty for ensembles, which need none."""
    backend = triton_backend(config)
    return "" if backend == ENSEMBLE else backend


def is_complete(config: ModelConfig) -> bool:
    """Whether Triton can load the model without asking its backend about the tensors.

    Asking the python backend starts one more process: measured, 2.0 s instead of 0.4 s for four models.
    """
    return bool(config.input) and bool(config.output) and bool(config.backend or config.platform)


def adapted(config: ModelConfig, card: ModelCard, *, gpus: int) -> ModelConfig:
    """The configuration for a replica that leased ``gpus`` GPUs (0: none).

    A model that leases no GPU runs on the CPU even where Triton sees one. Device numbers are dropped, since Ray
    decides which GPUs the process sees. ONNX Runtime gets a memory limit from the card's measured peak.
    """
    config = ModelConfig.FromString(config.SerializeToString())
    on_gpu = gpus > 0 and card.share.gpu > 0
    for group in config.instance_group:
        del group.gpus[:]
        if not on_gpu and group.kind in (ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_AUTO):
            group.kind = ModelInstanceGroup.KIND_CPU
    if not on_gpu:
        if config.optimization.HasField("execution_accelerators"):
            config.optimization.execution_accelerators.ClearField("gpu_execution_accelerator")
        if not config.instance_group and config.platform != ENSEMBLE:
            config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=1)
    elif card.memory is not None and backend_of(config) == ONNXRUNTIME and "gpu_mem_limit" not in config.parameters:
        limit_bytes = int(card.memory.peak_mib * MEMORY_HEADROOM) << 20
        config.parameters["gpu_mem_limit"].string_value = str(limit_bytes)
    return config


def build_repository(models: Iterable[Model], folder: Path, install: TritonInstall, *, gpus: int) -> None:
    """Write the view into ``folder``, which must not exist.

    Raises:
        MissingDependency: a model needs a backend that this Triton does not have.
    """
    folder.mkdir(parents=True)
    for model in models:
        _check_backend(model, install)
        place = folder / model.name
        place.mkdir()
        for entry in model.folder.iterdir():
            if entry.name not in OWN_FILES:
                (place / entry.name).symlink_to(entry)
        config = adapted(model.config, model.card, gpus=gpus)
        config.name = model.name
        (place / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")


def build_backends(folder: Path, install: TritonInstall) -> None:
    """Link the install's backends into ``folder``; where there is no native onnxruntime, the python-based one."""
    folder.mkdir(parents=True)
    for backend in install.backends.iterdir():
        (folder / backend.name).symlink_to(backend)
    if not install.has_backend(ONNXRUNTIME):
        (folder / ONNXRUNTIME).symlink_to(PYTHON_BACKEND)


def build_python(folder: Path, needs: StubNeeds) -> Path:
    """Make a tiny venv for the python backend's stub: its numpy first, then the packages of our own Python.

    The stub starts Python isolated: PYTHONPATH and PYTHONHOME mean nothing to it, but it takes the ``python3`` that
    comes first on PATH for its own, with the pyvenv.cfg beside it.

    Returns:
        The folder to put first on PATH.
    """
    packages = folder / f"lib/python{PYTHON}/site-packages"
    packages.mkdir(parents=True)
    ours = dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
    (packages / "reelmesh.pth").write_text("\n".join([str(needs.packages), *ours, ""]), encoding="utf-8")
    programs = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(f"home = {programs}\n", encoding="utf-8")
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to(programs / f"python{PYTHON}")
    return folder / "bin"


def _check_backend(model: Model, install: TritonInstall) -> None:
    backend = backend_of(model.config)
    if backend and backend != ONNXRUNTIME and not install.has_backend(backend):
        raise MissingDependency(
            f"this Triton has no backend {backend!r}",
            field=f"{model.name}/config.pbtxt:backend",
            fix="run the model in NVIDIA's Triton image, or export it to ONNX with `reelmesh optimize`",
        )

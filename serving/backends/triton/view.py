"""The folders that one tritonserver sees: its models, its backends, its Python; built before every start.

A view of the models because one repository has to work everywhere: it holds this server's share alone (Triton
refuses a name that two repositories have; the mesh lets the first one win), and its config.pbtxt files fit the
device that the replica leased.
The one invariant: models are linked, never copied or changed; only config.pbtxt is written anew.
"""

import sys
import sysconfig
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.backends.triton.install import PYTHON, StubNeeds, TritonInstall
from serving.errors import BadInput, MissingDependency
from serving.repository.checks_backend import TRITON_BACKENDS, brings_backend, near
from serving.repository.config_lines import line_of
from serving.repository.derive import triton_backend
from serving.repository.findings import Finding
from serving.repository.model import Model, ModelCard

MEMORY_HEADROOM: Final = 1.25
"""A session may use this much more than the measured peak before ONNX Runtime refuses to allocate."""

OWN_FILES: Final = frozenset({"config.pbtxt", "model.yaml"})

CONFIG_FILE: Final = "config.pbtxt"
PYTHON_FILE: Final = "model.py"
COMPLETES: Final = b"auto_complete_config"
"""The method by which a python model completes its configuration."""

ONNXRUNTIME: Final = "onnxruntime"
ENSEMBLE: Final = "ensemble"

NO_BYTECODE: Final = "import sys; sys.dont_write_bytecode = True"
"""Line of a .pth file: models leave no __pycache__ in their repository, which need not be ours to write."""

PYTHON_BACKEND: Final = Path(__file__).with_name("onnxruntime_backend")


def backend_of(config: ModelConfig) -> str:
    """The backend Triton will look for; empty for ensembles, which need none."""
    backend = triton_backend(config)
    return "" if backend == ENSEMBLE else backend


def is_complete(model: Model) -> bool:
    """Whether Triton need not ask a backend about the model, which may complete its configuration.

    A python model that has ``auto_complete_config`` is asked even where its tensors are named: it may set more.
    """
    config = model.config
    if not (config.input and config.output and triton_backend(config)):
        return False
    files = [model.folder / str(version) / (config.default_model_filename or PYTHON_FILE) for version in model.versions]
    return not any(COMPLETES in file.read_bytes() for file in files if file.suffix == ".py" and file.is_file())


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


def write_model(model: Model, repository: Path, install: TritonInstall, *, gpus: int) -> None:
    """Make the model's folder in the view what the model is now.

    What is as it should be is left alone, so that Triton, which compares times of change, reloads what has changed.

    Raises:
        BadInput, MissingDependency: as of :func:`check_backend`.
    """
    check_backend(model, install)
    place = repository / model.name
    entries = {entry.name: entry for entry in model.folder.iterdir() if entry.name not in OWN_FILES}
    place.mkdir(exist_ok=True)
    for link in place.iterdir():
        if link.name != CONFIG_FILE and (link.name not in entries or link.readlink() != entries[link.name]):
            link.unlink()
    for name, entry in entries.items():
        if not (place / name).is_symlink():
            (place / name).symlink_to(entry)
    config = adapted(model.config, model.card, gpus=gpus)
    config.name = model.name
    _replace_text(place / CONFIG_FILE, text_format.MessageToString(config))


def _replace_text(file: Path, text: str) -> None:
    """Write a file at once, so that nobody reads half of it; one that has the text already is left alone."""
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    written = file.parent.with_name(f".{file.parent.name}.{file.name}")
    written.write_text(text, encoding="utf-8")
    written.replace(file)


def build_backends(folder: Path, install: TritonInstall) -> None:
    """Link the install's backends into ``folder``; where there is no native onnxruntime, the python-based one."""
    folder.mkdir(parents=True)
    for backend in install.backends.iterdir():
        (folder / backend.name).symlink_to(backend)
    if not install.has_backend(ONNXRUNTIME):
        (folder / ONNXRUNTIME).symlink_to(PYTHON_BACKEND)


def build_python(folder: Path, needs: StubNeeds) -> Path:
    """Make a tiny venv for the python backend's stub: its numpy first, then the packages of our own Python.

    The stub starts Python isolated: PYTHONPATH, PYTHONHOME and PYTHONDONTWRITEBYTECODE mean nothing to it, but it takes
    the ``python3`` that comes first on PATH for its own, with the pyvenv.cfg beside it.

    Returns:
        The folder to put first on PATH.
    """
    packages = folder / f"lib/python{PYTHON}/site-packages"
    packages.mkdir(parents=True)
    ours = dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
    lines = [NO_BYTECODE, str(needs.packages), *ours, ""]
    (packages / "reelmesh.pth").write_text("\n".join(lines), encoding="utf-8")
    programs = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(f"home = {programs}\n", encoding="utf-8")
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to(programs / f"python{PYTHON}")
    return folder / "bin"


def check_backend(model: Model, install: TritonInstall) -> None:
    """Whether this Triton can run a model.

    Raises:
        BadInput: no Triton has such a backend; names the line and the nearest one.
        MissingDependency: Triton has it, and this install does not.
    """
    backend = backend_of(model.config)
    known = not backend or backend == ONNXRUNTIME or install.has_backend(backend)
    if known or brings_backend(model.folder, backend):
        return
    if backend in TRITON_BACKENDS:
        raise MissingDependency(
            f"Triton's backend {backend!r} is not in this install",
            field=_where(model),
            fix="run the model in NVIDIA's Triton image, or export it to ONNX with `reelmesh optimize`",
        )
    installed = sorted({ONNXRUNTIME, *install.backend_names()})
    guess = near(backend, installed)
    raise BadInput(
        f"this Triton has no backend {backend!r}" + (f", did you mean {guess!r}?" if guess else ""),
        field=_where(model),
        fix=f"use one of {', '.join(installed)}",
    )


def _where(model: Model) -> str:
    """``file:line:field`` of the backend; without the line where the file is not there."""
    file = model.folder / CONFIG_FILE
    field = "backend" if model.config.backend else "platform"
    line = (line_of(file.read_text(encoding="utf-8", errors="replace"), field) or 0) if file.is_file() else 0
    return Finding(file, line, field, "", "").where(Path.cwd())

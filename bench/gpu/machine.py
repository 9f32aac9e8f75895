"""What the machine is and what it lacks; read by bench.gpu's command before anything runs.

The one invariant: every figure of a report stands beside the versions it was made with.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

LEAST_TORCH: Final = (2, 11)
PACKAGES: Final = ("torch", "transformers", "numpy", "triton", "onnxruntime", "onnxruntime-gpu", "onnx", "onnxscript")
NEEDED: Final = ("torch", "transformers", "numpy")
MIB: Final = 2**20


def lacking(device: str) -> str | None:
    """What must be installed or bought first, and how to do without, if anything is missing."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}: pip install 'torch>=2.11' transformers numpy"
    told = version("torch")
    if tuple(int(part) for part in told.split(".")[:2]) < LEAST_TORCH:
        return f"torch is {told}: 2.11 or newer is needed"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"no CUDA device: torch {told} is {built}; a CPU runs the same code small with `--device cpu --tiny`"
    return None


def driver() -> str | None:
    """NVIDIA's driver version, as nvidia-smi says it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    return told.stdout.strip().partition("\n")[0] or None


def facts(device: str) -> dict[str, Any]:
    """The device, its driver and the versions of what runs on it."""
    import torch

    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "kind": device,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "packages": dict(versions()),
    }
    if device == "cuda":
        told = torch.cuda.get_device_properties(0)
        found |= {
            "device": told.name,
            "memory_mib": told.total_memory // MIB,
            "capability": f"{told.major}.{told.minor}",
            "multiprocessors": told.multi_processor_count,
            "driver": driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return found


def versions() -> list[tuple[str, str]]:
    """Of what is installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found

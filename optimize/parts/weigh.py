"""The child of optimize.parts.memory: loads one file, answers one call, and says how much its process grew.

The one invariant: nothing but the file and the call is loaded after the first measure.
"""

import json
import sys
from pathlib import Path

import torch

from optimize.parts.opened import GPU, has_gpu, open_file
from serving.repository.part_file import Variant


def main(file: Path, scratch: Path) -> None:
    """Print ``{"grown": bytes}``."""
    import onnxruntime  # noqa: F401  loaded before the first measure

    variant = Variant.model_validate_json((scratch / "variant.json").read_bytes())
    inputs = torch.load(scratch / "inputs.pt", weights_only=True)
    before = _device_bytes() if has_gpu() else _status_bytes("VmRSS")
    runner = open_file(file, variant)
    runner.run(inputs)
    # On the CPU the kernel's own peak, not getrusage's, which remembers the process that this one was started by; on a
    # GPU what the device lent, which ONNX Runtime's arena keeps after the call.
    peak = _device_bytes() if has_gpu() else _status_bytes("VmHWM")
    runner.close()
    print(json.dumps({"grown": max(0, peak - before)}))


def _device_bytes() -> int:
    free, total = torch.cuda.mem_get_info(GPU)
    return total - free


def _status_bytes(name: str) -> int:
    """A line of the kernel's on this process, which counts in kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

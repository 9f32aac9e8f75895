"""The child of optimize.parts.memory: loads one file, answers one call, and says how much its process grew.

The one invariant: nothing but the file and the call is loaded after the first measure.
"""

import json
import sys
from pathlib import Path

import torch

from optimize.threads import THREADS
from serving.backends.ray.parts.onnx_runner import OnnxRunner
from serving.repository.part_file import Variant


def main(file: Path, scratch: Path) -> None:
    """Print ``{"grown": bytes}``."""
    import onnxruntime  # noqa: F401  loaded before the first measure

    variant = Variant.model_validate_json((scratch / "variant.json").read_bytes())
    inputs = torch.load(scratch / "inputs.pt", weights_only=True)
    before = _status_bytes("VmRSS")
    OnnxRunner(file, variant, threads=THREADS).run(inputs)
    peak = _status_bytes("VmHWM")  # not getrusage's, which remembers the process that this one was started by
    print(json.dumps({"grown": max(0, peak - before)}))


def _status_bytes(name: str) -> int:
    """A line of the kernel's on this process, which counts in kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

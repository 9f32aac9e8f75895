"""The child of optimize.parts.memory: loads one file, answers one call, and says how much its process grew.

The one invariant: nothing but the file and the call is loaded after the first measure.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Final

import torch

from optimize.threads import THREADS
from serving.backends.ray.parts.onnx_runner import OnnxRunner
from serving.repository.part_file import Variant

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def main(file: Path, scratch: Path) -> None:
    """Print ``{"grown": bytes}``."""
    import onnxruntime  # noqa: F401  loaded before the first measure

    variant = Variant.model_validate_json((scratch / "variant.json").read_bytes())
    inputs = torch.load(scratch / "inputs.pt", weights_only=True)
    before = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    OnnxRunner(file, variant, threads=THREADS).run(inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"grown": max(0, peak - before)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The GPUs of this machine, as their driver tells; asked by lint and before a mesh starts.

The one invariant: a machine without a driver, or whose driver does not answer in time, has none.
"""

import shutil
import subprocess
from typing import Final

ANSWER_S: Final = 10.0
"""How long the GPUs' driver may take to answer."""


def gpu_memories_mib() -> list[float]:
    """Memory of each GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_S, check=True).stdout
        return [float(word) for word in told.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []

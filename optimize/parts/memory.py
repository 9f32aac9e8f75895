"""How much memory a part takes, by torch and as a file; the gate of memory.

The one invariant: torch is measured by its allocator's own record, the file by what a process that does nothing else
grows by, or what the GPU lends it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from optimize.parts.build import Source, entering
from optimize.parts.gates import Loaded
from optimize.parts.variants import Flat, feed, run_flat
from optimize.report import MemoryRow
from serving.backends.ray.parts.capture import RecordedCall
from serving.errors import EngineFailed, foreign_text

MOST_TIMES: Final = 2.0
SPARE_BYTES: Final = 256 << 20
"""A file may take so many times torch's memory, and so much more for the runtime's own arenas. More means that the
export unrolled or folded what it should not have. Torch is measured without its fused attention for this, since ONNX
Runtime holds whole matrices of attention, too, where it does not fuse it."""
_SECONDS: Final = 600
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints what it begins and ends


def check_memory(source: Source, loaded: Sequence[Loaded]) -> MemoryRow:
    """Bytes of the heaviest call of every variant.

    Raises:
        EngineFailed: the file takes far more than torch.
    """
    weights = sum(t.numel() * t.element_size() for t in (*source.module.parameters(), *source.module.buffers()))
    heaviest = [max(one.group.calls, key=_bytes) for one in loaded]
    by_torch = max(_torch_peak(source, one, call) for one, call in zip(loaded, heaviest, strict=True))
    with sdpa_kernel(SDPBackend.MATH):
        plainly = max(_torch_peak(source, one, call) for one, call in zip(loaded, heaviest, strict=True))
    by_file = max(_file_peak(one, call) for one, call in zip(loaded, heaviest, strict=True))
    row = MemoryRow(weights_bytes=weights, torch_peak_bytes=weights + by_torch, onnx_peak_bytes=by_file)
    if row.onnx_peak_bytes > MOST_TIMES * (weights + plainly) + SPARE_BYTES:
        problem = f"takes {row.onnx_peak_bytes >> 20} MiB where torch takes {(weights + plainly) >> 20}"
        raise EngineFailed(problem, field="memory", fix="look for constants that the export unrolled")
    return row


def _bytes(call: RecordedCall) -> int:
    return sum(tensor.numel() for tensor in call.inputs.values())


def _torch_peak(source: Source, one: Loaded, call: RecordedCall) -> int:
    """Most bytes that a call allocated at a time."""
    flat = Flat(source.module, one.group)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run_flat(flat, one.group, feed(one.group, call))
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(np.cumsum([change for _, change in changes]).max(initial=0))


def _file_peak(one: Loaded, call: RecordedCall) -> int:
    """What a process grows by when it loads the file and answers a call."""
    with tempfile.TemporaryDirectory(prefix="reelmesh-weigh-") as scratch:
        torch.save(entering(one.group, call, one.variant), Path(scratch) / "inputs.pt")
        (Path(scratch) / "variant.json").write_text(one.variant.model_dump_json(), encoding="utf-8")
        try:
            ran = subprocess.run(
                [sys.executable, "-m", "optimize.parts.weigh", str(one.file), scratch],
                capture_output=True, text=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            problem = f"the file takes over {_SECONDS} s to load and answer"
            raise EngineFailed(problem, field="memory", fix="give --requests of smaller sizes") from error
    if ran.returncode:
        raise EngineFailed(f"the file ends its process: {foreign_text(ran.stderr[-400:])}", field="memory")
    return int(json.loads(ran.stdout)["grown"])

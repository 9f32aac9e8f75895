"""INT8 of a part: every variant's float file, quantised with the inputs that the engine really gave it.

The one invariant: only what was recorded calibrates; a variant below its part's bound publishes nothing.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from optimize.int8.cpu import this_cpu_has_dot_product
from optimize.int8.quantize import quantize
from optimize.parts.build import Source, entering, write_part
from optimize.report import TrialRow
from serving.errors import BadInput
from serving.repository.part_file import read_part

TRIALS: Final = "trials.json"
TOOLS: Final = "tools.json"
"""Beside an export in the cache; what its report tells."""


def quantized(source: Source, floats: Path, folder: Path, *, notify: Callable[[str], None]) -> Mapping[str, str]:
    """Quantise every variant of a float export into a folder.

    Args:
        source: its calls calibrate.
        floats: the folder of the fp32 export.
        folder: existing and empty.
        notify: told of every trial.

    Returns:
        Versions of the tools.

    Raises:
        BadInput: the part declares no INT8.
        EngineFailed: the bound cannot be reached.
    """
    if source.part.int8 is None:
        raise BadInput("the part declares no INT8", field=source.name, fix="use fp32 or fp16")
    part, trials = read_part(floats), []
    narrow = not this_cpu_has_dot_product()
    for group, variant in zip(source.groups(), part.variants, strict=True):
        calls = [entering(group, call, variant) for call in group.recorded]
        feeds = [{name: tensor.numpy() for name, tensor in call.items()} for call in calls]
        done = quantize(
            floats / variant.file,
            folder / variant.file,
            feeds,
            mode=source.part.int8,
            bound=source.part.decibels,
            reduce_range=narrow,
            notify=notify,
        )
        trials += [
            TrialRow(
                float_nodes=list(trial.kept_float),
                measure="SNR of the part's outputs, dB",
                quality=trial.quality,
                ms=trial.ms,
                onnx_bytes=trial.bytes,
                accepted=trial.kept_float == done.kept_float,
            )
            for trial in done.trials
        ]
    write_part(source, "int8", part.variants, folder)
    (folder / TRIALS).write_text(json.dumps([trial.model_dump() for trial in trials]), encoding="utf-8")
    tools: dict[str, str] = json.loads((floats / TOOLS).read_text(encoding="utf-8"))
    return {**tools, "int8": f"{source.part.int8}, weights of {7 if narrow else 8} bits"}

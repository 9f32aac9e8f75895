"""The three ways to INT8, each one call of ONNX Runtime's quantiser; called by optimize.int8.quantize.

The one invariant: activations are u8 or float and weights s8, per output channel or per block, since these are the
types ONNX Runtime's x86 kernels are fast in. Measured with 1.32 on a Zen 4 core (AVX512-VNNI, two threads) over four
transformer blocks of width 512 and 256 tokens, against float32: u8 by s8 2.3 times faster, u8 by u8 1.2 times; with
static ranges u8 by s8 1.7 times, s8 by s8 1.3 times and 0.2 to 0.7 times in a decoder step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from optimize.external import data_file
from optimize.int8.feeds import Feed, Reader
from optimize.int8.graph import Mode, Prepared, load, save
from serving.errors import EngineFailed, ReelmeshError, foreign_text

BLOCK: Final = 128
"""Weights that share a scale in mode weight_only. 32 gained 2 dB and cost up to a third of the speed of a
decoder step; 4 bits (22 dB instead of 39) were no faster here."""

BITS: Final = 8
INT8_COMPUTE: Final = 4
"""MatMulNBits' ``accuracy_level``: activations become int8 per block inside the kernel
(github.com/microsoft/onnxruntime, docs/ContribOperators.md)."""


def write(
    mode: Mode, prepared: Prepared, nodes: Sequence[str], feeds: Sequence[Feed], file: Path, *, reduce_range: bool
) -> None:
    """Make ``nodes`` INT8, leave all others in float, and write the canonical ``file`` into its empty folder.

    - ``static``: QDQ with ranges of activations from ``feeds`` (smallest to largest value seen). Outputs of MatMul
      stay in float, which gains 3 dB; those of Conv do not, since ONNX Runtime has no other fast kernel.
    - ``dynamic``: the range is that of the activation at hand, over all of its batch and tokens: a result depends on
      what else is in its batch, padding included. Serve such a part with batch 1,
      or batch only calls of one request.
    - ``weight_only``: MatMulNBits of 8 bits; an activation is scaled within its own row, so batches do not matter.

    Ranges are kept beside ``prepared``, so that calibration runs once for all trials.

    Raises:
        EngineFailed: ONNX Runtime's quantiser fails, or what it made is not ONNX.
    """
    raw = file.with_name(f"raw-{file.name}")
    try:
        match mode:
            case "static":
                _static(prepared, raw, nodes, feeds, reduce_range=reduce_range)
            case "dynamic":
                _dynamic(prepared, raw, nodes, reduce_range=reduce_range)
            case "weight_only":
                _weight_only(prepared, raw, nodes)
        save(load(raw), file)
    except ReelmeshError:
        raise
    except Exception as error:
        problem = f"ONNX Runtime's {mode} quantisation failed: {foreign_text(error)}"
        raise EngineFailed(problem, field="int8", fix="try another mode") from error
    for rest in (raw, data_file(raw)):
        rest.unlink(missing_ok=True)


def _static(
    prepared: Prepared, target: Path, nodes: Sequence[str], feeds: Sequence[Feed], *, reduce_range: bool
) -> None:
    from onnxruntime.quantization import QuantType, quantize_static

    quantize_static(
        prepared.file,
        target,
        Reader(feeds),
        op_types_to_quantize=["Conv", "MatMul"],
        nodes_to_quantize=list(nodes),
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=prepared.big,
        calibration_cache_path=prepared.file.with_name("ranges.json"),
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )


def _dynamic(prepared: Prepared, target: Path, nodes: Sequence[str], *, reduce_range: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        prepared.file,
        target,
        op_types_to_quantize=["MatMul"],
        nodes_to_quantize=list(nodes),
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        use_external_data_format=prepared.big,
    )


def _weight_only(prepared: Prepared, target: Path, nodes: Sequence[str]) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    chosen = set(nodes)
    quantizer = MatMulNBitsQuantizer(
        load(prepared.file),
        bits=BITS,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_COMPUTE,
        nodes_to_exclude=[name for name in prepared.nodes if name not in chosen],
        nodes_to_include=list(nodes),
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), prepared.big)

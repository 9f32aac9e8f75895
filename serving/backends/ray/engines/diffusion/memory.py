"""Memory savers of a diffusion pipeline: what they need to know, and turning them on; called by DiffusionEngine.

The one invariant: what is turned on was decided by network.switches alone.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.network.switches import Switches, switches
from serving.repository.model import Memory
from serving.weights.safetensors_files import TensorInfo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_MIB: Final = 1 << 20
_PEAK: Final = 1.6
"""Highest use over the weights where the card says nothing (SDXL at 1024x1024 in fp16: 11 GB over 7)."""


def decide(
    parts: Mapping[str, Mapping[str, TensorInfo]], item_bytes: int, memory: Memory | None, share_bytes: int | None
) -> Switches:
    """Which savers the pipeline needs.

    Args:
        parts: the tensors of each part.
        item_bytes: of one weight in memory.
        memory: measured, from the card.
        share_bytes: what there is; None means enough.
    """
    sizes = [sum(math.prod(tensor.shape) for tensor in part.values()) * item_bytes for part in parts.values()]
    weights = sum(sizes)
    peak = int(memory.peak_mib * _MIB) if memory is not None else int(weights * _PEAK)
    return switches(weights, max(sizes, default=0), max(peak, weights), share_bytes)


def turn_on(pipeline: "DiffusionPipeline", chosen: Switches, device: str) -> None:
    """Turn savers on; decoders without slicing or tiling go without.

    Args:
        pipeline: with its weights on the host where they are to be offloaded, on the device otherwise.
        chosen: by :func:`decide`.
        device: where it runs.
    """
    for wanted, method in ((chosen.vae_slicing, "enable_slicing"), (chosen.vae_tiling, "enable_tiling")):
        if wanted and hasattr(pipeline.vae, method):
            getattr(pipeline.vae, method)()
    if chosen.attention_slicing:
        pipeline.enable_attention_slicing()
    offload(pipeline, chosen, device)


def offload(pipeline: "DiffusionPipeline", chosen: Switches, device: str) -> None:
    """Let weights wait on the host, if that was chosen."""
    if chosen.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif chosen.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)

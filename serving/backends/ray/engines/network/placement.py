"""Placement: on which device, in which precision and within how much memory a network runs; asked when one is loaded.

The one invariant: a precision that the device or the family cannot run is refused before anything is read.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from serving.backends.base import EngineContext
from serving.errors import BadInput
from serving.repository.model import Model

if TYPE_CHECKING:
    import torch

FLOATS: Final = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network runs.

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        memory_bytes: what the model's share leaves it of the device; None where nothing is shared out (CPU), or
            nothing holds the network to it.
    """

    device: str
    precision: str
    memory_bytes: int | None = None

    @property
    def dtype(self) -> "torch.dtype":
        """Of weights and activations; int8 weights compute in fp32."""
        import torch

        return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision, torch.float32)


def placement_of(
    model: Model, context: EngineContext, precisions: Collection[str] = FLOATS, *, uses_torch: bool = True
) -> Placement:
    """Where the model goes: the replica's device, the card's precision, the share of the card.

    Args:
        model: its card says precision and share.
        context: says the device.
        precisions: that the family can run.
        uses_torch: whether the network allocates by torch, which can be held to the share; other libraries cannot.

    Raises:
        BadInput: the family or the device cannot run the precision.
    """
    wanted = context.precision or model.card.precision
    field = f"{model.name}/model.yaml:precision"
    if wanted not in precisions:
        raise BadInput(
            f"the engine {model.card.engine!r} cannot run {wanted}", field=field, fix=f"use {' or '.join(precisions)}"
        )
    if context.device == "cpu":
        if wanted == "fp16":
            raise BadInput("fp16 on a CPU is slow and imprecise", field=field, fix="use fp32 or bf16, or a GPU")
        return Placement("cpu", wanted)
    share_bytes = _share_bytes(model.card.share.gpu, context) if uses_torch else None
    return Placement(context.device, wanted, share_bytes)


def _share_bytes(share: float, context: EngineContext) -> int:
    """The model's own part; the process is held to what its replica leases, which is every model's of its group."""
    import torch

    total = int(torch.cuda.get_device_properties(context.device).total_memory)
    leased = context.gpu_share or share
    if 0 < leased < 1:
        torch.cuda.set_per_process_memory_fraction(leased, context.device)
    return int(total * share) if 0 < share < 1 else total

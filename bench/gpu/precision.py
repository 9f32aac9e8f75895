"""The number formats that are compared, and a network in each of them; used by bench.gpu's workers.

The one invariant: a network of one name has the same random weights in every format, drawn in float32 and then cast.
"""

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor, nn

from bench.gpu.networks import SEED, Network

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8"]
DTYPES: Final[dict[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
}
"""Of weights and inputs; fp8 keeps in bfloat16 all but the linear layers' products."""
FP8: Final = torch.float8_e4m3fn
FP8_MOST: Final = torch.finfo(FP8).max
FP8_MULTIPLE: Final = 16
"""Both sizes of a weight must be multiples of it, for the matrix product in fp8."""
FP8_CAPABILITY: Final = (8, 9)
"""The first compute capability with products in fp8 (Ada)."""
TF32_CAPABILITY: Final = (8, 0)
FP8_LEAST: Final = 1e-12
"""What the largest number of a tensor is taken for where all are 0."""


class Unfit(ValueError):
    """A network or device cannot do this; the message says why."""


class Fp8Linear(nn.Module):
    """A linear layer in float8_e4m3fn, one scale for the weight and one per call for what comes in; bfloat16 comes out.

    Args:
        linear: the layer in bfloat16, both of its sizes multiples of :data:`FP8_MULTIPLE`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantized(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., in) to (..., out)."""
        rows, scale = quantized(x.flatten(0, -2))
        weight, weight_scale = self.get_buffer("weight"), self.get_buffer("scale")
        out = torch._scaled_mm(
            rows,
            weight.t(),
            scale_a=scale,
            scale_b=weight_scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return out.reshape(*x.shape[:-1], -1)


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor in fp8 and its scale, float32 of no dimension: x is about the product of the two."""
    scale = x.abs().amax().float().clamp(min=FP8_LEAST) / FP8_MOST
    # A cast to fp8 does not saturate: what rounding puts over the most would be NaN.
    return (x.float() / scale).clamp(-FP8_MOST, FP8_MOST).to(FP8).contiguous(), scale


def holding_in_fp8(network: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers of sizes that fit, by name, but for embeddings of time, which have as few rows as a batch."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and "emb" not in name
        and "norm" not in name
        and module.in_features % FP8_MULTIPLE == module.out_features % FP8_MULTIPLE == 0
    }


def to_fp8(network: nn.Module) -> int:
    """Put the linear layers that hold into fp8, and say how many those were."""
    chosen = holding_in_fp8(network)
    for name, linear in chosen.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, Fp8Linear(linear))
    return len(chosen)


def unsupported(precision: Precision, device: torch.device) -> str | None:
    """Why a device cannot do a format, if so."""
    if precision == "tf32" and device.type != "cuda":
        return "TF32 is a format of CUDA devices"
    needed = {"tf32": TF32_CAPABILITY, "fp8": FP8_CAPABILITY}.get(precision)
    if needed and device.type == "cuda" and torch.cuda.get_device_capability(device) < needed:
        return f"{precision} needs compute capability {needed[0]}.{needed[1]}"
    return None


def use_tf32(*, on: bool) -> None:
    """Let products and convolutions of float32 run in TF32, or not."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


def seeded(make: Callable[[], nn.Module], device: torch.device) -> nn.Module:
    """A network with its random weights, ready for inference, in float32."""
    torch.manual_seed(SEED)
    with device:
        return make().eval().requires_grad_(requires_grad=False)


def prepared(network: Network, precision: Precision, device: torch.device) -> nn.Module:
    """The network in a format.

    Raises:
        Unfit: the device cannot do it, or no layer of the network holds in fp8.
    """
    reason = unsupported(precision, device)
    if reason:
        raise Unfit(reason)
    use_tf32(on=precision == "tf32")
    made = seeded(network.build, device).to(DTYPES[precision])
    if precision == "fp8" and not to_fp8(made):
        raise Unfit("no linear layer of this network holds in fp8")
    return made


def inputs_of(network: Network, batch: int, precision: Precision, device: torch.device) -> tuple[Tensor, ...]:
    """The inputs of a batch in a format, the same numbers for all formats of a batch."""
    torch.manual_seed(SEED + batch)
    with device:
        return tuple(each.to(DTYPES[precision]) for each in network.inputs(batch))

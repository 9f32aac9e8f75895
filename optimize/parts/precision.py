"""Brings a module to half precision for an export, and back; used by optimize.parts.build.

The one invariant: afterwards the module holds the very numbers that it held before.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

from serving.errors import BadInput
from serving.repository.part_file import PartTensor, Precision

DTYPES: Final[Mapping[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
}
"""Of activations at the file's borders; int8 weights compute in fp32 there."""


@contextmanager
def in_precision(module: nn.Module, precision: Precision) -> Iterator[None]:
    """Hold a module's numbers in another precision as long as this is open."""
    dtype = DTYPES[precision]
    if dtype == torch.float32:
        yield
        return
    held = [(tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    try:
        for tensor, data in held:
            tensor.data = data.to(dtype)
        yield
    finally:
        for tensor, data in held:
            tensor.data = data


def at_border(tensor: PartTensor, precision: Precision) -> PartTensor:
    """A tensor as the file has it: states in its precision.

    Single numbers and lists of them stay in float32, as pipelines pass them: timesteps go up to 1000 with fractions.
    """
    dtype = str(DTYPES[precision]).removeprefix("torch.")
    if tensor.dtype != "float32" or len(tensor.axes) < 2:  # noqa: PLR2004
        return tensor
    return tensor.model_copy(update={"dtype": dtype})


def trivial(module: nn.Module) -> list[str]:
    """Names of weight matrices that are all zeros: parity would prove nothing of what is multiplied by them."""
    return [name for name, held in module.named_parameters() if held.dim() > 1 and not bool(held.detach().any())]


def check_weights(module: nn.Module, name: str) -> None:
    """Refuse weights that leave a part without effect.

    Raises:
        BadInput: names up to three of them.
    """
    if found := trivial(module):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""  # noqa: PLR2004
        raise BadInput(
            f"weights are all zeros, so parity would prove nothing: {', '.join(found[:3])}{more}",
            field=name,
            fix="export a trained checkpoint; a tiny one needs noise there",
        )

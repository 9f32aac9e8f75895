"""What torch.onnx.export gets wrong, and its cures: each is put around the capture of a part that declares it
(optimize.onnx_export).

The one invariant: a fix changes how a value is computed while the export runs, never the value, and leaves no
trace in the module afterwards.

The faults were seen with torch 2.13 and onnxscript 0.7.2. A fix is declared by the part that needs it; where it
had nothing to do, it is not listed as applied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Final, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Used = Callable[[], None]
"""Called each time a fix does something."""


@dataclass(frozen=True)
class Fix:
    """One cure.

    Args:
        name: as reports and declarations write it.
        why: the fault, in one sentence.
        around: gives the context in which a module is captured.
    """

    name: str
    why: str
    around: Callable[[nn.Module, Used], AbstractContextManager[object]]


class Replaced(TorchFunctionMode):
    """Calls of torch functions go to their replacements, which may answer None to leave a call as it is.

    Args:
        replacements: by the function as torch dispatches it: ``torch.cat`` and ``torch.Tensor.squeeze`` are two.
        used: told of each call that was replaced.
    """

    def __init__(self, replacements: Mapping[object, Callable[..., object]], used: Used) -> None:
        super().__init__()
        self._replacements = replacements
        self._used = used

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Called by torch for every function; calls from within come here no more."""
        named = kwargs or {}
        replacement = self._replacements.get(func)
        result = None if replacement is None else replacement(*args, **named)
        if result is None:
            return func(*args, **named)
        self._used()
        return result


def replacing(*functions: object, by: Callable[..., object]) -> Callable[[nn.Module, Used], Replaced]:
    """A fix's ``around`` that lets one replacement answer for functions."""
    return lambda module, used: Replaced(dict.fromkeys(functions, by), used)


def repeat_interleave(
    input: torch.Tensor, repeats: object = None, dim: int | None = None, *, output_size: int | None = None
) -> torch.Tensor | None:
    """By unsqueeze, expand and reshape; None where ``repeats`` is a tensor of counts."""
    if not isinstance(repeats, int | torch.SymInt):
        return None
    values, axis = (input.flatten(), 0) if dim is None else (input, dim % input.ndim)
    before, size, after = values.shape[:axis], values.shape[axis], values.shape[axis + 1 :]
    repeated = values.unsqueeze(axis + 1).expand(*before, size, repeats, *after)
    return repeated.reshape(*before, size * repeats, *after)


def squeeze(input: torch.Tensor, dim: int | Sequence[int] | None = None) -> torch.Tensor | None:
    """Only the axes of one element; None where all named ones are, or none is named."""
    if dim is None:
        return None
    named = (dim,) if isinstance(dim, int) else tuple(dim)
    ones = tuple(axis for axis in named if input.shape[axis] == 1)
    if len(ones) == len(named):
        return None
    return input.squeeze(ones) if ones else input


def inverse(input: torch.Tensor) -> torch.Tensor | None:
    """Of matrices (..., 2, 2) by the adjugate over the determinant; None for others.

    A singular matrix gives infinities, where torch raises.
    """
    if tuple(input.shape[-2:]) != (2, 2):
        return None
    (a, b), (c, d) = (row.unbind(-1) for row in input.unbind(-2))
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / (a * d - b * c)[..., None, None]


def linspace(
    start: float, end: float, steps: object, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> torch.Tensor | None:
    """From both ends to the middle, as torch counts; None where the number of steps is fixed."""
    if not isinstance(steps, torch.SymInt):
        return None
    index = torch.arange(cast("int", steps), dtype=dtype, device=device)
    last = index[-1:].clamp(min=1)
    step = (end - start) / last
    return torch.where(2 * index < last, start + step * index, end - step * (last - index))


def cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor | None:
    """With every tensor in the type that torch promotes all to; None where they have one type."""
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) == 1:
        return None
    return torch.cat([tensor.to(reduce(torch.promote_types, dtypes)) for tensor in tensors], dim)


def lstm(
    input: torch.Tensor, hx: object, params: Sequence[torch.Tensor], has_biases: bool, num_layers: int, *rest: object
) -> tuple[torch.Tensor, ...] | None:
    """A stack of layers as ONNX's LSTM; None where the sequence is packed or states are projected.

    Args:
        input: (time, batch, features), or (batch, time, features) where the last of ``rest`` says so.
        hx: states and cells, each (layers * directions, batch, hidden).
        params: per layer and direction, weights of the input and of the state, and their biases if there are any.
        has_biases: whether there are.
        num_layers: layers.
        rest: dropout, whether training, whether both directions, whether batch comes first.

    Returns:
        The output in the layout of ``input``, and the last states and cells. Values are ONNX Runtime's alone to
        compute: outside an export they are zeros.
    """
    directions, size = (2 if rest[-2] else 1), (4 if has_biases else 2)
    if isinstance(hx, torch.Tensor) or len(params) != num_layers * directions * size:
        return None
    states, cells = cast(tuple[torch.Tensor, torch.Tensor], hx)
    values = input.transpose(0, 1) if rest[-1] else input
    ends = []
    for layer in range(num_layers):
        rows = slice(layer * directions, (layer + 1) * directions)
        groups = [params[row * size : (row + 1) * size] for row in range(rows.start, rows.stop)]
        hidden, *end = _lstm_layer(values, groups, states[rows], cells[rows])
        values = hidden.transpose(1, 2).flatten(2)
        ends.append(end)
    output = values.transpose(0, 1) if rest[-1] else values
    return output, torch.cat([end[0] for end in ends]), torch.cat([end[1] for end in ends])


def _lstm_layer(
    values: torch.Tensor, groups: Sequence[Sequence[torch.Tensor]], states: torch.Tensor, cells: torch.Tensor
) -> Sequence[torch.Tensor]:
    """One layer: (time, directions, batch, hidden), and the last state and cell of each direction."""
    weights = [torch.stack([_onnx_gates(group[index]) for group in groups]) for index in (0, 1)]
    biases = [torch.cat([_onnx_gates(bias) for bias in group[2:]]) for group in groups if len(group) > 2]  # noqa: PLR2004
    directions, batch, hidden = states.shape
    return torch.onnx.ops.symbolic_multi_out(
        "LSTM",
        [values, *weights, torch.stack(biases) if biases else None, None, states, cells],
        {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"},  # noqa: PLR2004
        dtypes=[values.dtype] * 3,
        shapes=[(values.shape[0], directions, batch, hidden), tuple(states.shape), tuple(states.shape)],
        version=14,
    )


def _onnx_gates(weights: torch.Tensor) -> torch.Tensor:
    """Rows of the gates from torch's order (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    gates = weights.chunk(4)
    return torch.cat([gates[0], gates[3], gates[1], gates[2]])


@contextmanager
def _integer_padding(module: nn.Module, used: Used) -> Iterator[None]:
    with ExitStack() as stack:
        for part in module.modules():
            if {"kernel_size", "stride", "padding_total"} <= part._buffers.keys():
                stack.enter_context(_integers_bound(part))
                used()
        yield


@contextmanager
def _integers_bound(convolution: nn.Module) -> Iterator[None]:
    """The three buffers of an EnCodec convolution as integers, and its padding in their arithmetic."""
    buffers = dict(convolution._buffers)
    sizes = {name: int(value) for name, value in buffers.items() if value is not None and value.ndim == 0}
    convolution._buffers.clear()
    bound = {**sizes, "_get_extra_padding_for_conv1d": partial(_extra_padding, sizes["kernel_size"], sizes)}
    vars(convolution).update(bound)
    try:
        yield
    finally:
        for name in bound:
            del vars(convolution)[name]
        convolution._buffers.update(buffers)


def _extra_padding(kernel_size: int, sizes: Mapping[str, int], hidden_states: torch.Tensor) -> int:
    """Samples that fill the last frame: transformers' EncodecConv1d._get_extra_padding_for_conv1d in integers."""
    stride, padding = sizes["stride"], sizes["padding_total"]
    length = hidden_states.shape[-1]
    frames = (length - kernel_size + padding + stride - 1) // stride  # never negative: ONNX divides towards zero
    return frames * stride + kernel_size - padding - length


REPEAT_INTERLEAVE: Final = Fix(
    "repeat_interleave",
    "repeats that depend on a dynamic axis become an Expand of a wrong shape (SVD, AnimateDiff)",
    replacing(torch.repeat_interleave, torch.Tensor.repeat_interleave, by=repeat_interleave),
)
SQUEEZE: Final = Fix(
    "squeeze",
    "squeeze of an axis of more than one element, nothing to torch, becomes an invalid Squeeze (LTX-2, XTTS)",
    replacing(torch.squeeze, torch.Tensor.squeeze, by=squeeze),
)
INVERSE: Final = Fix(
    "inverse",
    "linalg_inv_ex has no translation: matrices of 2x2 are inverted in closed form (First Order Motion Model)",
    replacing(torch.inverse, torch.Tensor.inverse, torch.linalg.inv, by=inverse),
)
LINSPACE: Final = Fix(
    "linspace",
    "torch fixes the number of steps when it captures them, though an axis gives it (First Order Motion Model)",
    replacing(torch.linspace, by=linspace),
)
INTEGER_PADDING: Final = Fix(
    "integer_padding",
    "EnCodec pads by numbers that are tensors, which a graph cannot know: they are bound to integers (MusicGen)",
    _integer_padding,
)
CAT: Final = Fix(
    "cat",
    "torch.concat of several types becomes a Concat that no runtime loads: all are cast first (SDXL in half precision)",
    replacing(torch.cat, torch.concat, torch.concatenate, by=cat),
)
LSTM: Final = Fix(
    "lstm",
    "torch fixes the time axis of an LSTM when it captures one, though ONNX's has none fixed (EnCodec)",
    replacing(torch.lstm, by=lstm),
)
FIXES: Final[Mapping[str, Fix]] = {
    fix.name: fix for fix in (REPEAT_INTERLEAVE, SQUEEZE, INVERSE, INTEGER_PADDING, CAT, LSTM, LINSPACE)
}
"""All of them by name."""


@contextmanager
def applied(fixes: Sequence[Fix], module: nn.Module) -> Iterator[set[str]]:
    """All fixes around one capture of ``module``; the set fills with the names of those that did something."""
    done: set[str] = set()
    with ExitStack() as stack:
        for fix in fixes:
            stack.enter_context(fix.around(module, partial(done.add, fix.name)))
        yield done

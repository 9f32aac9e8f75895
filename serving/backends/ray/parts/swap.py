"""Puts an exported part in the place of its module, so that the engine's own code calls it; used when engines load.

The one invariant: a part answers only for the weights that it was made of, and a call that it was not exported for is
refused and says so; nothing falls back in silence.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import JsonValue

from serving.backends.ray.parts.adapters import adapter_of
from serving.backends.ray.parts.calls import Tensors, bound, flatten, key_of, rebuild
from serving.backends.ray.parts.onnx_runner import Runner
from serving.backends.ray.parts.place import empty, module_at
from serving.errors import BadInput
from serving.repository.part_file import PartFile, PartTensor, Variant

if TYPE_CHECKING:
    import torch
    from torch import nn

log = structlog.get_logger()

Open = Callable[[Path, Variant], Runner]
"""Opens the file of a variant."""


class Swapped:
    """Stands in for a module's ``forward``.

    Args:
        module: that was emptied; its signature names the arguments.
        part: what answers.
        runners: one for each variant.
    """

    def __init__(self, module: "nn.Module", part: PartFile, runners: Sequence[Runner]) -> None:
        import torch

        self._module, self._part = module, part
        self._adapter = adapter_of(part.adapter)
        floats = (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
        self._dtype = next(floats, torch.float32)
        self._known = [
            (key_of(variant.call), variant, runner) for variant, runner in zip(part.variants, runners, strict=True)
        ]
        self.calls = 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Answer a call as the module would."""
        tensors: Tensors = {}
        tree = flatten(self._adapter(self._module, bound(self._module, args, kwargs)), "", tensors)
        variant, runner = self._chosen(tree, tensors)
        found = runner.run({tensor.name: _entering(tensor, tensors[tensor.name]) for tensor in variant.inputs})
        self.calls += 1
        outputs = {tensor.name: self._leaving(tensor, found[tensor.name]) for tensor in variant.outputs}
        return rebuild(variant.answer, {**tensors, **outputs})

    def close(self) -> None:
        """Free every runner."""
        for _, _, runner in self._known:
            runner.close()

    def _chosen(self, tree: JsonValue, tensors: Tensors) -> tuple[Variant, Runner]:
        """The variant of this kind of call whose fixed sizes are those of the call.

        Raises:
            BadInput: there is none.
        """
        key = key_of(tree)
        alike = [(variant, runner) for known, variant, runner in self._known if known == key]
        misfits = [_misfit(variant, tensors) for variant, _ in alike]
        for (variant, runner), misfit in zip(alike, misfits, strict=True):
            if misfit is None:
                return variant, runner
        known = f"for {misfits[0]}" if misfits else "for calls of another kind"
        problem = f"{self._part.part} was exported {known}"
        raise BadInput(
            problem,
            field=f"optimized.{self._part.part}",
            fix="ask for a size that it was exported for, export it with a request of this kind, or take it out of "
            "model.yaml",
        )

    def _leaving(self, tensor: PartTensor, value: "torch.Tensor") -> "torch.Tensor":
        value = value.reshape(()) if tensor.scalar else value
        return value.to(self._dtype) if value.is_floating_point() else value


def _misfit(variant: Variant, tensors: Mapping[str, "torch.Tensor"]) -> str | None:
    """The first fixed size that a call has otherwise, for people; None where all fit."""
    for tensor in variant.inputs:
        shape = (1,) if tensor.scalar else tuple(tensors[tensor.name].shape)
        for index, (axis, size) in enumerate(zip(tensor.axes, shape, strict=True)):
            if isinstance(axis, int) and axis != size:
                return f"{tensor.name} with {axis} at axis {index}, and not {size}"
    return None


def _entering(tensor: PartTensor, value: "torch.Tensor") -> "torch.Tensor":
    import torch

    wanted: torch.dtype = getattr(torch, tensor.dtype)
    value = value.reshape(1) if tensor.scalar else value
    return value.to(wanted) if value.dtype != wanted else value


def swap_in(engine: object, folder: Path, part: PartFile, open_file: Open) -> Swapped:
    """Let a part answer in the place of its module, whose numbers are let go unless the part keeps them.

    Args:
        engine: loaded.
        folder: of the part's version.
        part: what is there.
        open_file: makes the runner of a variant.

    Raises:
        BadInput: the engine has no such module.
        EngineFailed: a file does not load; the module is as it was.
    """
    module = module_at(engine, part.at)
    runners: list[Runner] = []
    try:
        for variant in part.variants:
            runners.append(open_file(folder / variant.file, variant))
    except BaseException:
        for runner in runners:
            runner.close()
        raise
    swapped = Swapped(module, part, runners)
    freed = 0 if part.keeps else empty(engine, part.at)
    module.forward = swapped
    log.info("part_swapped_in", model=part.model, part=part.part, precision=part.precision, freed_mib=freed >> 20)
    return swapped

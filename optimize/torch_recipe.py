"""Recipes of torch modules, exported by optimize.onnx_export; imported only by recipes that need torch.

The one invariant: the module exported and the reference get the same seeded weights and run in eval mode,
single precision decided by the module, on as many threads as ONNX Runtime gets.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from optimize import external, fixes, onnx_export
from optimize.onnx_export import PACKAGES, export
from optimize.recipe import Answer, Arrays, Built, Recipe, Sampler, Tensor
from optimize.threads import THREADS
from serving.errors import EngineFailed

ModuleBuilder = Callable[[], nn.Module]


class TorchRecipe(Recipe):
    """A torch module, and optionally another one that it has to equal.

    Args:
        module: builds what is exported; its forward takes the inputs by position and returns one tensor or a
            tuple.
        reference: builds what the export must equal, for example before the changes that exporting needs;
            default ``module``.
        inputs, outputs, sizes, max_batch, seed, sampler: see :class:`Recipe`.
        source: the file of the recipe, and with ``more_sources`` all that decides the result.
    """

    def __init__(
        self,
        *,
        module: ModuleBuilder,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        sizes: Sequence[Mapping[str, int]],
        source: Path,
        reference: ModuleBuilder | None = None,
        more_sources: Sequence[Path] = (),
        max_batch: int = 0,
        seed: int = 0,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(inputs=inputs, outputs=outputs, sizes=sizes, max_batch=max_batch, seed=seed, sampler=sampler)
        self.module = module
        self.reference_module = reference or module
        own = (Path(__file__), *(Path(str(module.__file__)) for module in (onnx_export, fixes, external)))
        self._sources = (*own, source, *more_sources)

    def sources(self) -> tuple[Path, ...]:
        """The recipe's file, this one and the exporter's."""
        return self._sources

    def packages(self) -> tuple[str, ...]:
        """Whose versions decide the bytes."""
        return PACKAGES

    @contextmanager
    def build(self, folder: Path, opset: int) -> Iterator[Built]:
        """Export the module; the reference runs in this process."""
        target = folder / "model.onnx"
        module = self._seeded(self.module)
        tools = self._export(module, target, opset)
        reference = self._seeded(self.reference_module)
        yield Built(target, lambda inputs: self._run(reference, inputs), tools)

    def _seeded(self, builder: ModuleBuilder) -> nn.Module:
        torch.manual_seed(self.seed)
        return builder().eval()

    def _export(self, module: nn.Module, target: Path, opset: int) -> Mapping[str, str]:
        """Export at the first case; EngineFailed where an output has other axes than the recipe declares."""
        example = self.cases()[0].inputs
        exported = export(
            module,
            [torch.from_numpy(np.array(example[tensor.name])) for tensor in self.inputs],
            [tensor.name for tensor in self.inputs],
            [tensor.name for tensor in self.outputs],
            [_dynamic(tensor) for tensor in self.inputs],
            target,
            output_axes=[_dynamic(tensor) for tensor in self.outputs],
            opset=opset,
        )
        for tensor, axes in zip(self.outputs, exported.outputs, strict=True):
            if axes != tensor.axes:
                raise EngineFailed(f"exported with axes {axes}, declared with {tensor.axes}", field=tensor.name)
        return exported.tools

    def _run(self, module: nn.Module, inputs: Arrays) -> Answer:
        torch.set_num_threads(THREADS)
        args = [torch.from_numpy(np.array(inputs[tensor.name])) for tensor in self.inputs]
        with torch.inference_mode():
            started = time.perf_counter()
            result = module(*args)
            seconds = time.perf_counter() - started
        results = result if isinstance(result, tuple) else (result,)
        names = [tensor.name for tensor in self.outputs]
        return Answer({name: value.numpy() for name, value in zip(names, results, strict=True)}, seconds)


def _dynamic(tensor: Tensor) -> dict[int, str]:
    return {index: axis for index, axis in enumerate(tensor.axes) if isinstance(axis, str)}

"""Recipes of torch modules: exports one with torch.onnx.export(dynamo=True); imported only by recipes that
need torch.

The one invariant: the module exported and the reference get the same seeded weights and run in eval mode,
single precision decided by the module, on as many threads as ONNX Runtime gets.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxscript
import torch
from torch import nn

from optimize.canonical import save_canonical
from optimize.recipe import Answer, Arrays, Built, Recipe, Sampler, Tensor
from optimize.threads import THREADS
from serving.errors import EngineFailed, foreign_text

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
        self._sources = (Path(__file__), source, *more_sources)

    def sources(self) -> tuple[Path, ...]:
        """The recipe's file and this one."""
        return self._sources

    def packages(self) -> tuple[str, ...]:
        """Whose versions decide the bytes."""
        return ("torch", "onnx", "onnxscript")

    @contextmanager
    def build(self, folder: Path, opset: int) -> Iterator[Built]:
        """Export the module; the reference runs in this process."""
        target = folder / "model.onnx"
        module = self._seeded(self.module)
        save_canonical(self._export(module, opset), target)
        reference = self._seeded(self.reference_module)
        tools = {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__,
            "exporter": "torch.onnx.export(dynamo=True)",
        }
        yield Built(target, lambda inputs: self._run(reference, inputs), tools)

    def _seeded(self, builder: ModuleBuilder) -> nn.Module:
        torch.manual_seed(self.seed)
        return builder().eval()

    def _export(self, module: nn.Module, opset: int) -> onnx.ModelProto:
        example = self.cases()[0].inputs
        args = tuple(torch.from_numpy(np.array(example[tensor.name])) for tensor in self.inputs)
        dynamic = tuple(
            {index: axis for index, axis in enumerate(tensor.axes) if isinstance(axis, str)} for tensor in self.inputs
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logging.getLogger("torch.onnx").setLevel(logging.ERROR)
                program = torch.onnx.export(
                    module,
                    args,
                    dynamo=True,
                    opset_version=opset,
                    input_names=[tensor.name for tensor in self.inputs],
                    output_names=[tensor.name for tensor in self.outputs],
                    dynamic_shapes=dynamic,
                    verbose=False,
                )
        except Exception as error:
            fix = "find the operator in the message, and give the recipe a module that avoids it"
            raise EngineFailed(f"torch.onnx.export failed: {foreign_text(error)}", field="export", fix=fix) from error
        if program is None:
            raise EngineFailed("torch.onnx.export gave nothing", field="export")
        model = program.model_proto
        self._name_axes(model)
        return model

    def _name_axes(self, model: onnx.ModelProto) -> None:
        """Give dynamic axes the recipe's names; the exporter writes expressions such as ``(s0//160)``."""
        for value, tensor in zip((*model.graph.input, *model.graph.output), (*self.inputs, *self.outputs), strict=True):
            dims = value.type.tensor_type.shape.dim
            if len(dims) != len(tensor.axes):
                raise EngineFailed(
                    f"exported with {len(dims)} axes, declared with {len(tensor.axes)}", field=tensor.name
                )
            for dim, axis in zip(dims, tensor.axes, strict=True):
                if isinstance(axis, str):
                    dim.dim_param = axis
                elif dim.dim_value != axis:
                    found = dim.dim_param or dim.dim_value
                    raise EngineFailed(f"axis exported as {found}, declared as {axis}", field=tensor.name)

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

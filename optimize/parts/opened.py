"""A part's file in ONNX Runtime, for callers whose tensors are on the CPU; opened by the gates.

The one invariant: where there is a GPU that ONNX Runtime can use, the file runs there, as it will when it serves.
"""

from pathlib import Path
from typing import Final

import onnxruntime
import torch

from optimize.threads import THREADS
from serving.backends.ray.parts.calls import Tensors
from serving.backends.ray.parts.onnx_runner import OnnxRunner, Runner
from serving.backends.ray.parts.providers import CUDA, providers
from serving.repository.part_file import Variant

GPU: Final = "cuda:0"


def has_gpu() -> bool:
    """Whether torch sees a GPU here and ONNX Runtime has the provider for it."""
    return torch.cuda.is_available() and CUDA in onnxruntime.get_available_providers()


class Guest:
    """A file on a GPU, for callers on the CPU: tensors go there and come back.

    Args:
        file: of the variant.
        variant: its tensors.
        device: ``cuda:N``.
    """

    def __init__(self, file: Path, variant: Variant, device: str) -> None:
        chain = providers(device, "onnxruntime", file.parent)
        self._runner = OnnxRunner(file, variant, device=device, threads=THREADS, providers=chain)
        self._device = device

    def run(self, inputs: Tensors) -> Tensors:
        """See :class:`serving.backends.ray.parts.onnx_runner.Runner`."""
        found = self._runner.run({name: tensor.to(self._device) for name, tensor in inputs.items()})
        return {name: tensor.cpu() for name, tensor in found.items()}

    def close(self) -> None:
        """Free the session."""
        self._runner.close()


def open_file(file: Path, variant: Variant) -> Runner:
    """In ONNX Runtime: on the GPU where there is one, whose kernels are those that will serve, else on the CPU."""
    if has_gpu():
        return Guest(file, variant, GPU)
    return OnnxRunner(file, variant, threads=THREADS)

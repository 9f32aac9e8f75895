"""OnnxRunner: answers a variant's calls by ONNX Runtime; tensors go in and come out by their addresses.

The one invariant: no number is copied between host and device, or within one, but where its dtype differs from the
file's.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from serving.backends.ray.parts.calls import Tensors
from serving.backends.ray.parts.providers import CPU, Providers
from serving.errors import EngineFailed, MissingDependency, foreign_text
from serving.repository.part_file import PartTensor, Variant

if TYPE_CHECKING:
    import torch

_BFLOAT16: Final = 16
"""TensorProto.BFLOAT16: numpy has no such type."""


class Runner(Protocol):
    """Answers the calls of one variant."""

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, of inputs by name; all on one device, in the file's dtypes and shapes."""

    def close(self) -> None:
        """Free what it holds."""


class OnnxRunner:
    """A file in ONNX Runtime.

    Args:
        file: of the variant.
        variant: its tensors.
        device: ``cpu`` or ``cuda:N``.
        threads: of one call on a CPU.
        providers: of ONNX Runtime, with their options, the preferred one first.

    Raises:
        EngineFailed: the file does not load.
        MissingDependency: the preferred provider does not load, which ONNX Runtime itself only warns of.
    """

    def __init__(
        self,
        file: Path,
        variant: Variant,
        *,
        device: str = "cpu",
        threads: int = 1,
        providers: "Providers | None" = None,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._file, self._variant = file, variant
        self._kind, _, number = device.partition(":")
        self._number = int(number or 0)
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=providers or [(CPU, {})])
        except Exception as error:
            fix = "publish the part again, or roll back to another version"
            raise EngineFailed(
                f"does not load in ONNX Runtime: {foreign_text(error)}", field=str(file), fix=fix
            ) from error
        wanted, there = (providers or [(CPU, {})])[0][0], self._session.get_providers()
        if wanted not in there:
            problem = f"ONNX Runtime's {wanted} does not load here, only {', '.join(there)}"
            fix = "install the CUDA, cuDNN or TensorRT that this onnxruntime-gpu was built for"
            raise MissingDependency(problem, field="onnxruntime", fix=fix)

    def run(self, inputs: Tensors) -> Tensors:
        """See :class:`Runner`."""
        import torch

        binding = self._session.io_binding()
        held = []
        for tensor in self._variant.inputs:
            value = inputs[tensor.name].contiguous()
            held.append(value)
            binding.bind_input(
                tensor.name, self._kind, self._number, _element(tensor), tuple(value.shape), value.data_ptr()
            )
        for tensor in self._variant.outputs:
            binding.bind_output(tensor.name, self._kind, self._number)
        if self._kind == "cuda":
            torch.cuda.current_stream(self._number).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            shapes = {name: tuple(value.shape) for name, value in inputs.items()}
            raise EngineFailed(f"{self._file.name} fails at {shapes}: {foreign_text(error)}", field="run") from error
        binding.synchronize_outputs()
        values = binding.get_outputs()
        return {
            tensor.name: _tensor(value, tensor) for tensor, value in zip(self._variant.outputs, values, strict=True)
        }

    def close(self) -> None:
        """See :class:`Runner`."""
        del self._session


def _element(tensor: PartTensor) -> "np.dtype[np.generic] | int":
    return _BFLOAT16 if tensor.dtype == "bfloat16" else np.dtype(tensor.dtype)


def _tensor(value: object, tensor: PartTensor) -> "torch.Tensor":
    """ONNX Runtime's own memory as torch's; DLPack knows no booleans and says bytes."""
    import torch

    found: torch.Tensor = torch.from_dlpack(value._ortvalue.to_dlpack())  # type: ignore[attr-defined]
    return found.bool() if tensor.dtype == "bool" else found

"""A network in ONNX Runtime, inputs and outputs bound to torch's memory; used by bench.gpu's workers where it is there.

The one invariant: nothing here is needed. What is missing is said in a sentence, which stands in the report.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.gpu.measure import synchronize

PROVIDERS: Final = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
NEEDED: Final = ("onnxruntime", "onnx", "onnxscript")
NUMPY_TYPES: Final = {torch.float32: np.float32, torch.float16: np.float16}
FATAL: Final = 4
"""ONNX Runtime's severity, so that nodes placed on the CPU on purpose fill no page."""


class Binding(Protocol):
    """onnxruntime.IOBinding, as far as it is used: onnxruntime has no types."""

    def bind_input(self, name: str, device: str, number: int, kind: type, shape: Sequence[int], address: int) -> None:
        """Read an input from there."""

    def bind_output(self, name: str, device: str, number: int, kind: type, shape: Sequence[int], address: int) -> None:
        """Write an output there."""


class Node(Protocol):
    """An input or output."""

    name: str


class Session(Protocol):
    """onnxruntime.InferenceSession."""

    def get_providers(self) -> list[str]:
        """Those that loaded."""

    def get_inputs(self) -> list[Node]:
        """In the file's order."""

    def get_outputs(self) -> list[Node]:
        """In the file's order."""

    def io_binding(self) -> Binding:
        """An empty one."""

    def run_with_iobinding(self, binding: Binding) -> None:
        """Run."""


def missing(device: torch.device) -> str | None:
    """What keeps a network from ONNX Runtime here, if anything does."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    import onnxruntime

    there, provider = onnxruntime.get_available_providers(), PROVIDERS[device.type]
    return None if provider in there else f"{provider} is not among {', '.join(there)}: install onnxruntime-gpu"


def session_of(network: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Session:
    """Export the network and load it, the weights beside the graph."""
    import onnxruntime

    path = folder / "network.onnx"
    torch.onnx.export(network, inputs, path, dynamo=True, external_data=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    provider = PROVIDERS[inputs[0].device.type]
    session: Session = onnxruntime.InferenceSession(path, options, providers=[provider])
    if provider not in session.get_providers():
        raise RuntimeError(f"{provider} did not load: its CUDA or cuDNN is another than torch's")
    return session


class Bound(NamedTuple):
    """A call whose inputs and output stay where they are: the binding knows addresses alone, so tensors are kept."""

    session: Session
    binding: Binding
    inputs: tuple[Tensor, ...]
    out: Tensor

    def run(self) -> Tensor:
        """Fill the output."""
        self.session.run_with_iobinding(self.binding)
        return self.out


def bound(session: Session, inputs: tuple[Tensor, ...], out: Tensor) -> Bound:
    """Bind contiguous tensors, inputs in the session's order."""
    binding = session.io_binding()
    place = (out.device.type, out.device.index or 0)
    for told, tensor in zip(session.get_inputs(), inputs, strict=True):
        binding.bind_input(told.name, *place, NUMPY_TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
    name = session.get_outputs()[0].name
    binding.bind_output(name, *place, NUMPY_TYPES[out.dtype], tuple(out.shape), out.data_ptr())
    return Bound(session, binding, inputs, out)


def runner(network: nn.Module, inputs: tuple[Tensor, ...]) -> Bound:
    """The network in ONNX Runtime, on the device of the inputs.

    The export is by torch.export, of this batch alone. Its files are gone once they are loaded.
    """
    inputs = tuple(each.contiguous() for each in inputs)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        out = network(*inputs).contiguous()
        session = session_of(network, inputs, Path(folder))
    # What torch writes must be there before another library reads it: the two have streams of their own.
    synchronize(out.device)
    return bound(session, inputs, out)

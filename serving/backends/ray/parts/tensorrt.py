"""TensorRTRunner: answers a part's calls by a TensorRT plan; the engine swaps it in where model.yaml says so.

The one invariant: no number is copied between host and device: TensorRT reads and writes torch's own memory, on a
stream of its own that waits for the caller's and that the caller's waits for.
"""

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from serving.backends.ray.parts.gpu import require
from serving.errors import BadInput, EngineFailed, MissingDependency, foreign_text
from serving.repository.plan_file import check_onnx, check_whole, find_plan, profile_of, read_plan, unfit

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
"""By name."""

_BUILD: Final = "build the plan again, or roll back to another version"


def open_plan(onnx: Path, plans: Path, device: str) -> "TensorRTRunner":
    """The plan of an ONNX file that fits a GPU.

    Args:
        onnx: the part's file, of which the plan must have been built.
        plans: version folder of ``<model>_<part>_trt``.
        device: ``cuda:N``.

    Raises:
        MissingDependency: driver, GPU, package or torch's CUDA are missing; names each.
        NotFound: no plan fits this GPU and this TensorRT; says why each that is there does not.
        BadInput: the plan was built of another ONNX file, or is damaged.
        EngineFailed: TensorRT does not load it.
    """
    number = _number(device)
    gpu, module = require(number)
    plan = find_plan(plans, onnx.stem, gpu.capability, str(module.__version__), gpu.name)
    made = read_plan(plan)
    check_onnx(made, onnx)
    check_whole(made, plan)
    return TensorRTRunner(plan, device=device, onnx=onnx, module=module)


class TensorRTRunner:
    """A plan on one GPU; calls follow one another, as one execution context takes them.

    Args:
        plan: the file; its description lies beside it.
        device: ``cuda:N``.
        onnx: where a weight-stripped plan takes its weights from.
        module: the package ``tensorrt``; None imports it, and asks for driver and GPU first.

    Raises:
        MissingDependency: driver, GPU, package or torch's CUDA are missing.
        BadInput: the plan is stripped and there is no ONNX file.
        EngineFailed: TensorRT does not load the plan, or its tensors are not those of its description.
    """

    def __init__(
        self, plan: Path, *, device: str = "cuda:0", onnx: Path | None = None, module: ModuleType | None = None
    ) -> None:
        self._trt = module or require(_number(device))[1]
        self._file, self.made = plan, read_plan(plan)
        self._streams = _Streams(device)
        why = unfit(self.made, self.made.compute_capability, str(self._trt.__version__), self.made.gpu)
        if why is not None:
            raise EngineFailed(f"the plan {why}", field=str(plan), fix=_BUILD)
        self._log = self._trt.Logger(self._trt.Logger.ERROR)
        with self._streams.here():
            self._engine = self._loaded(onnx)
            self._context = self._engine.create_execution_context()
        if self._context is None:
            fix = "free memory of the GPU, or build with smaller largest sizes"
            raise EngineFailed("TensorRT has no memory to run the plan", field=str(plan), fix=fix)
        self._profile = 0
        self._dtypes = {tensor.name: _dtype(tensor.dtype) for tensor in (*self.made.inputs, *self.made.outputs)}
        self._check_tensors()

    def run(self, inputs: Mapping[str, "torch.Tensor"]) -> Tensors:
        """Outputs by name.

        Args:
            inputs: by name, in the plan's dtypes, on its device, of shapes inside one of its profiles.

        Raises:
            BadInput: names the input and what it lacks.
            EngineFailed: TensorRT failed.
        """
        profile = profile_of(self.made, {name: tuple(value.shape) for name, value in inputs.items()})
        given = {name: self._checked(name, value) for name, value in inputs.items()}
        with self._streams.here():
            self._choose(profile)
            held = [self._bind(name, value) for name, value in given.items()]
            outputs = self._outputs()
            with self._streams.ordered():
                done = self._context.execute_async_v3(self._streams.handle)
        del held
        if not done:
            shapes = {name: tuple(value.shape) for name, value in inputs.items()}
            raise EngineFailed(f"{self._file.name} fails at {shapes}", field="run", fix="read TensorRT's log above")
        return outputs

    def close(self) -> None:
        """Free the plan and its memory; the runner cannot be used any more."""
        self._context = self._engine = None

    def _loaded(self, onnx: Path | None) -> Any:  # noqa: ANN401  tensorrt is not here
        runtime = self._trt.Runtime(self._log)
        # A version-compatible plan carries code of its own, which runs only where that is allowed.
        runtime.engine_host_code_allowed = self.made.version_compatible
        engine = None
        # Mapped, since a plan is as large as the weights and is read once; an empty file cannot be mapped.
        if self._file.stat().st_size:
            with self._file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
                engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineFailed("TensorRT does not load the plan", field=str(self._file), fix=_BUILD)
        if self.made.weight_stripped:
            self._refit(engine, onnx)
        return engine

    def _refit(self, engine: Any, onnx: Path | None) -> None:  # noqa: ANN401  the same
        if onnx is None:
            fix = "name the ONNX file that it was built of"
            raise BadInput("the plan was built without its weights", field=str(self._file), fix=fix)
        refitter = self._trt.Refitter(engine, self._log)
        parser = self._trt.OnnxParserRefitter(refitter, self._log)
        if not parser.refit_from_file(str(onnx)):
            errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise EngineFailed(
                f"the plan does not take its weights: {foreign_text(errors)}", field=str(onnx), fix=_BUILD
            )
        if not refitter.refit_cuda_engine():
            lacking = ", ".join(refitter.get_missing_weights()[:3])
            raise EngineFailed(f"the plan lacks weights: {foreign_text(lacking)}", field=str(onnx), fix=_BUILD)

    def _check_tensors(self) -> None:
        engine = self._engine
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if found != set(self._dtypes):
            odd = ", ".join(sorted(found ^ set(self._dtypes)))
            problem = f"the plan's tensors are not those of its description: {odd}"
            raise EngineFailed(problem, field=str(self._file), fix=_BUILD)

    def _checked(self, name: str, value: "torch.Tensor") -> "torch.Tensor":
        wanted = self._dtypes[name]
        if value.dtype != wanted:
            raise BadInput(f"is {value.dtype}, and the plan takes {wanted}", field=name, fix=f"cast it to {wanted}")
        if value.device != self._streams.device:
            problem = f"lies on {value.device}, and the plan runs on {self._streams.device}"
            raise BadInput(problem, field=name, fix=f"move it to {self._streams.device}")
        return value.contiguous()

    def _choose(self, profile: int) -> None:
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, self._streams.handle):
                raise EngineFailed(f"TensorRT does not take profile {profile}", field=str(self._file), fix=_BUILD)
            self._profile = profile

    def _bind(self, name: str, value: "torch.Tensor") -> "torch.Tensor":
        """Tell TensorRT where an input lies; the tensor that must live until the call is over.

        Inputs that are sizes (of a reshape, for example) are read by the host: the one exception from no copies.
        """
        on_host = self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST
        value = value.cpu() if on_host else value
        shaped = self._context.set_input_shape(name, tuple(value.shape))
        if not shaped or not self._context.set_tensor_address(name, value.data_ptr()):
            raise EngineFailed(f"TensorRT does not take a shape {tuple(value.shape)}", field=name, fix=_BUILD)
        return value

    def _outputs(self) -> Tensors:
        """Memory for the outputs, whose shapes follow from the inputs'."""
        import torch

        lacking = self._context.infer_shapes()
        if lacking:
            raise EngineFailed(f"TensorRT lacks {', '.join(lacking)}", field="run", fix=_BUILD)
        made: Tensors = {}
        for tensor in self.made.outputs:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if any(size < 0 for size in shape):
                fix = "leave this output out of the part: its shape depends on numbers"
                raise EngineFailed(f"has no shape before the call: {shape}", field=tensor.name, fix=fix)
            made[tensor.name] = torch.empty(shape, dtype=self._dtypes[tensor.name], device=self._streams.device)
            self._context.set_tensor_address(tensor.name, made[tensor.name].data_ptr())
        return made


class _Streams:
    """A CUDA stream beside the caller's: on the default one TensorRT synchronises the device with every call.

    Args:
        device: ``cuda:N``; on ``cpu``, which tests use, nothing waits for anything.

    Raises:
        MissingDependency: torch was built without CUDA.
    """

    def __init__(self, device: str) -> None:
        import torch

        self.device = torch.device(device) if device == "cpu" else torch.device("cuda", _number(device))
        if self.device.type == "cuda" and not torch.cuda.is_available():
            fix = "install torch of the index for your CUDA: https://download.pytorch.org/whl/"
            raise MissingDependency(f"torch {torch.__version__} sees no CUDA device", field="torch", fix=fix)
        self._stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @contextmanager
    def here(self) -> Iterator[None]:
        """The device is CUDA's current one, on which TensorRT loads and runs."""
        import torch

        with torch.cuda.device(self.device) if self._stream is not None else nullcontext():
            yield

    @property
    def handle(self) -> int:
        """The stream, as TensorRT takes it."""
        return int(self._stream.cuda_stream) if self._stream is not None else 0

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """What the caller enqueued comes before the body's work, and what it enqueues next comes after.

        So the tensors of a call may be the caller's stream's: their memory is free again only when the call is over.
        """
        import torch

        if self._stream is None:
            yield
            return
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        try:
            yield
        finally:
            caller.wait_stream(self._stream)


def _number(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "cuda":
        raise BadInput(f"TensorRT runs on no {kind!r}", field="device", fix="use cuda:N, or runtime: onnxruntime")
    return int(number or 0)


def _dtype(name: str) -> "torch.dtype":
    import torch

    found: torch.dtype = getattr(torch, name)
    return found

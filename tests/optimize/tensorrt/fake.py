"""Stands for the package ``tensorrt``, which needs a GPU: same names, and the rules that its documentation states.

``api.json`` holds the names of its classes, as read with dir() in NVIDIA's own bindings 10.13.0.35 and 11.4.0.106
(wheels tensorrt-cu12-bindings). An object here has no attribute that is not among them, so that code which passes uses
names that exist. A "plan" is the request as JSON; running one computes the ONNX file by ONNX Runtime from the addresses
that were set. What it cannot show: kernels, speed, numbers of TensorRT, and what only a GPU refuses.
"""

import ctypes
import json
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

API: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("api.json").read_text(encoding="utf-8"))
VERSIONS = tuple(API)
WEAK_FLAGS = {"FP16", "BF16", "INT8", "FP8"}


class Documented:
    """Base of the fakes: refuses names that the real class of the same name does not have."""

    api: dict[str, list[str]]

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            kinds = [kind.__name__ for kind in type(self).__mro__ if kind.__name__ in self.api]
            own = kinds[0] == type(self).__name__  # subclasses that our code makes may have attributes of their own
            if own and name not in self.api[kinds[0]]:
                raise AttributeError(f"{kinds[0]} has no {name}")
        super().__setattr__(name, value)


def fake_tensorrt(version: str) -> Any:
    """A module of this version, whose attribute ``calls`` lists what the builder was asked for."""
    api = API[version]
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    module.calls = []
    module.fails = None
    for name in ("BuilderFlag", "NetworkDefinitionCreationFlag", "HardwareCompatibilityLevel", "MemoryPoolType",
                 "TensorLocation"):  # fmt: skip
        setattr(module, name, IntEnum(name, {member: index for index, member in enumerate(api[name])}))
    for kind in (ILogger, Logger, IProgressMonitor, ITimingCache, IOptimizationProfile, INetworkDefinition,
                 IBuilderConfig, ParserError, Builder, OnnxParser, Runtime, ICudaEngine, IExecutionContext, Refitter,
                 OnnxParserRefitter):  # fmt: skip
        odd = {name for name in vars(kind) if not name.startswith("_")} - set(api[kind.__name__])
        assert not odd, f"{kind.__name__} of TensorRT {version} has no {odd}"
        setattr(module, kind.__name__, type(kind.__name__, (kind,), {"api": api, "_trt": module}))
    module.Logger = type("Logger", (Logger, module.ILogger), {"api": api, "_trt": module})
    return module


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger(Documented):
    Severity = Severity


class Logger(Documented):
    ERROR = Severity.ERROR

    def __init__(self, severity: Severity = Severity.WARNING) -> None:
        self.min_severity = severity


class IProgressMonitor(Documented):
    pass


class ITimingCache(Documented):
    _trt: Any

    def __init__(self, data: bytes) -> None:
        self._held = json.loads(data) if data else {"version": self._trt.__version__, "kernels": []}

    def combine(self, input_cache: "ITimingCache", ignore_mismatch: bool) -> bool:
        if input_cache._held["version"] != self._held["version"] and not ignore_mismatch:
            return False
        self._held["kernels"] = sorted({*self._held["kernels"], *input_cache._held["kernels"]})
        return True

    def serialize(self) -> bytearray:
        return bytearray(json.dumps(self._held).encode())


class IOptimizationProfile(Documented):
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        if not len(min) == len(opt) == len(max) or not all(
            0 <= a <= b <= c for a, b, c in zip(min, opt, max, strict=True)
        ):
            raise ValueError("inconsistent dimensions")
        self._shapes[input] = [list(min), list(opt), list(max)]


class INetworkDefinition(Documented):
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._file = ""
        self._model: Any = None


class IBuilderConfig(Documented):
    _trt: Any

    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = self._trt.HardwareCompatibilityLevel.NONE
        self.progress_monitor = None
        self._on = {"TF32"}
        self._limits: dict[str, int] = {}
        self._made: list[IOptimizationProfile] = []
        self._cache: Any = None

    def set_flag(self, flag: Any) -> None:
        self._on.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._on.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool.name] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._made.append(profile)
        return len(self._made) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        try:
            return self._trt.ITimingCache(serialized_timing_cache)
        except ValueError:
            return None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._held["version"] != self._trt.__version__ and not ignore_mismatch:
            return False
        self._cache = cache
        return True


class ParserError(Documented):
    def __init__(self, node: Any) -> None:
        self._node = node

    def node_name(self) -> str:
        return str(self._node.name)

    def node_operator(self) -> str:
        return str(self._node.op_type)

    def desc(self) -> str:
        return "Assertion failed: plugin not found"


class OnnxParser(Documented):
    _trt: Any

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        assert isinstance(logger, self._trt.ILogger), "the parser takes a logger of TensorRT's"
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        self._network._model = onnx.load(model)
        self._network._file = model
        unknown = [node for node in self._network._model.graph.node if node.op_type in ("Unique", "NonZero")]
        self._errors = [self._trt.ParserError(node) for node in unknown]
        return not unknown


class Builder(Documented):
    _trt: Any

    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, self._trt.ILogger), "the builder takes a logger of TensorRT's"
        if self._trt.fails == "start":
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        return self._trt.INetworkDefinition(flags)

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        strong = bool(network._flags & (1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)))
        error = self._wrong(network, config, strong)
        if error is not None:
            self._logger.log(Severity.ERROR, error)
            return None
        config.progress_monitor.phase_start("Building Engine", None, 4)
        config.progress_monitor.phase_start("Tactics", "Building Engine", 9)
        config.progress_monitor.step_complete("Tactics", 3)
        config.progress_monitor.step_complete("Building Engine", 1)
        config.progress_monitor.phase_finish("Tactics")
        config.progress_monitor.phase_finish("Building Engine")
        config._cache._held["kernels"] = sorted({*config._cache._held["kernels"], Path(network._file).parents[1].name})
        asked = {
            "onnx": network._file,
            "strong": strong,
            "flags": sorted(config._on),
            "level": config.builder_optimization_level,
            "hardware": config.hardware_compatibility_level.name,
            "limits": config._limits,
            "profiles": [profile._shapes for profile in config._made],
        }
        self._trt.calls.append(asked)
        return json.dumps(asked).encode()

    def _wrong(self, network: Any, config: Any, strong: bool) -> str | None:
        """What the documentation of create_network and set_shape says that a build refuses."""
        if self._trt.fails == "build":
            return "Could not find any implementation for node MatMul"
        if strong and config._on & WEAK_FLAGS:
            return "flags of precision are not allowed in strongly typed networks"
        for value in network._model.graph.input:
            dims = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
            for profile in config._made:
                shapes = profile._shapes.get(value.name)
                if -1 in dims and shapes is None:
                    return f"no shape of {value.name} in a profile"
                for shape in shapes or ():
                    if any(dim not in (-1, size) for dim, size in zip(dims, shape, strict=True)):
                        return f"a fixed size of {value.name} differs"
        return None


class Runtime(Documented):
    _trt: Any

    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, self._trt.ILogger), "the runtime takes a logger of TensorRT's"
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        try:
            asked = json.loads(bytes(serialized_engine))
        except ValueError:
            return None
        if "VERSION_COMPATIBLE" in asked["flags"] and not self.engine_host_code_allowed:
            return None
        return self._trt.ICudaEngine(asked)


class ICudaEngine(Documented):
    _trt: Any

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._weights = None if "STRIP_PLAN" in asked["flags"] else asked["onnx"]
        graph = onnx.load(asked["onnx"]).graph
        self._names = [value.name for value in (*graph.input, *graph.output)]
        self._outputs = [value.name for value in graph.output]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_location(self, tensor_name: str) -> Any:
        return self._trt.TensorLocation.DEVICE

    def create_execution_context(self) -> Any:
        return self._trt.IExecutionContext(self)


class Refitter(Documented):
    def __init__(self, engine: ICudaEngine, logger: Any) -> None:
        self._engine = engine
        self._file: str | None = None

    def get_missing_weights(self) -> list[str]:
        return [] if self._file else ["weights"]

    def refit_cuda_engine(self) -> bool:
        self._engine._weights = self._file
        return self._file is not None


class OnnxParserRefitter(Documented):
    num_errors = 0

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self._refitter = refitter

    def get_error(self, index: int) -> ParserError:
        raise IndexError(index)

    def refit_from_file(self, model: str) -> bool:
        self._refitter._file = model
        return True


class IExecutionContext(Documented):
    def __init__(self, engine: ICudaEngine) -> None:
        assert engine._weights is not None, "the weights were stripped and never put back"
        self._session = onnxruntime.InferenceSession(engine._weights, providers=["CPUExecutionProvider"])
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return profile_index < len(self._engine._asked["profiles"])

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._asked["profiles"][self._profile][name]
        if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory != 0

    def infer_shapes(self) -> list[str]:
        return [name for name in self._names("input") if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._computed(zeros=True)[name].shape

    def execute_async_v3(self, stream_handle: int) -> bool:
        for name, value in self._computed(zeros=False).items():
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
        return True

    def _names(self, kind: str) -> list[str]:
        nodes = self._session.get_inputs() if kind == "input" else self._session.get_outputs()
        return [node.name for node in nodes]

    def _computed(self, *, zeros: bool) -> dict[str, Any]:
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
        feed = {}
        for node in self._session.get_inputs():
            array = np.zeros(self._shapes[node.name], types[node.type])
            if not zeros:
                ctypes.memmove(array.ctypes.data, self._addresses[node.name], array.nbytes)
            feed[node.name] = array
        names = self._names("output")
        return dict(zip(names, self._session.run(names, feed), strict=True))

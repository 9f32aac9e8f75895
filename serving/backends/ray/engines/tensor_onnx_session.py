"""Opens ONNX Runtime sessions as config.pbtxt asks, and runs arrays through them; used by tensor_onnx.

The parameters, defaults and texts are those of the python-based backend that Triton runs
(serving/backends/triton/onnxruntime_backend/model.py), which cannot import anything of ours.
The one invariant: whatever ONNX Runtime raises leaves here as an error of serving.errors.
"""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.engines.tensor_config import Array, asks_for_gpu, number, parameter
from serving.errors import BadInput, EngineFailed, MissingDependency, ReelmeshError, foreign_text

BF16: Final = "tensor(bfloat16)"
STRING: Final = "tensor(string)"
_ONNX_BFLOAT16: Final = 16
"""TensorProto.BFLOAT16."""

CUDA_OPTIONS: Final = (
    "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream",
)  # fmt: skip
CUDA_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
}
"""The native backend's numbers for CUDA options to ONNX Runtime's words."""

Session = Any
NodeArg = Any


def open_session(folder: Path, config: ModelConfig, device: str) -> Session:
    """A session on the model file of a version folder.

    Args:
        folder: the version folder.
        config: names the file (``default_model_filename``), the parameters and the instance group.
        device: ``cpu`` or ``cuda:N``, the replica's own.

    Raises:
        MissingDependency: ONNX Runtime, or its CUDA build, is not installed.
        BadInput: there is no such file, or ONNX Runtime cannot load it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"onnxruntime does not import: {foreign_text(error)}", fix="pip install onnxruntime"
        ) from error
    path = folder / (config.default_model_filename or "model.onnx")
    path = path / path.name if path.is_dir() else path
    if not path.is_file():
        raise BadInput(f"unable to find '{path.name}' in version folder '{folder.name}'", field=config.name)
    providers = execution_providers(onnxruntime.get_available_providers(), config, device)
    options = session_options(onnxruntime, config)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the kinds ONNX Runtime raises share no base class
        raise BadInput(f"onnx runtime cannot load '{path.name}': {foreign_text(error)}", field=config.name) from error


def session_options(onnxruntime: Any, config: ModelConfig) -> Any:  # noqa: ANN401  ONNX Runtime has no types
    """Session options from the parameters that Triton's native backend documents.

    One thread where config.pbtxt says nothing: replicas share a node, and instances are how to use more of it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = number(config, "intra_op_thread_count", 1)
    options.inter_op_num_threads = number(config, "inter_op_thread_count", 1)
    options.log_severity_level = 3
    if parameter(config, "execution_mode", "0") == "1":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(config.optimization.graph.level, levels.ORT_ENABLE_ALL)
    options.enable_mem_pattern = parameter(config, "enable_mem_pattern", "1") != "0"
    options.enable_cpu_mem_arena = parameter(config, "enable_mem_arena", "1") != "0"
    return options


def execution_providers(available: Sequence[str], config: ModelConfig, device: str) -> list[Any]:
    """Where the model runs, most wanted first; a GPU instance needs a CUDA build of ONNX Runtime."""
    wanted = asks_for_gpu(config)
    has_cuda = "CUDAExecutionProvider" in available
    if wanted and not has_cuda:
        raise MissingDependency(
            "instance_group asks for KIND_GPU, but onnxruntime is the CPU build",
            field=config.name,
            fix="pip install onnxruntime-gpu",
        )
    if not wanted:
        return ["CPUExecutionProvider"]
    gpus = [gpu for group in config.instance_group for gpu in group.gpus]
    options = {"device_id": str(gpus[0] if gpus else device.partition(":")[2] or 0)}
    for name in CUDA_OPTIONS:
        if value := parameter(config, name):
            options[name] = CUDA_WORDS.get(name, {}).get(value, value)
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def run(session: Session, names: Sequence[str], feed: Mapping[str, Array], brain_floats: bool) -> list[Array]:
    """The outputs of those names.

    Args:
        session: from :func:`open_session`.
        names: of the outputs.
        feed: arrays by input name.
        brain_floats: whether the model has BF16 tensors, which numpy's own interface of ONNX Runtime cannot carry.

    Raises:
        BadInput: ONNX Runtime calls an argument invalid.
        EngineFailed: anything else went wrong.
    """
    try:
        if not brain_floats:
            outputs: list[Array] = session.run(names, feed)
            return outputs
        values = {name: _value(array) for name, array in feed.items()}
        return [_array(value) for value in session.run_with_ort_values(names, values)]
    except Exception as error:  # the kinds ONNX Runtime raises share no base class
        raise onnx_error(error) from error


def onnx_error(error: Exception) -> ReelmeshError:
    """What ONNX Runtime raised, as the caller's fault or as ours."""
    kind = BadInput if "InvalidArgument" in type(error).__name__ else EngineFailed
    return kind(f"onnx runtime error: {foreign_text(error)}")


def _value(array: Array) -> Any:  # noqa: ANN401  ONNX Runtime has no types
    from onnxruntime import OrtValue

    if array.dtype == ml_dtypes.bfloat16:
        return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _ONNX_BFLOAT16)
    return OrtValue.ortvalue_from_numpy(array)


def _array(value: Any) -> Array:  # noqa: ANN401  ONNX Runtime has no types
    if value.data_type() != BF16:
        found: Array = value.numpy()
        return found
    # ONNX Runtime has no numpy type for it, so the bytes are read where they lie.
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, dtype=ml_dtypes.bfloat16).reshape(value.shape())

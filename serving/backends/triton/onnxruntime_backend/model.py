"""Triton's ``onnxruntime`` backend in Python; started by tritonserver, one process per model instance.

Triton calls this a python-based backend: where its native ONNX Runtime backend is missing (the wheel has the
python backend alone) this file runs the same config.pbtxt, with the same parameters and wording of errors.
The one invariant: it imports nothing of the mesh, since it runs in Triton's process tree, not in ours.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import triton_python_backend_utils as pb_utils

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]
# Objects of pb_utils and of ONNX Runtime, neither of which has types.
ModelConfig = Any
Request = Any
Response = Any
Module = Any
Session = Any
SessionOptions = Any
NodeArg = Any

DEFAULT_MAX_BATCH_SIZE: Final = 4
"""Triton's own ``default-max-batch-size``, for models whose config.pbtxt names no tensors."""

DATATYPES: Final = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
"""ONNX Runtime's names of datatypes to config.pbtxt's."""


class TritonPythonModel:
    """One instance of one model; Triton creates it and calls it from one thread."""

    @staticmethod
    def auto_complete_config(config: ModelConfig) -> ModelConfig:
        """Fill in inputs, outputs and batching from the ONNX file, where config.pbtxt leaves them out."""
        known = config.as_dict()
        if known.get("input") and known.get("output"):
            return config
        session = open_session(Path(pb_utils.get_model_dir()), known, kind="CPU", device=0)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        batched = not (known.get("input") or known.get("output")) and all(
            tensor.shape and not isinstance(tensor.shape[0], int) for tensor in [*inputs, *outputs]
        )
        if batched:
            config.set_max_batch_size(known.get("max_batch_size") or DEFAULT_MAX_BATCH_SIZE)
            config.set_dynamic_batching()
        for tensor in inputs:
            config.add_input(describe(tensor, batched=config.as_dict().get("max_batch_size", 0) > 0))
        for tensor in outputs:
            config.add_output(describe(tensor, batched=config.as_dict().get("max_batch_size", 0) > 0))
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model's file and check config.pbtxt against it."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = open_session(
            folder, config, kind=args["model_instance_kind"], device=int(args["model_instance_device_id"])
        )
        self.batching = int(config.get("max_batch_size", 0)) > 0
        # Initializers that may be overridden are what ONNX has for optional inputs.
        inputs = [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        check_tensors(args["model_name"], "input", config["input"], inputs, self.batching)
        outputs = self.session.get_outputs()
        check_tensors(args["model_name"], "output", config["output"], outputs, self.batching)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.strings = {tensor.name for tensor in inputs if tensor.type == "tensor(string)"}
        self.outputs = {tensor["name"] for tensor in config["output"]}
        self.words = {tensor.name for tensor in outputs if tensor.type == "tensor(string)"}

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """Answer what the scheduler batched together, in order."""
        if len(requests) == 1 or not self.batching:
            return [self._answer_one(request) for request in requests]
        feeds = [self._feed(request) for request in requests]
        responses: list[Response] = [feed if not isinstance(feed, dict) else None for feed in feeds]
        for group in alike(feeds):
            chosen = [requests[place] for place in group]
            answers = self._answer_group(chosen, [feeds[place] for place in group])
            for place, answer in zip(group, answers, strict=True):
                responses[place] = answer
        return responses

    def finalize(self) -> None:
        """Free the session."""
        del self.session

    def _answer_one(self, request: Request) -> Response:
        feed = self._feed(request)
        return self._run(request, feed) if isinstance(feed, dict) else feed

    def _answer_group(self, requests: list[Request], feeds: list[Arrays]) -> list[Response]:
        """Run alike requests as one batch; when it fails, each alone, so that none fails for its neighbour."""
        sizes = [next(iter(feed.values())).shape[0] for feed in feeds]
        wanted = [request.requested_output_names() for request in requests]
        names = wanted[0] if all(each == wanted[0] for each in wanted) else sorted(set(chain.from_iterable(wanted)))
        try:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            outputs = self._outputs(names, joined)
            if any(array.ndim == 0 or array.shape[0] != sum(sizes) for array in outputs.values()):
                raise ValueError("an output does not have the batch as its first dimension")
        except Exception:  # whatever ONNX Runtime raises; _run reports it for the request that caused it
            return [self._run(request, feed) for request, feed in zip(requests, feeds, strict=True)]
        ends = list(accumulate(sizes))
        return [
            self._respond({name: outputs[name][end - size : end] for name in names})
            for names, size, end in zip(wanted, sizes, ends, strict=True)
        ]

    def _run(self, request: Request, feed: Arrays) -> Response:
        try:
            return self._respond(self._outputs(request.requested_output_names(), feed))
        except Exception as error:  # the kinds ONNX Runtime raises share no base class
            return fail(f"onnx runtime error: {error}", invalid="InvalidArgument" in type(error).__name__)

    def _outputs(self, names: Iterable[str], feed: Arrays) -> Arrays:
        wanted = [name for name in names if name in self.outputs]
        return dict(zip(wanted, self.session.run(wanted, feed), strict=True))

    def _respond(self, outputs: Arrays) -> Response:
        """A response with the outputs; of what ONNX Runtime gives, parts of a batch too, all is contiguous."""
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, encoded(array) if name in self.words else array) for name, array in outputs.items()]
        )

    def _feed(self, request: Request) -> Arrays | Response:
        """The request's tensors by name, leaving out optional ones that are absent; or the error response."""
        feed: Arrays = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                continue
            array = tensor.as_numpy()
            if name in self.strings:
                try:
                    array = decoded(array)
                except UnicodeDecodeError:
                    return fail(f"input '{name}' holds a string that is not UTF-8", invalid=True)
            feed[name] = array
        return feed


def open_session(folder: Path, config: Config, *, kind: str, device: int) -> Session:
    """An ONNX Runtime session on the model file of a version folder, on the instance's device."""
    try:
        import onnxruntime
    except ImportError as error:
        raise pb_utils.TritonModelException(f"onnxruntime does not import: {error}; pip install onnxruntime") from error
    path = folder / (config.get("default_model_filename") or "model.onnx")
    path = path / path.name if path.is_dir() else path
    if not path.is_file():
        raise pb_utils.TritonModelException(f"unable to find '{path.name}' in version folder '{folder.name}'")
    providers = execution_providers(onnxruntime.get_available_providers(), config, kind=kind, device=device)
    try:
        return onnxruntime.InferenceSession(str(path), session_options(onnxruntime, config), providers=providers)
    except Exception as error:  # the kinds ONNX Runtime raises share no base class
        raise pb_utils.TritonModelException(f"onnx runtime cannot load '{path.name}': {error}") from error


def session_options(onnxruntime: Module, config: Config) -> SessionOptions:
    """Session options from the parameters that Triton's native backend documents.

    One thread where config.pbtxt says nothing: replicas share a node, and instances are how to use more of it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(parameter(config, "intra_op_thread_count", "1"))
    options.inter_op_num_threads = int(parameter(config, "inter_op_thread_count", "1"))
    options.log_severity_level = 3
    if parameter(config, "execution_mode", "0") == "1":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(config.get("optimization", {}).get("graph", {}).get("level", 0), levels.ORT_ENABLE_ALL)
    if parameter(config, "enable_mem_pattern", "1") == "0":
        options.enable_mem_pattern = False
    if parameter(config, "enable_mem_arena", "1") == "0":
        options.enable_cpu_mem_arena = False
    return options


def execution_providers(available: Sequence[str], config: Config, *, kind: str, device: int) -> list[Any]:
    """Where the model runs, most wanted first; a GPU instance needs a CUDA build of ONNX Runtime."""
    if kind != "GPU":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise pb_utils.TritonModelException(
            "instance_group asks for KIND_GPU, but onnxruntime is the CPU build; pip install onnxruntime-gpu"
        )
    options = {"device_id": str(device)}
    for name in CUDA_OPTIONS:
        value = parameter(config, name, "")
        if value:
            options[name] = CUDA_WORDS.get(name, {}).get(value, value)
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


CUDA_OPTIONS: Final = (
    "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream",
)  # fmt: skip
CUDA_WORDS: Final = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
}
"""The native backend's numbers for CUDA options to ONNX Runtime's words."""


def parameter(config: Config, name: str, default: str) -> str:
    """A ``parameters`` entry of config.pbtxt."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value") or default)


def describe(tensor: NodeArg, *, batched: bool) -> dict[str, Any]:
    """An ONNX input or output as config.pbtxt writes it; ``batched`` leaves the first dimension out."""
    if tensor.type not in DATATYPES:
        raise pb_utils.TritonModelException(f"tensor '{tensor.name}' has unsupported type {tensor.type}")
    return {
        "name": tensor.name,
        "data_type": DATATYPES[tensor.type],
        "dims": dimensions(tensor)[1 if batched else 0 :],
    }


def dimensions(tensor: NodeArg) -> list[int]:
    """The shape of an ONNX tensor with -1 for what is not fixed."""
    return [size if isinstance(size, int) else -1 for size in tensor.shape]


def check_tensors(model: str, kind: str, configured: list[Config], tensors: Sequence[Any], batching: bool) -> None:
    """Raise unless config.pbtxt names the file's tensors with fitting types and shapes."""
    by_name = {tensor.name: tensor for tensor in tensors}
    for entry in configured:
        name = entry["name"]
        if name not in by_name:
            raise pb_utils.TritonModelException(
                f"unexpected inference {kind} '{name}', allowed {kind}s are: {', '.join(sorted(by_name))}"
            )
        tensor = by_name[name]
        if DATATYPES.get(tensor.type) != entry["data_type"]:
            raise pb_utils.TritonModelException(
                f"model '{model}', {kind} '{name}': config.pbtxt says {entry['data_type']}, "
                f"the file has {DATATYPES.get(tensor.type, tensor.type)}"
            )
        said = [int(size) for size in (entry.get("reshape") or {"shape": entry["dims"]}).get("shape", [])]
        said = [-1, *said] if batching else said
        have = dimensions(tensor)
        fits = len(said) == len(have) and all(a in (-1, b) or b == -1 for a, b in zip(said, have, strict=True))
        if not fits:
            raise pb_utils.TritonModelException(
                f"model '{model}', {kind} '{name}': the model expects {len(have)} dimensions (shape {have}) "
                f"but the model configuration specifies {len(said)} dimensions (shape {said})"
            )


def alike(feeds: Sequence[Arrays | Any]) -> list[list[int]]:
    """Places of the feeds that can be concatenated: the same tensors with the same shape after the batch."""
    groups: dict[object, list[int]] = {}
    for place, feed in enumerate(feeds):
        if isinstance(feed, dict):
            key = tuple([(name, array.shape[1:]) for name, array in feed.items()])
            groups.setdefault(key, []).append(place)
    return list(groups.values())


def decoded(array: np.ndarray) -> np.ndarray:
    """Triton's bytes as the str that ONNX Runtime takes."""
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in array.reshape(-1)]
    return np.array(words, dtype=object).reshape(array.shape)


def encoded(array: np.ndarray) -> np.ndarray:
    """ONNX Runtime's str as Triton's bytes."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in array.reshape(-1)]
    return np.array(words, dtype=object).reshape(array.shape)


def fail(message: str, *, invalid: bool) -> Response:
    """A response that says what went wrong, as the caller's fault or as ours."""
    kind = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, kind))

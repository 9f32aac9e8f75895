"""Makes a Triton model repository for tests: the folders of triton_repository, ONNX files, and twins for Ray.

A twin is the same folder under NAME_ray with one line changed: ``backend: "ray"``.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SOURCE = Path(__file__).parent / "triton_repository"
ENSEMBLES = ("simple_ensemble",)
MODELS = tuple(sorted(folder.name for folder in SOURCE.iterdir()))
TWINS = tuple(f"{name}_ray" for name in MODELS if name not in ENSEMBLES)


def write_models(repository: Path, names: Sequence[str] = (*MODELS, *TWINS)) -> Path:
    """Write some models, by default all of them, into a repository; returns it."""
    for name in names:
        write_model(repository, name)
    return repository


def write_model(repository: Path, name: str, config: str = "") -> Path:
    """Write one model, with more lines for its configuration; its folder appears whole."""
    source = name.removesuffix("_ray")
    being_made = repository.parent / f"{repository.name}.{name}"
    shutil.copytree(SOURCE / source, being_made, ignore=shutil.ignore_patterns("__pycache__"))
    text = (being_made / "config.pbtxt").read_text()
    if name != source:
        text = re.sub(r'^backend: ".*"$', 'backend: "ray"', text, flags=re.M)
    (being_made / "config.pbtxt").write_text(text + config)
    (being_made / "1").mkdir(exist_ok=True)
    if make := ONNX.get(source):
        onnx.save(make(), being_made / "1" / "model.onnx")
    repository.mkdir(exist_ok=True)
    return being_made.rename(repository / name)


def add_and_subtract() -> onnx.ModelProto:
    tensors = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", 16]) for name in ADD_SUB]
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return model(nodes, tensors[:2], tensors[2:])


ADD_SUB = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")


def mlp_weights() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(16, 16)).astype(np.float32)


def mlp() -> onnx.ModelProto:
    given, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 16]) for name in "XY")
    nodes = [helper.make_node("MatMul", ["X", "W"], ["H"]), helper.make_node("Relu", ["H"], ["Y"])]
    return model(nodes, [given], [answer], [numpy_helper.from_array(mlp_weights(), "W")])


def classifier() -> onnx.ModelProto:
    """Scores are the means of red, green and blue, and half their mean for grey."""
    image = helper.make_tensor_value_info("IMAGE", TensorProto.FLOAT, ["batch", 3, 4, 4])
    scores = helper.make_tensor_value_info("SCORES", TensorProto.FLOAT, ["batch", 4])
    mix = np.concatenate([np.eye(3), np.full((3, 1), 1 / 6)], axis=1).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["IMAGE"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "M"], ["SCORES"]),
    ]
    return model(nodes, [image], [scores], [numpy_helper.from_array(mix, "M")])


def model(nodes: list, inputs: list, outputs: list, constants: list | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


ONNX: dict[str, Callable[[], onnx.ModelProto]] = {"simple": add_and_subtract, "mlp": mlp, "classifier": classifier}

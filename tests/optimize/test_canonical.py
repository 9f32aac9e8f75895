from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimize.canonical import save_canonical


def branches() -> ModelProto:
    """A graph whose weights are read by the body of a branch alone, and one tensor by nobody."""

    def body(operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])
        return helper.make_graph([helper.make_node(operator, ["x", "weight"], ["out"])], "body", [], [out])

    node = helper.make_node("If", ["flag"], ["y"], then_branch=body("Add"), else_branch=body("Mul"))
    interface = [
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    tensors = [numpy_helper.from_array(np.full(2, 3, np.float32), name) for name in ("weight", "nobody")]
    graph = helper.make_graph([node], "g", interface, [out], tensors)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def test_weights_of_a_branch_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    save_canonical(branches(), file)
    assert [tensor.name for tensor in onnx.load(file).graph.initializer] == ["weight"]
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = np.array([1, 2], np.float32)
    np.testing.assert_array_equal(session.run(None, {"flag": np.array(True), "x": x})[0], x + 3)
    np.testing.assert_array_equal(session.run(None, {"flag": np.array(False), "x": x})[0], x * 3)


def test_what_is_no_onnx_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    save_canonical(branches(), file)
    before = file.read_bytes()
    broken = branches()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        save_canonical(broken, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]

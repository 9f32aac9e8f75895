from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimize.external import ALIGNMENT_BYTES, check_file, data_file, save
from serving.errors import BadInput

RANDOM = np.random.default_rng(0)
WEIGHTS = {name: RANDOM.standard_normal((600, 600)).astype(np.float32) for name in ("w2", "w1", "w3")}


def model(weights: dict[str, np.ndarray] | None = None) -> ModelProto:
    """A product of matrices, each over 1 MiB, with a scalar."""
    tensors = weights or WEIGHTS
    values = ["x", *(f"h{index}" for index in range(len(tensors)))]
    products = [helper.make_node("MatMul", [values[i], name], [values[i + 1]]) for i, name in enumerate(tensors)]
    nodes = [*products, helper.make_node("Add", [values[-1], "one"], ["y"])]
    interface = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 600]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", interface[:1], interface[1:])
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
    graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    assert save(onnx_ir.from_proto(model()), file, external_above=1000)
    return file


def run(file: Path) -> np.ndarray:
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((2, 600), np.float32)})[0]


def places(file: Path) -> dict[str, dict[str, str]]:
    graph = onnx.load(file, load_external_data=False).graph
    return {t.name: {e.key: e.value for e in t.external_data} for t in graph.initializer if t.external_data}


def test_large_weights_lie_beside_the_graph_sorted_and_aligned(saved: Path) -> None:
    offsets = {name: int(place.get("offset", 0)) for name, place in places(saved).items()}
    assert list(offsets) == ["w1", "w2", "w3"] == sorted(offsets, key=offsets.__getitem__)
    assert [offset % ALIGNMENT_BYTES for offset in offsets.values()] == [0, 0, 0]
    assert saved.stat().st_size < 2000
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_both_ways_compute_the_same(saved: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.onnx"
    assert not save(onnx_ir.from_proto(model()), whole)
    np.testing.assert_array_equal(run(saved), run(whole))
    assert check_file(whole) == ()
    assert check_file(saved) == (data_file(saved),)


def test_the_order_in_which_tensors_come_changes_no_byte(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "model.onnx"
    other.parent.mkdir()
    shuffled = model()
    tensors = list(shuffled.graph.initializer)
    del shuffled.graph.initializer[:]
    shuffled.graph.initializer.extend(reversed(tensors))
    save(onnx_ir.from_proto(shuffled), other, external_above=1000)
    assert other.read_bytes() == saved.read_bytes()
    assert data_file(other).read_bytes() == data_file(saved).read_bytes()


def test_writing_is_told(tmp_path: Path) -> None:
    steps: list[str] = []
    save(onnx_ir.from_proto(model()), tmp_path / "model.onnx", external_above=1000, notify=steps.append)
    assert steps == ["write 1/3", "write 2/3", "write 3/3"]


def test_what_is_no_onnx_leaves_no_file(tmp_path: Path) -> None:
    broken = model()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        save(onnx_ir.from_proto(broken), tmp_path / "model.onnx", external_above=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_data_takes_an_old_one_away(saved: Path) -> None:
    save(onnx_ir.from_proto(model()), saved)
    assert not data_file(saved).exists()
    assert check_file(saved) == ()


def refused(file: Path) -> str:
    with pytest.raises(BadInput) as raised:
        check_file(file)
    assert raised.value.field == str(file)
    assert raised.value.fix
    return raised.value.problem


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "model.onnx") == "is not there"


def test_a_file_over_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with file.open("wb") as stream:
        stream.truncate(2**31)
    assert refused(file) == "holds 2.1 GB: protobuf reads 2 GB, so its weights must lie beside it"


@pytest.mark.parametrize("content", [b"", b"half a file", b"\x00" * 64], ids=["empty", "text", "zeros"])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    assert refused(file).startswith("is no ONNX")


def test_missing_weights_are_refused(saved: Path) -> None:
    data_file(saved).unlink()
    assert refused(saved) == "the weights are missing: tensor 'w1' lies in model.onnx.data"


def test_weights_that_were_cut_short_are_refused(saved: Path) -> None:
    size = data_file(saved).stat().st_size
    with data_file(saved).open("r+b") as stream:
        stream.truncate(size - 1)
    assert refused(saved) == f"model.onnx.data has {size - 1} bytes, tensor 'w3' ends at {size}: it was cut short"


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/hostname", "", "a/../../b"])
def test_data_outside_the_folder_is_refused(saved: Path, location: str) -> None:
    changed = onnx.load(saved, load_external_data=False)
    assert changed.graph.initializer[1].name == "w1"
    for entry in changed.graph.initializer[1].external_data:
        if entry.key == "location":
            entry.value = location
    saved.write_bytes(changed.SerializeToString())
    assert refused(saved).startswith("tensor ")


def test_a_link_out_of_the_folder_is_refused(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = data_file(saved).rename(tmp_path_factory.mktemp("elsewhere") / "weights")
    data_file(saved).symlink_to(elsewhere)
    assert "outside the model's folder" in refused(saved)


@pytest.mark.parametrize(("key", "value"), [("offset", "many"), ("length", "-5"), ("length", "7"), ("offset", "-4")])
def test_places_that_make_no_sense_are_refused(saved: Path, key: str, value: str) -> None:
    changed = onnx.load(saved, load_external_data=False)
    tensor = changed.graph.initializer[2]
    kept = {**{e.key: e.value for e in tensor.external_data}, key: value}
    del tensor.external_data[:]
    for name, content in kept.items():
        tensor.external_data.add(key=name, value=content)
    saved.write_bytes(changed.SerializeToString())
    assert refused(saved).startswith("tensor 'w2' lies")


def test_weights_in_the_body_of_a_branch_are_checked(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.ones(4, np.float32), "inner")
    onnx.external_data_helper.set_external_data(value, "gone.data", 0, 16)
    value.ClearField("raw_data")
    body = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["out"])],
        "body",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])],
        [value],
    )
    node = helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    file = tmp_path / "model.onnx"
    file.write_bytes(helper.make_model(helper.make_graph([node], "g", [flag], [out])).SerializeToString())
    assert refused(file) == "the weights are missing: tensor 'inner' lies in gone.data"


def test_numbers_of_four_bits_take_half_a_byte(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    value = helper.make_tensor("w", TensorProto.INT4, [3], b"\x21\x03", raw=True)
    (tmp_path / "model.onnx.data").write_bytes(value.raw_data)
    onnx.external_data_helper.set_external_data(value, "model.onnx.data", 0, 2)
    value.ClearField("raw_data")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    scale = numpy_helper.from_array(np.float32(1), "scale")
    graph = helper.make_graph([helper.make_node("DequantizeLinear", ["w", "scale"], ["y"])], "g", [], [out])
    graph.initializer.extend([value, scale])
    file.write_bytes(helper.make_model(graph).SerializeToString())
    assert check_file(file) == (tmp_path / "model.onnx.data",)

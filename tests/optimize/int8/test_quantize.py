import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from optimize.int8 import graph
from optimize.int8.graph import Mode
from optimize.int8.measure import Runner
from optimize.int8.quantize import quantize
from serving.errors import BadInput, EngineFailed
from tests.optimize.int8.graphs import convolutions, transformer, write

KERNELS: dict[Mode, str] = {"static": "QuantizeLinear", "dynamic": "MatMulInteger", "weight_only": "MatMulNBits"}
LAYERS = ("query", "key", "value", "out", "outlier", "last")


def operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


@pytest.mark.parametrize("mode", KERNELS)
def test_a_layer_that_reads_outliers_stays_in_float_and_quality_is_kept(tmp_path: Path, mode: Mode) -> None:
    feeds, target = transformer(tmp_path / "float.onnx"), tmp_path / "deep" / "model.onnx"
    bound = 42 if mode == "weight_only" else 28
    steps: list[str] = []
    done = quantize(tmp_path / "float.onnx", target, feeds, mode=mode, bound=bound, notify=steps.append)
    assert done.trials[0].quality < bound <= done.quality
    assert done.nodes_quantized + len(done.kept_float) == len(LAYERS)
    assert done.nodes_quantized >= 2
    if mode != "weight_only":  # it scales an activation by its own row
        assert done.kept_float == ("outlier",)
        assert done.sensitivity[0].nodes == ("outlier",)
    found = operators(target)
    assert found[KERNELS[mode]] >= 1
    assert (found["Softmax"], found["LayerNormalization"]) == (1, 1)
    assert steps[0] == "prepare" and steps[-1] == "write"
    assert done.bytes == target.stat().st_size < (tmp_path / "float.onnx").stat().st_size
    got = Runner(target).run(feeds[0])["y"]
    assert got.shape == feeds[0]["x"].shape


@pytest.mark.parametrize(("mode", "depends"), [("static", False), ("dynamic", True), ("weight_only", False)])
def test_only_dynamic_ranges_depend_on_the_rest_of_the_batch(tmp_path: Path, mode: Mode, depends: bool) -> None:
    feeds = transformer(tmp_path / "float.onnx")
    quantize(tmp_path / "float.onnx", tmp_path / "model.onnx", feeds, mode=mode, bound=28)
    runner, one = Runner(tmp_path / "model.onnx"), feeds[0]["x"]
    alone = runner.run({"x": one})["y"]
    together = runner.run({"x": np.concatenate([one, one * 3])})["y"][:1]
    assert np.allclose(alone, together, rtol=0, atol=1e-4 * np.abs(alone).max()) is not depends


def test_products_of_activations_are_no_candidates(tmp_path: Path) -> None:
    feeds = transformer(tmp_path / "float.onnx")
    done = quantize(tmp_path / "float.onnx", tmp_path / "model.onnx", feeds, mode="dynamic", bound=-100)
    assert done.nodes_quantized == len(LAYERS)
    assert {"scores", "mix"} <= {node.name for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_convolutions_get_ranges_of_real_calls_and_batch_norms_are_folded(tmp_path: Path) -> None:
    feeds = convolutions(tmp_path / "float.onnx")
    done = quantize(tmp_path / "float.onnx", tmp_path / "model.onnx", feeds, mode="static", bound=20)
    found = operators(tmp_path / "model.onnx")
    assert (done.nodes_quantized, done.kept_float) == (3, ())
    assert found["BatchNormalization"] == found["Gemm"] == 0
    assert (found["Conv"], found["MatMul"]) == (2, 1)
    weights = {tensor.name: tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    kernels = [weights[name] for name in weights if name.startswith("k2") and name.endswith("_quantized")]
    assert [tensor.data_type for tensor in kernels] == [onnx.TensorProto.INT8]
    assert weights["k2_scale"].dims == [16]


@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
def test_a_gemm_becomes_int8_and_convolutions_do_not(tmp_path: Path, mode: Mode) -> None:
    feeds = convolutions(tmp_path / "float.onnx")
    done = quantize(tmp_path / "float.onnx", tmp_path / "model.onnx", feeds, mode=mode, bound=20)
    assert done.nodes_quantized == 1
    assert operators(tmp_path / "model.onnx")["Conv"] == 2


def test_a_bound_out_of_reach_writes_nothing_and_says_the_best(tmp_path: Path) -> None:
    feeds, target = transformer(tmp_path / "float.onnx"), tmp_path / "model.onnx"
    with pytest.raises(EngineFailed) as caught:
        quantize(tmp_path / "float.onnx", target, feeds, mode="dynamic", bound=200)
    assert "5 of 6 layers in float (" in caught.value.problem
    assert "outlier" in caught.value.problem and "200 is wanted" in caught.value.problem
    assert caught.value.field == "int8"
    assert not target.exists()


def test_an_older_file_survives_a_search_that_fails(tmp_path: Path) -> None:
    feeds, target = transformer(tmp_path / "float.onnx"), tmp_path / "model.onnx"
    target.write_bytes(b"older")
    with pytest.raises(EngineFailed):
        quantize(tmp_path / "float.onnx", target, feeds, mode="static", bound=1, quality=lambda file: float("nan"))
    assert target.read_bytes() == b"older"


def test_a_score_of_the_task_decides_where_it_is_given(tmp_path: Path) -> None:
    feeds = transformer(tmp_path / "float.onnx")

    def score(file: Path) -> float:
        return float("outlier" in {node.name for node in onnx.load(file).graph.node})

    done = quantize(tmp_path / "float.onnx", tmp_path / "model.onnx", feeds, mode="dynamic", bound=1, quality=score)
    assert (done.quality, done.kept_float) == (1, ("outlier",))


@pytest.mark.parametrize("mode", KERNELS)
def test_the_same_file_and_feeds_give_the_same_bytes(tmp_path: Path, mode: Mode) -> None:
    """Once here, once in a process that hashes strings differently."""
    feeds = transformer(tmp_path / "float.onnx")
    quantize(tmp_path / "float.onnx", tmp_path / "first.onnx", feeds, mode=mode, bound=28)
    np.savez(tmp_path / "feeds.npz", **{str(index): feed["x"] for index, feed in enumerate(feeds)})
    again = """
import sys, pathlib, numpy
from optimize.int8.quantize import quantize
folder = pathlib.Path(sys.argv[1])
feeds = [{"x": array} for array in numpy.load(folder / "feeds.npz").values()]
quantize(folder / "float.onnx", folder / "second.onnx", feeds, mode=sys.argv[2], bound=28)
"""
    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", again, str(tmp_path), mode], check=True, env=env)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


@pytest.mark.parametrize("mode", KERNELS)
def test_large_weights_go_beside_the_file(tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "INLINE_BYTES", 16 << 10)
    feeds, source = transformer(tmp_path / "float.onnx"), tmp_path / "big.onnx"
    onnx.save_model(onnx.load(tmp_path / "float.onnx"), source, save_as_external_data=True, location="weights.bin")
    done = quantize(source, tmp_path / "out" / "part.onnx", feeds, mode=mode, bound=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["part.onnx", "part.onnx.data"]
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert np.isfinite(Runner(tmp_path / "out" / "part.onnx").run(feeds[1])["y"]).all()


def test_weights_of_seven_bits_are_made_for_processors_that_saturate(tmp_path: Path) -> None:
    feeds = convolutions(tmp_path / "float.onnx")
    quantize(tmp_path / "float.onnx", tmp_path / "m.onnx", feeds, mode="static", bound=10, reduce_range=True)
    tensors = [t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name == "k2_quantized"]
    assert np.abs(onnx.numpy_helper.to_array(tensors[0]).astype(int)).max() == 64


@pytest.mark.parametrize(
    "case", ["no file", "no onnx", "no weights beside it", "half precision", "no constant weights"]
)
def test_files_that_cannot_be_quantised_are_refused(tmp_path: Path, case: str) -> None:
    source = tmp_path / "float.onnx"
    feeds = convolutions(source, np.float16 if case == "half precision" else np.float32)
    match case:
        case "no file":
            source.unlink()
        case "no onnx":
            source.write_bytes(b"\x08\xff" * 40)
        case "no weights beside it":
            model = onnx.load(source)
            onnx.save_model(model, source, save_as_external_data=True, location="gone.data", size_threshold=0)
            (tmp_path / "gone.data").unlink()
        case "no constant weights":
            node = onnx.helper.make_node("Relu", ["x"], ["y"])
            shape = ["batch", 3, "height", 12]
            write(source, [node], {}, [("x", onnx.TensorProto.FLOAT, shape)], [("y", onnx.TensorProto.FLOAT, shape)])
    with pytest.raises((BadInput, EngineFailed)) as caught:
        quantize(source, tmp_path / "model.onnx", feeds, mode="static", bound=20)
    assert caught.value.field == str(source)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("mode", "bound", "field"),
    [pytest.param("int4", 20.0, "mode", id="a mode"), pytest.param("static", float("nan"), "bound", id="a bound")],
)
def test_arguments_without_meaning_are_refused(tmp_path: Path, mode: Mode, bound: float, field: str) -> None:
    feeds = convolutions(tmp_path / "float.onnx")
    with pytest.raises(BadInput) as caught:
        quantize(tmp_path / "float.onnx", tmp_path / "model.onnx", feeds, mode=mode, bound=bound)
    assert caught.value.field == field
    assert caught.value.fix

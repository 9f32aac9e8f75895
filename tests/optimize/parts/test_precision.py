"""Half precision for the time of an export, weights that prove nothing, and exports that are found again."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import optimize
from optimize.int8.cpu import this_cpu_has_dot_product
from optimize.parts import fingerprint
from optimize.parts.part import Part
from optimize.parts.precision import at_border, check_weights, in_precision
from serving.backends.ray import engines
from serving.errors import BadInput
from serving.protocol.tasks import ImageRequest
from serving.repository.load import load_repository
from serving.repository.part_file import PartTensor

MODELS = Path(__file__).parents[3] / "model_repository"
ENGINES = Path(engines.__file__).parent
OPTIMIZE = Path(optimize.__file__).parent


def test_a_module_has_its_own_numbers_again_after_an_export_in_half_precision() -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with in_precision(layer, "fp16"):
        assert layer[0].weight.dtype == torch.float16
        assert layer[1].num_batches_tracked.dtype == torch.int64
    after = layer.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_timesteps_keep_their_fractions() -> None:
    states = PartTensor(name="sample", dtype="float32", axes=["batch", 4])
    times = PartTensor(name="timestep", dtype="float32", axes=[1], scalar=True)
    ids = PartTensor(name="input_ids", dtype="int64", axes=["batch", 77])
    assert [at_border(tensor, "fp16").dtype for tensor in (states, times, ids)] == ["float16", "float32", "int64"]


def test_weights_of_zeros_are_named() -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    check_weights(layer, "unet")
    with torch.no_grad():
        layer[1].weight.zero_()
    with pytest.raises(BadInput, match=r"unet: weights are all zeros, so parity would prove nothing: 1\.weight"):
        check_weights(layer, "unet")


def test_a_declaration_names_every_axis() -> None:
    part = Part(at="unet", axes={"sample": "batch _ height *", "residuals.*": "batch *"})
    assert part.dynamic("sample", 4) == {0: "batch", 2: "height", 3: "sample_3"}
    assert part.dynamic("residuals.3", 2) == {0: "batch", 1: "residuals_3_1"}
    assert part.dynamic("timestep", 0) == {}
    with pytest.raises(BadInput, match=r"declared as 'batch _ height \*', and it has 3 axes"):
        part.dynamic("sample", 3)


def test_int8_is_bounded_by_its_noise() -> None:
    assert Part(at="unet", decibels=40).tolerance("int8") == pytest.approx(0.1)
    assert Part(at="unet", tolerances={"fp16": 1e-3}).tolerance("fp16") == 1e-3


def test_whatever_decides_an_export_changes_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, asked, card = Part(at="unet"), [ImageRequest(prompt="a boat")], load_repository([MODELS]).get("wav2lip").card
    base = fingerprint.fingerprint_of(part, "fp32", asked, card, "w", 20)
    same = [ImageRequest(prompt="a boat")]
    assert base == fingerprint.fingerprint_of(Part(at="unet"), "fp32", same, card.model_copy(), "w", 20)
    others = [
        fingerprint.fingerprint_of(Part(at="unet", fixes=("cat",)), "fp32", asked, card, "w", 20),
        fingerprint.fingerprint_of(part, "fp16", asked, card, "w", 20),
        fingerprint.fingerprint_of(part, "fp32", [ImageRequest(prompt="a ship")], card, "w", 20),
        fingerprint.fingerprint_of(part, "fp32", asked, card, "v", 20),
        fingerprint.fingerprint_of(part, "fp32", asked, card, "w", 21),
        fingerprint.fingerprint_of(part, "fp32", asked, card.model_copy(update={"options": {"size": 1}}), "w", 20),
        fingerprint.fingerprint_of(
            part, "fp32", asked, card.model_copy(update={"engine": "sadtalker", "task": "face_motion"}), "w", 20
        ),
    ]
    shutil.copytree(ENGINES, tmp_path / "engines")
    monkeypatch.setattr(fingerprint.engines, "__file__", str(tmp_path / "engines/__init__.py"))
    assert fingerprint.fingerprint_of(part, "fp32", asked, card, "w", 20) == base
    for file in ("wav2lip.py", "networks/wav2lip.py", "network/engine.py"):
        with (tmp_path / "engines" / file).open("a") as source:
            source.write("# changed\n")
        others.append(fingerprint.fingerprint_of(part, "fp32", asked, card, "w", 20))
    assert len({base, *others}) == 11


def test_int8_rests_on_its_own_sources_and_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, asked = load_repository([MODELS]).get("wav2lip").card, [ImageRequest(prompt="a boat")]

    def prints() -> list[str]:
        return [fingerprint.fingerprint_of(Part(at="unet"), of, asked, card, "w", 20) for of in ("fp32", "int8")]

    float_before, int8_before = prints()
    monkeypatch.setattr(fingerprint, "this_cpu_has_dot_product", lambda: not this_cpu_has_dot_product())
    float_elsewhere, int8_elsewhere = prints()
    monkeypatch.undo()
    shutil.copytree(OPTIMIZE, tmp_path / "optimize")
    monkeypatch.setattr(fingerprint.optimize, "__file__", str(tmp_path / "optimize/__init__.py"))
    with (tmp_path / "optimize/int8/methods.py").open("a") as source:
        source.write("# changed\n")
    float_after, int8_after = prints()
    assert float_before == float_elsewhere == float_after
    assert len({int8_before, int8_elsewhere, int8_after}) == 3


def test_kept_exports_are_found_again_and_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "exports_folder", lambda: tmp_path / "exports")
    monkeypatch.setattr(fingerprint, "MOST_BYTES", 25)
    made: list[str] = []

    def make(name: str) -> Path:
        def fill(folder: Path) -> None:
            made.append(name)
            (folder / "model.onnx").write_bytes(b"0123456789")

        return fingerprint.kept_export(name, fill)

    first = make("a")
    assert make("a") == first
    assert made == ["a"]
    os.utime(first, (1, 1))
    make("b")
    for name, age in ((".making-now", 0), (".making-old", 2 * fingerprint.ABANDONED_S)):
        (tmp_path / "exports" / name).mkdir()
        os.utime(tmp_path / "exports" / name, (time.time() - age,) * 2)
    make("c")
    assert not (tmp_path / "exports" / ".making-old").exists()
    (tmp_path / "exports" / ".making-now").rmdir()
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == ["b", "c"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "exports_folder", lambda: tmp_path / "exports")

    def fail(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise BadInput("no", field="unet")

    with pytest.raises(BadInput):
        fingerprint.kept_export("a", fail)
    assert list((tmp_path / "exports").iterdir()) == []

"""Half precision for the time of an export, weights that prove nothing, and exports that are found again."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from optimize.parts import fingerprint
from optimize.parts.part import Part
from optimize.parts.precision import at_border, check_weights, in_precision
from serving.errors import BadInput
from serving.protocol.tasks import ImageRequest
from serving.repository.part_file import PartTensor


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


def test_whatever_decides_an_export_changes_its_fingerprint() -> None:
    part, asked = Part(at="unet"), [ImageRequest(prompt="a boat")]
    base = fingerprint.fingerprint_of(part, "fp32", asked, "w", 20)
    assert base == fingerprint.fingerprint_of(Part(at="unet"), "fp32", [ImageRequest(prompt="a boat")], "w", 20)
    others = [
        fingerprint.fingerprint_of(Part(at="unet", fixes=("cat",)), "fp32", asked, "w", 20),
        fingerprint.fingerprint_of(part, "fp16", asked, "w", 20),
        fingerprint.fingerprint_of(part, "fp32", [ImageRequest(prompt="a ship")], "w", 20),
        fingerprint.fingerprint_of(part, "fp32", asked, "v", 20),
        fingerprint.fingerprint_of(part, "fp32", asked, "w", 21),
    ]
    assert len({base, *others}) == 6


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
    make("c")
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == ["b", "c"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "exports_folder", lambda: tmp_path / "exports")

    def fail(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise BadInput("no", field="unet")

    with pytest.raises(BadInput):
        fingerprint.kept_export("a", fail)
    assert list((tmp_path / "exports").iterdir()) == []

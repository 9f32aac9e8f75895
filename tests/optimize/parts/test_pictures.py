"""Parts of models that make pictures: what varies as declared, and files that answer as torch does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.repository.part_file import Precision
from tests.optimize.parts.exported import Recorded, export_part, recorded_family

PLAIN = {
    "unet": {"batch", "height", "width"},
    "vae_decoder": {"batch", "height", "width"},
    "text_encoder": {"batch"},
    "text_encoder_2": {"batch"},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("sdxl", tmp_path_factory.mktemp("sdxl")) as recorded:
        yield recorded


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("sdxl_controlnet", tmp_path_factory.mktemp("guided")) as recorded:
        yield recorded


def axes(recorded: Recorded, name: str) -> set[str]:
    """Of the one variant of a part, all of which vary."""
    (group,) = recorded.groups(name)
    assert group.constant_axes() == []
    return {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)}


@pytest.mark.parametrize("name", PLAIN)
def test_every_part_is_called_in_one_way_at_several_sizes(plain: Recorded, name: str) -> None:
    assert axes(plain, name) == PLAIN[name]


def test_a_guided_unet_takes_what_its_controlnet_gives_at_any_size_and_weight(guided: Recorded) -> None:
    assert axes(guided, "vae_decoder") == PLAIN["vae_decoder"]
    residuals = {axis for axis in axes(guided, "unet") if "block" in axis}
    assert axes(guided, "unet") == PLAIN["unet"] | residuals
    assert len(residuals) == 2 * 5
    assert axes(guided, "controlnet") == PLAIN["unet"] | {"controlnet_cond_2", "controlnet_cond_3"}
    weights = {float(call.inputs["conditioning_scale"]) for call in guided.recording.calls["controlnet"]}
    assert sorted(weights) == pytest.approx([0.3, 0.5, 0.8, 1.0])


@pytest.mark.parametrize("name", ["text_encoder_2", "vae_decoder"])
def test_small_parts_answer_as_torch_does_and_pictures_stay_the_same(
    plain: Recorded, tmp_path: Path, name: str
) -> None:
    part = export_part(plain.recording, name, tmp_path)
    parity, quality = plain.gated(name, part, tmp_path)
    assert max(row.relative for row in parity) < 1e-5
    assert {row.measure for row in quality} == {"PSNR", "SSIM"}


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_unet_answers_as_torch_does_and_pictures_stay_the_same(
    plain: Recorded, tmp_path: Path, precision: Precision
) -> None:
    part = export_part(plain.recording, "unet", tmp_path, precision)
    plain.gated("unet", part, tmp_path)


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["unet", "controlnet"])
def test_guided_parts_answer_as_torch_does_and_pictures_stay_the_same(
    guided: Recorded, tmp_path: Path, name: str
) -> None:
    part = export_part(guided.recording, name, tmp_path)
    guided.gated(name, part, tmp_path)

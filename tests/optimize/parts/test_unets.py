"""Parts of models that make clips with a UNet: what varies as declared, and files that answer as torch does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.repository.part_file import Precision
from tests.optimize.parts.exported import Recorded, export_part, recorded_family

SIZES = {"height", "width"}
WORDS = {"unet": {"batch", "rows", "frames"} | SIZES, "vae_decoder": {"frames"} | SIZES, "text_encoder": {"batch"}}
PICTURE = {
    "unet": {"batch", "frames"} | SIZES,
    "vae_decoder": {"frames"} | SIZES,
    "vae_encoder": {"batch"} | SIZES,
    "image_encoder": {"batch"},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("animatediff", tmp_path_factory.mktemp("animatediff")) as recorded:
        yield recorded


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("stable_video_diffusion", tmp_path_factory.mktemp("svd")) as recorded:
        yield recorded


def axes(recorded: Recorded, name: str) -> set[str]:
    """Of the one variant of a part, all of which vary."""
    (group,) = recorded.groups(name)
    assert group.constant_axes() == []
    return {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)}


@pytest.mark.parametrize("name", WORDS)
def test_parts_of_clips_from_words_are_called_in_one_way_at_several_sizes(words: Recorded, name: str) -> None:
    assert axes(words, name) == WORDS[name]


@pytest.mark.parametrize("name", PICTURE)
def test_parts_of_clips_from_pictures_are_called_in_one_way_at_several_sizes(picture: Recorded, name: str) -> None:
    assert axes(picture, name) == PICTURE[name]


def test_a_clip_of_any_length_is_decoded_by_one_file(picture: Recorded) -> None:
    """The decoder's number of frames is a size of its inputs, and no constant of a variant."""
    calls = picture.recording.calls["vae_decoder"]
    assert {call.inputs["sample"].shape[0] for call in calls} == {3, 4, 5}
    assert len({call.key for call in calls}) == 1
    assert "'num_frames': {'tensor': 'image_only_indicator', 'size': 1}" in str(calls[0].call)


@pytest.mark.parametrize("name", ["vae_encoder", "image_encoder"])
def test_small_parts_answer_as_torch_does_and_clips_stay_the_same(picture: Recorded, tmp_path: Path, name: str) -> None:
    part = export_part(picture.recording, name, tmp_path)
    parity, quality = picture.gated(name, part, tmp_path)
    assert max(row.relative for row in parity) < 1e-5
    assert quality


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "precision"), [("vae_decoder", "fp32"), ("unet", "fp32"), ("unet", "fp16")])
def test_parts_of_clips_from_pictures_answer_as_torch_does(
    picture: Recorded, tmp_path: Path, name: str, precision: Precision
) -> None:
    part = export_part(picture.recording, name, tmp_path, precision)
    picture.gated(name, part, tmp_path)


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["vae_decoder", "unet"])
def test_parts_of_clips_from_words_answer_as_torch_does(words: Recorded, tmp_path: Path, name: str) -> None:
    part = export_part(words.recording, name, tmp_path)
    words.gated(name, part, tmp_path)

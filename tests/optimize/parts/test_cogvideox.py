"""Parts of CogVideoX: what varies as declared, and files that answer as torch does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.optimize.parts.exported import Recorded, export_part, recorded_family


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("cogvideox_2b", tmp_path_factory.mktemp("words")) as recorded:
        yield recorded


@pytest.fixture(scope="module")
def rotary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("cogvideox_5b", tmp_path_factory.mktemp("rotary")) as recorded:
        yield recorded


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("cogvideox_5b_i2v", tmp_path_factory.mktemp("picture")) as recorded:
        yield recorded


def axes(recorded: Recorded, name: str) -> set[str]:
    """Of the one variant of a part, all of which vary."""
    (group,) = recorded.groups(name)
    assert group.constant_axes() == []
    return {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)}


def test_clips_of_every_size_and_length_ask_the_transformer_in_one_way(words: Recorded, rotary: Recorded) -> None:
    assert axes(words, "transformer") == {"batch", "frames", "height", "width"}
    assert axes(rotary, "transformer") == {"batch", "frames", "height", "width", "tokens"}
    assert axes(words, "text_encoder") == {"batch"}


def test_learned_positions_leave_the_number_of_rows_alone_to_vary(picture: Recorded) -> None:
    for name in ("transformer", "vae_decoder", "text_encoder"):
        assert axes(picture, name) == {"batch"}


def test_the_decoder_is_asked_in_four_ways_each_at_three_sizes(words: Recorded) -> None:
    """One, two or three latent frames first, and two with what was kept of those before."""
    found = words.groups("vae_decoder")
    frames = sorted((group.traced.inputs["sample"].shape[2], len(group.inputs) > 1) for group in found)
    assert frames == [(1, False), (2, False), (2, True), (3, False)]
    for group in found:
        assert len({call.sizes for call in group.calls}) >= 3
        assert group.constant_axes() == []


def test_the_decoder_keeps_nothing_that_nobody_reads(words: Recorded) -> None:
    (later,) = [group for group in words.groups("vae_decoder") if len(group.inputs) > 1]
    kept = [tensor for tensor in later.inputs if tensor.name.startswith("conv_cache.")]
    assert {tensor.axes[2] for tensor in kept} == {2}
    assert not [tensor.name for tensor in kept if tensor.name.endswith((".conv_y", ".conv_b"))]


def test_the_text_encoder_answers_as_torch_does_and_clips_stay_the_same(picture: Recorded, tmp_path: Path) -> None:
    parity, quality = picture.gated("text_encoder", export_part(picture.recording, "text_encoder", tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5
    assert quality


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["transformer", "vae_decoder"])
def test_parts_of_clips_from_words_answer_as_torch_does(words: Recorded, tmp_path: Path, name: str) -> None:
    parity, _ = words.gated(name, export_part(words.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5


@pytest.mark.slow_export
@pytest.mark.timeout(600)
def test_a_transformer_with_rotary_positions_answers_as_torch_does(rotary: Recorded, tmp_path: Path) -> None:
    parity, _ = rotary.gated("transformer", export_part(rotary.recording, "transformer", tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["transformer", "vae_decoder"])
def test_parts_of_clips_from_pictures_answer_as_torch_does(picture: Recorded, tmp_path: Path, name: str) -> None:
    picture.gated(name, export_part(picture.recording, name, tmp_path), tmp_path)

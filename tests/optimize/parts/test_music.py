"""Parts of Stable Audio and ACE-Step: what varies as declared, and files that answer as torch does."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from serving.backends.ray.parts.place import empty, module_at
from tests.optimize.parts.exported import Recorded, export_part, recorded_family

STABLE_AUDIO: Mapping[str, set[str]] = {
    "transformer": {"batch"},
    "vae_decoder": {"batch"},
    "text_encoder": {"batch"},
    "projection": {"batch"},
}
ACE_STEP: Mapping[str, set[str]] = {
    "transformer": {"batch", "length", "words"},
    "vae_decoder": {"batch", "length"},
    "text_encoder": {"batch", "tokens"},
    "lyric_encoder": {"batch", "lyrics"},
}


@pytest.fixture(scope="module", params=["stable_audio", "ace_step", "ace_step_turbo"])
def music(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family(request.param, tmp_path_factory.mktemp(request.param)) as recorded:
        yield recorded


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family("ace_step", tmp_path_factory.mktemp("songs")) as recorded:
        yield recorded


def parts(recorded: Recorded) -> Mapping[str, set[str]]:
    return STABLE_AUDIO if recorded.recording.engine.model.name == "stable_audio" else ACE_STEP


def test_parts_are_asked_at_several_sizes_in_as_many_ways_as_there_are(music: Recorded) -> None:
    for name, axes in parts(music).items():
        groups = music.groups(name)
        assert len(groups) == (2 if name == "projection" else 1), name  # of words, and of seconds
        for group in groups:
            assert group.constant_axes() == [], name
            assert {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)} == axes


def test_lengths_that_are_no_whole_patches_are_among_the_samples(songs: Recorded) -> None:
    (group,) = songs.groups("transformer")
    assert {call.inputs["hidden_states"].shape[1] % 2 for call in group.calls} == {0, 1}


def test_lyrics_are_read_where_the_text_encoders_numbers_are_gone(songs: Recorded) -> None:
    engine = songs.recording.engine
    encoder = module_at(engine, "pipeline.text_encoder")
    words = module_at(engine, "pipeline.text_encoder.embed_tokens")
    held = {name: tensor.data for name, tensor in encoder.named_parameters()}
    try:
        assert empty(engine, "pipeline.text_encoder") > 0
        assert words(torch.tensor([[3, 5]])).shape == (1, 2, 32)
        assert not any(tensor.numel() for name, tensor in encoder.named_parameters() if "embed_tokens" not in name)
    finally:
        for name, tensor in encoder.named_parameters():
            tensor.data = held[name]


def test_small_parts_answer_as_torch_does_and_music_stays_the_same(music: Recorded, tmp_path: Path) -> None:
    name = "projection" if "projection" in parts(music) else "lyric_encoder"
    parity, quality = music.gated(name, export_part(music.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5
    assert quality


EXPORTED = [*(("stable_audio", name) for name in STABLE_AUDIO), *(("ace_step", name) for name in ACE_STEP)]


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("music", "name"), EXPORTED, indirect=["music"])
def test_parts_answer_as_torch_does_and_music_stays_the_same(music: Recorded, tmp_path: Path, name: str) -> None:
    parity, _ = music.gated(name, export_part(music.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5

"""Predicted costs: what grows with what."""

import pytest

from graphs.costs import film_cost_s, music_cost_s, recorded_s, sound_cost_s, spoken_s
from graphs.inputs import MusicChoice, VideoFormat
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import MAX_SECONDS


def recording(media_type: str, size_bytes: int) -> ArtifactRef:
    return ArtifactRef(sha256="a" * 64, media_type=media_type, size_bytes=size_bytes)


@pytest.mark.parametrize(
    ("media_type", "size_bytes", "seconds"),
    [
        pytest.param("audio/wav", 960_000, 10, id="wav"),
        pytest.param("audio/mpeg", 200_000, 10, id="compressed"),
        pytest.param("video/mp4", 5_000_000, 10, id="film"),
        pytest.param("application/octet-stream", 200_000, 10, id="not known"),
        pytest.param("audio/mpeg", 10**12, MAX_SECONDS, id="bounded"),
    ],
)
def test_a_recordings_length_is_guessed_from_its_bytes(media_type: str, size_bytes: int, seconds: float) -> None:
    assert recorded_s(recording(media_type, size_bytes)) == pytest.approx(seconds)


def test_costs_grow_with_length_size_and_music() -> None:
    small, large = VideoFormat(width=320, height=180), VideoFormat(width=1280, height=720)
    assert film_cost_s(10, large, 0.02) == pytest.approx(16 * film_cost_s(10, small, 0.02))
    assert sound_cost_s(20, MusicChoice()) == pytest.approx(sound_cost_s(20, None) + music_cost_s(20))
    assert spoken_s("word " * 30) == pytest.approx(10)

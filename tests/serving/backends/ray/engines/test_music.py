"""Builtin music: right length and level, clean edges, no clicks, repeatable, moods that differ."""

import time
from typing import Any

import numpy as np
import pytest
import soundfile

from serving.backends.call import Call
from serving.backends.ray.engines.audio_signal import loudness_lufs
from serving.backends.ray.engines.music_render import play
from serving.backends.ray.engines.music_score import compose
from serving.errors import BadInput, Cancelled
from serving.protocol.tasks import MusicRequest, MusicResult, SpeechRequest

MOODS = ("calm", "bright", "dramatic")


async def music(studio: Any, **request: Any) -> tuple[MusicResult, np.ndarray]:
    result = await studio.engine("music").run(MusicRequest(**request), Call())
    samples, rate = soundfile.read(await studio.store.local_path(result.audio), dtype="float32")
    assert rate == 48_000
    return result, samples


@pytest.mark.parametrize("mood", MOODS)
async def test_a_bed_is_even_clean_and_as_long_as_asked(studio: Any, mood: str) -> None:
    started = time.process_time()
    result, samples = await music(studio, duration_s=30, mood=mood, seed=3)
    assert time.process_time() - started < 4
    assert samples.shape == (30 * 48_000, 2)
    assert result.duration_s == 30
    assert loudness_lufs(samples, 48_000) == pytest.approx(-23, abs=0.3)
    assert np.abs(samples).max() < 0.8
    assert np.abs(samples.mean(axis=0)).max() < 1e-3
    assert np.abs(samples[[0, -1]]).max() < 1e-3
    assert np.abs(np.diff(samples, axis=0)).max() < 0.2
    level = np.sqrt(np.square(samples).reshape(30, -1).mean(axis=1))
    assert level[1:-4].min() > 0.25 * np.median(level)
    assert level[-1] < 0.35 * np.median(level)
    assert 0.05 < np.corrcoef(samples.T)[0, 1] < 0.95
    assert not list(studio.scratch.iterdir())


@pytest.mark.parametrize("duration_s", [0.05, 0.7, 3.3, 11.111])
async def test_short_pieces_have_their_exact_length_and_end_in_silence(studio: Any, duration_s: float) -> None:
    _, samples = await music(studio, duration_s=duration_s)
    assert len(samples) == round(duration_s * 48_000)
    assert np.abs(samples).max() > 0.02
    assert np.abs(samples[-1]).max() < 1e-3


async def test_the_seed_and_the_mood_decide_everything(studio: Any) -> None:
    requests = [(5, "calm"), (5, "calm"), (6, "calm"), (5, "bright"), (5, "dramatic")]
    hashes = [(await music(studio, duration_s=6, mood=mood, seed=seed))[0].audio.sha256 for seed, mood in requests]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_long_pieces_keep_their_level_and_have_no_seams() -> None:
    blocks = list(play(compose(150.0, "bright", 1)))
    samples = np.concatenate(blocks)
    assert len(samples) == 150 * 48_000
    seams = np.cumsum([len(block) for block in blocks])[:-1]
    jumps = np.abs(np.diff(samples, axis=0)).max(axis=1)
    assert jumps[seams - 1].max() <= np.quantile(jumps, 0.9999)
    assert loudness_lufs(samples[125 * 48_000 :], 48_000) == pytest.approx(-23, abs=2.5)


async def test_other_requests_and_cancelled_calls_are_refused(studio: Any) -> None:
    engine, call = studio.engine("music"), Call()
    with pytest.raises(BadInput, match="SpeechRequest"):
        await engine.run(SpeechRequest(text="la", voice="x"), Call())
    call.cancel()
    with pytest.raises(Cancelled):
        await engine.run(MusicRequest(duration_s=60), call)
    assert not list(studio.scratch.iterdir())

"""The mixer: loudness is reached and true, music makes room, voices stand where they were placed."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from pydantic import ValidationError

from serving.backends.call import Call
from serving.backends.ray.engines.audio_mix import active_level_db, add_voice, read_mono
from serving.backends.ray.engines.audio_mix_arguments import next_gain_db
from serving.errors import BadInput, Cancelled
from serving.media.loudness import Loudness, measure_loudness
from serving.protocol.tasks import AudioMixRequest, AudioMixResult, PlacedAudio

RATE = 48_000


def speech_like(seconds: float, level: float, pitch_hz: float, seed: int = 0) -> np.ndarray:
    """Syllables of a harmonic tone with pauses: enough like speech for gates and compressors."""
    at = np.arange(int(seconds * 22050)) / 22050
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * at) / k for k in range(1, 9))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * at + seed), 0, 1) ** 0.5
    return (level * tone * syllables / 3).astype(np.float32)


async def mix(studio: Any, request: AudioMixRequest) -> tuple[AudioMixResult, Path, np.ndarray]:
    result = await studio.engine("audio_mix").run(request, Call())
    path = await studio.store.local_path(result.audio)
    return result, path, soundfile.read(path, dtype="float32")[0]


async def test_a_mix_has_the_loudness_peak_and_length_asked_for(studio: Any) -> None:
    quiet = await studio.sound(speech_like(4, 0.05, 110), "quiet.wav")
    loud = await studio.sound(speech_like(4, 0.8, 190, 1), "loud.wav")
    music = await studio.sound(np.random.default_rng(1).normal(0, 0.1, (44100 * 9, 2)), "music.wav", 44100)
    result, path, samples = await mix(
        studio,
        AudioMixRequest(
            voices=[PlacedAudio(audio=quiet, start_s=0.5), PlacedAudio(audio=loud, start_s=5)],
            music=music,
            duration_s=10.0,
        ),
    )
    measured = await measure_loudness(path)
    assert measured.integrated_lufs == pytest.approx(-16, abs=0.5)
    assert measured.true_peak_dbtp <= -1.4
    assert result.loudness_lufs == pytest.approx(measured.integrated_lufs, abs=0.11)
    assert samples.shape == (10 * RATE, 2)
    info = soundfile.info(path)
    assert (info.samplerate, info.subtype) == (RATE, "PCM_16")
    first, second = samples[RATE : 4 * RATE].std(), samples[6 * RATE : 9 * RATE].std()
    assert 0.7 < first / second < 1.4
    assert not list((studio.scratch).iterdir())


async def test_music_goes_down_under_a_voice(studio: Any) -> None:
    voice = await studio.sound(speech_like(4, 0.3, 120), "voice.wav")
    tone = 0.2 * np.sin(2 * np.pi * 3000 * np.arange(12 * RATE) / RATE)
    music = await studio.sound(tone, "music.wav", RATE)
    _, _, samples = await mix(
        studio,
        AudioMixRequest(voices=[PlacedAudio(audio=voice, start_s=4)], music=music, music_gain_db=-12, duration_s=12),
    )

    def tone_level(first_s: float, last_s: float) -> float:
        part = samples[int(first_s * RATE) : int(last_s * RATE), 0]
        wave = np.exp(-2j * np.pi * 3000 * np.arange(part.size) / RATE)
        return 20 * np.log10(abs((part * wave).mean()))

    assert tone_level(5, 8) < tone_level(1.5, 3.5) - 4


async def test_a_voice_starts_where_it_was_placed(studio: Any) -> None:
    voice = await studio.sound(speech_like(1, 0.4, 200), "voice.wav")
    _, _, samples = await mix(studio, AudioMixRequest(voices=[PlacedAudio(audio=voice, start_s=2.0)], duration_s=4))
    first = np.flatnonzero(np.abs(samples[:, 0]) > 0.01)[0]
    assert first == pytest.approx(2 * RATE, abs=0.03 * RATE)


async def test_equal_requests_give_equal_files(studio: Any) -> None:
    voice = await studio.sound(speech_like(2, 0.4, 200), "voice.wav")
    request = AudioMixRequest(voices=[PlacedAudio(audio=voice)], duration_s=2.5)
    first, second = [(await mix(studio, request))[0] for _ in range(2)]
    assert first == second


async def test_music_alone_is_mastered_in_stereo_and_keeps_its_edges(studio: Any) -> None:
    at = np.arange(6 * RATE) / RATE
    played = np.stack([0.1 * np.sin(2 * np.pi * 440 * at), 0.03 * np.sin(2 * np.pi * 660 * at)], axis=1)
    music = await studio.sound(played, "music.wav", RATE)
    result, path, samples = await mix(
        studio, AudioMixRequest(voices=[], music=music, duration_s=6, loudness_lufs=-20, true_peak_dbtp=-2)
    )
    assert (await measure_loudness(path)).integrated_lufs == pytest.approx(-20, abs=0.5)
    assert result.true_peak_dbtp <= -2
    assert samples.shape == played.shape
    gains = samples.std(axis=0) / played.std(axis=0)
    assert gains[0] == pytest.approx(gains[1], rel=0.02)
    assert samples[: RATE // 10].std() == pytest.approx(samples[3 * RATE : 3 * RATE + RATE // 10].std(), rel=0.05)


@pytest.mark.parametrize("length_s", [4, 8], ids=["cut", "silence added"])
async def test_music_alone_is_as_long_as_asked(studio: Any, length_s: int) -> None:
    music = await studio.sound(np.random.default_rng(1).normal(0, 0.1, (RATE * 6, 2)), "music.wav", RATE)
    _, _, samples = await mix(studio, AudioMixRequest(voices=[], music=music, duration_s=length_s))
    assert len(samples) == length_s * RATE


async def test_silent_music_alone_is_refused(studio: Any) -> None:
    music = await studio.sound(np.zeros((RATE * 3, 2)), "music.wav", RATE)
    with pytest.raises(BadInput, match="music: the mix is silent"):
        await studio.engine("audio_mix").run(AudioMixRequest(voices=[], music=music, duration_s=3), Call())


def test_nothing_to_mix_is_refused() -> None:
    with pytest.raises(ValidationError, match="give voices or music"):
        AudioMixRequest(voices=[], duration_s=3)


async def test_silent_voices_are_refused(studio: Any) -> None:
    silence = await studio.sound(np.zeros(22050), "silence.wav")
    with pytest.raises(BadInput, match="silent"):
        await mix(studio, AudioMixRequest(voices=[PlacedAudio(audio=silence)], duration_s=2))


async def test_what_is_not_sound_is_named(studio: Any) -> None:
    text = await studio.store.put_bytes(b"hello", media_type="audio/wav", name="hello.wav")
    with pytest.raises(BadInput) as caught:
        await mix(studio, AudioMixRequest(voices=[PlacedAudio(audio=text)], duration_s=2))
    assert caught.value.field == "voices[0].audio"


async def test_a_cancelled_call_stops(studio: Any) -> None:
    voice = await studio.sound(speech_like(2, 0.4, 200), "voice.wav")
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        await studio.engine("audio_mix").run(AudioMixRequest(voices=[PlacedAudio(audio=voice)], duration_s=2), call)


async def test_reading_hours_of_sound_ends_soon_after_a_cancel(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(3600 * 16000, np.int16), 16000)
    call, threads = Call(), threading.active_count()
    reading = asyncio.create_task(read_mono(tmp_path / "long.wav", 48000, checkpoint=call.checkpoint))
    await asyncio.sleep(0.2)
    began = time.process_time()
    call.cancel()
    with pytest.raises(Cancelled):
        await reading
    assert time.process_time() - began < 1
    assert threading.active_count() <= threads + 1


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
async def test_sound_read_in_pieces_is_as_long_and_as_loud_as_the_file(tmp_path: Path, rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(65 * rate) / rate).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone, rate)
    samples = await read_mono(tmp_path / "tone.wav", 48000)
    whole = np.asarray(soxr.resample(tone, rate, 48000))
    assert samples.shape == whole.shape
    assert np.abs(samples - whole).max() < 1e-3


def test_a_voice_outside_the_programme_changes_nothing() -> None:
    bus = np.zeros(1000, np.float32)
    add_voice(bus, np.ones(500, np.float32), 2000)
    assert not bus.any()


def test_the_level_ignores_pauses() -> None:
    tone = np.full(RATE, 0.1, np.float32)
    padded = np.concatenate([tone, np.zeros(9 * RATE, np.float32)])
    assert active_level_db(padded, RATE) == pytest.approx(-20, abs=0.01)
    assert active_level_db(np.zeros(RATE, np.float32), RATE) is None


@pytest.mark.parametrize(
    ("measured", "gain"), [(-20.0, 7.0), (-70.0, 3.0), (-50.0, 15.0)], ids=["raise", "silent", "bounded"]
)
def test_the_next_gain_gives_back_what_is_missing(measured: float, gain: float) -> None:
    assert next_gain_db(3.0, Loudness(measured, 1.0, -3.0), -16.0) == gain

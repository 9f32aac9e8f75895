"""Builtin speech: true times, clearly different voices, even level, repeatable, cancellable."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile

from serving.backends.call import Call
from serving.backends.ray.engines.audio_signal import loudness_lufs
from serving.errors import BadInput, Cancelled, Unsupported
from serving.protocol.tasks import MusicRequest, SpeechRequest, SpeechResult

TEXT = "Well, nobody likes the “quiet” room — it's 3.5 degrees! I kept most of the 1998 recordings in the attic."
CAST = ("asha", "ravi", "narrator", "maya", "leo", "child", "elder", "nani")


async def speak(studio: Any, *requests: SpeechRequest) -> list[tuple[SpeechResult, np.ndarray]]:
    engine = studio.engine("speech")
    try:
        spoken = []
        for request in requests:
            result = await engine.run(request, Call())
            samples, rate = soundfile.read(await studio.store.local_path(result.audio), dtype="float32")
            assert rate == result.sample_rate_hz == 24_000
            assert samples.ndim == 1
            spoken.append((result, samples))
        return spoken
    finally:
        await engine.close()


def median_f0_hz(samples: np.ndarray, rate: int = 24_000) -> float:
    """Median fundamental of the voiced 80 ms windows, by autocorrelation."""
    size, found = int(0.04 * rate), []
    for start in range(0, len(samples) - 2 * size, size):
        window = samples[start : start + 2 * size] * np.hanning(2 * size)
        if np.sqrt(np.square(window).mean()) < 0.02:
            continue
        correlation = np.fft.irfft(np.abs(np.fft.rfft(window, 4 * size)) ** 2)
        low, high = rate // 500, rate // 60
        lag = low + int(np.argmax(correlation[low:high]))
        if correlation[lag] > 0.4 * correlation[0]:
            found.append(rate / lag)
    return float(np.median(found))


async def test_words_and_phonemes_have_true_times(studio: Any) -> None:
    [(result, samples)] = await speak(studio, SpeechRequest(text=TEXT, voice="asha"))
    assert " ".join(word.text for word in result.words) == TEXT
    for times in (result.words, result.phonemes):
        assert all(item.start_s < item.end_s for item in times)
        assert all(a.end_s <= b.start_s + 1e-6 for a, b in pairwise(times))
        assert times[-1].end_s <= result.duration_s == pytest.approx(len(samples) / 24_000, abs=1e-4)
    silent = np.ones(len(samples), dtype=bool)
    for phoneme in result.phonemes:
        silent[int(phoneme.start_s * 24_000) : int(phoneme.end_s * 24_000)] = False
    assert np.square(samples[~silent]).mean() > 100 * np.square(samples[silent]).mean()
    for word in result.words:
        heard = samples[int(word.start_s * 24_000) : int(word.end_s * 24_000)]
        assert np.sqrt(np.square(heard).mean()) > 0.01, word


async def test_the_cast_is_clearly_different(studio: Any) -> None:
    text = "We talked about the weather, the price of fish, and the news from town."
    spoken = await speak(studio, *(SpeechRequest(text=text, voice=voice) for voice in CAST))
    pitch = {voice: median_f0_hz(samples) for voice, (_, samples) in zip(CAST, spoken, strict=True)}
    assert pitch["child"] > 1.15 * pitch["maya"] > 1.15 * pitch["asha"] > 1.3 * pitch["ravi"]
    assert pitch["nani"] < 0.9 * pitch["asha"]
    assert pitch["leo"] > 1.1 * pitch["ravi"] > 1.1 * pitch["narrator"]
    length = {voice: result.duration_s for voice, (result, _) in zip(CAST, spoken, strict=True)}
    assert length["elder"] > 1.15 * length["leo"]
    levels = [loudness_lufs(samples, 24_000) for _, samples in spoken]
    assert np.ptp(levels) < 0.5
    assert np.mean(levels) == pytest.approx(-19, abs=0.5)
    assert all(np.abs(samples).max() < 0.86 for _, samples in spoken)


async def test_equal_requests_give_equal_bytes_and_seeds_differ(studio: Any) -> None:
    first, other, again = await speak(
        studio,
        SpeechRequest(text=TEXT, voice="nani", seed=4),
        SpeechRequest(text=TEXT, voice="nani", seed=5),
        SpeechRequest(text=TEXT, voice="nani", seed=4),
    )
    assert first[0] == again[0]
    assert first[0].audio.sha256 != other[0].audio.sha256


async def test_speed_changes_the_length_in_proportion(studio: Any) -> None:
    slow, normal, fast = await speak(
        studio, *(SpeechRequest(text=TEXT, voice="ravi", speed=speed) for speed in (0.7, 1.0, 1.6))
    )
    assert 1.2 < slow[0].duration_s / normal[0].duration_s < 1.5
    assert 1.3 < normal[0].duration_s / fast[0].duration_s < 1.7


@pytest.mark.parametrize(
    ("voice", "language", "text", "words"),
    [
        ("ananya", "hi", "नमस्ते दुनिया, आज मौसम अच्छा है।", 6),
        ("meena", "ta", "வணக்கம் உலகம், எப்படி இருக்கிறீர்கள்?", 4),
        ("lucia", "es", "¿Qué tal? El niño llegó ayer.", 6),
        ("camille", "fr", "Bonjour, ça va très bien aujourd'hui.", 6),
        ("klaus", "de", "Guten Morgen, schöne Grüße aus Köln!", 6),
        ("asha", "ar", "مرحبا بالعالم، كيف حالك؟", 4),
    ],
)
async def test_languages_are_spoken_with_times(studio: Any, voice: str, language: str, text: str, words: int) -> None:
    [(result, samples)] = await speak(studio, SpeechRequest(text=text, voice=voice, language=language))
    assert len(result.words) == words
    assert len(result.phonemes) > 2 * words
    assert loudness_lufs(samples, 24_000) == pytest.approx(-19, abs=1)


async def test_bad_requests_are_refused_with_the_way_out(studio: Any) -> None:
    engine = studio.engine("speech")
    with pytest.raises(BadInput, match=r"did you mean 'ravi'\? Voices: .*asha"):
        await engine.run(SpeechRequest(text="hi", voice="ravy"), Call())
    with pytest.raises(Unsupported, match="language"):
        await engine.run(SpeechRequest(text="hi", voice="ravi", language="ja"), Call())
    with pytest.raises(BadInput, match="text"):
        await engine.run(SpeechRequest(text="…!?", voice="ravi"), Call())
    with pytest.raises(BadInput, match="MusicRequest"):
        await engine.run(MusicRequest(duration_s=1), Call())
    await engine.close()


async def test_a_cancelled_call_stops_at_the_next_clause(studio: Any) -> None:
    engine, call = studio.engine("speech"), Call()
    call.cancel()
    with pytest.raises(Cancelled):
        await engine.run(SpeechRequest(text=TEXT, voice="asha"), call)
    await engine.close()

"""Alignment finds the words of builtin speech to hundredths of a second; transcription hears most of its words."""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from serving.backends.call import Call
from serving.errors import BadInput, Cancelled, Unsupported
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AlignmentRequest,
    AlignmentResult,
    Span,
    SpeechRequest,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
)

CASES = [
    ("asha", "Welcome to Behind the Screen. I'm Asha, I cut films for a living, and this is Ravi."),
    ("ravi", "The state-of-the-art mixer costs $42.50 — can you believe it? In 1998 Reelmesh & Zyxel paid 3.5% more!"),
    ("child", "Oh, it is never quiet. There is a clock, a fridge, a bus far away. We record all of it."),
    ("nani", "He said “no”, then left. Twenty-two crows flew away."),
]
STORY = (
    "The old lighthouse keeper climbed the stairs every evening at sunset. "
    "People say that good stories make long winters shorter."
)


async def speech(studio: Any, text: str, voice: str, language: str = "en") -> SpeechResult:
    engine = studio.engine("speech")
    try:
        result: SpeechResult = await engine.run(SpeechRequest(text=text, voice=voice, language=language), Call())
        return result
    finally:
        await engine.close()


async def align(studio: Any, audio: ArtifactRef, text: str, call: Call | None = None, **more: Any) -> AlignmentResult:
    engine = studio.engine("alignment")
    try:
        request = AlignmentRequest(audio=audio, text=text, **more)
        result: AlignmentResult = await engine.run(request, call or Call())
        return result
    finally:
        await engine.close()


async def transcribe(studio: Any, audio: ArtifactRef, call: Call | None = None, **more: Any) -> TranscriptionResult:
    engine = studio.engine("transcription")
    try:
        request = TranscriptionRequest(audio=audio, **more)
        result: TranscriptionResult = await engine.run(request, call or Call())
        return result
    finally:
        await engine.close()


@pytest.mark.parametrize(("voice", "text"), CASES, ids=[voice for voice, _ in CASES])
async def test_aligned_words_are_those_of_the_text_at_their_true_times(studio: Any, voice: str, text: str) -> None:
    spoken = await speech(studio, text, voice)
    aligned = (await align(studio, spoken.audio, text)).words
    assert [word.text for word in aligned] == [word.text for word in spoken.words]
    assert all(a.start_s <= a.end_s <= b.start_s + 1e-9 for a, b in pairwise(aligned))
    errors = [
        abs(getattr(found, edge) - getattr(true, edge))
        for found, true in zip(aligned, spoken.words, strict=True)
        for edge in ("start_s", "end_s")
    ]
    assert np.mean(errors) < 0.06
    assert np.median(errors) < 0.03


async def test_words_that_are_not_spoken_still_get_times_inside_the_sound(studio: Any) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 22050 * 2)
    audio = await studio.sound(noise, "noise.wav")
    words = (await align(studio, audio, "nothing of this was said")).words
    assert [word.text for word in words] == ["nothing", "of", "this", "was", "said"]
    assert all(0 <= word.start_s <= word.end_s <= 2 for word in words)


async def test_equal_alignments_are_equal(studio: Any) -> None:
    spoken = await speech(studio, STORY, "ravi")
    engine = studio.engine("alignment")
    request = AlignmentRequest(audio=spoken.audio, text=STORY)
    first = await engine.run(request, Call())
    await engine.run(AlignmentRequest(audio=spoken.audio, text="Quite another text, Xyzzy"), Call())
    assert await engine.run(request, Call()) == first
    await engine.close()


async def test_transcription_hears_most_words_of_clear_speech(studio: Any) -> None:
    spoken = await speech(studio, STORY, "ravi", "en-us")
    result = await transcribe(studio, spoken.audio, language="en")
    heard, said = {word.text for word in result.words}, set(re.findall(r"[a-z']+", STORY.lower()))
    assert result.language == "en"
    assert len(heard & said) / len(said) > 0.6
    assert all(a.end_s <= b.start_s + 1e-6 for a, b in pairwise(result.words))
    assert result.words[-1].end_s <= spoken.duration_s


async def test_transcription_listens_only_where_it_is_told(studio: Any) -> None:
    spoken = await speech(studio, STORY, "ravi", "en-us")
    result = await transcribe(studio, spoken.audio, spans=[Span(start_s=0, end_s=2.0)])
    assert result.words
    assert all(word.end_s <= 2.0 for word in result.words)
    assert (await transcribe(studio, spoken.audio, spans=[])).words == []


async def test_silence_transcribes_to_nothing(studio: Any) -> None:
    audio = await studio.sound(np.zeros(22050), "silence.wav")
    assert (await transcribe(studio, audio)).words == []


async def test_other_languages_are_refused_with_the_way_out(studio: Any) -> None:
    audio = await studio.sound(np.zeros(2205), "silence.wav")
    with pytest.raises(Unsupported, match=r"language: .*'de'.*Whisper"):
        await transcribe(studio, audio, language="de")
    with pytest.raises(Unsupported, match=r"language: .*'hi'"):
        await align(studio, audio, "नमस्ते", language="hi")


async def test_files_without_sound_and_texts_without_words_are_refused(studio: Any) -> None:
    with pytest.raises(BadInput, match="audio"):
        await align(studio, await studio.text("this is no audio", "a.wav"), "hello")
    with pytest.raises(BadInput, match="text"):
        await align(studio, await studio.sound(np.zeros(2205), "silence.wav"), "…!")


async def test_cancelled_calls_stop(studio: Any) -> None:
    audio = await studio.sound(np.random.default_rng(0).normal(0, 0.1, 22050 * 3), "noise.wav")
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        await align(studio, audio, "hello there", call)
    with pytest.raises(Cancelled):
        await transcribe(studio, audio, call)

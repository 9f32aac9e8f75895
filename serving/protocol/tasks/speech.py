"""Tasks of speech: to sound, to words, to another language, and when it is heard.

The one invariant: as in serving.protocol.tasks, media travel as :class:`ArtifactRef` and times are seconds.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks.base import (
    MAX_TEXT_CHARS,
    Language,
    Phoneme,
    Seconds,
    Seed,
    Span,
    TaskRequest,
    TaskResult,
    Word,
)


class SpeechRequest(TaskRequest):
    """Text to speech. ``voice`` is one of the model's voices; ``speed`` is a factor on the normal pace.

    ``sample`` is a recording of a person whose voice is to be taken on, for engines that clone; it goes before
    ``voice``.
    """

    text: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    voice: str = Field(min_length=1, max_length=64)
    language: Language = "en"
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    seed: Seed = 0
    sample: ArtifactRef | None = None


class SpeechResult(TaskResult):
    """``audio`` is mono 16-bit WAV; ``words`` and ``phonemes`` are empty where an engine cannot tell them."""

    audio: ArtifactRef
    sample_rate_hz: int
    duration_s: Seconds
    words: list[Word] = Field(default=[])
    phonemes: list[Phoneme] = Field(default=[])


class AlignmentRequest(TaskRequest):
    """Find when each word of ``text`` is spoken in ``audio`` (any format ffmpeg reads)."""

    audio: ArtifactRef
    text: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    language: Language = "en"


class AlignmentResult(TaskResult):
    """The words of the text, in order, with times."""

    words: list[Word]


class TranscriptionRequest(TaskRequest):
    """Speech to words. ``spans`` restricts the work to where voice activity was found; None hears all of it."""

    audio: ArtifactRef
    language: Language | None = None
    spans: list[Span] | None = None


class TranscriptionResult(TaskResult):
    """What was said, with word times, and the language heard or asked for.

    ``language_probability`` (0 to 1) says how sure an engine is that detects the language.
    """

    language: str
    words: list[Word]
    language_probability: float | None = None


class TranslationRequest(TaskRequest):
    """Texts from one language into another, each for itself and in order; the lines of subtitles, say.

    ``audio`` is speech to be translated into one text, for models that hear; texts and audio exclude one another.
    """

    texts: list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]] = Field(default=[], max_length=1000)
    audio: ArtifactRef | None = None
    source_language: Language
    target_language: Language

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.texts) == (self.audio is not None):
            raise ValueError("give texts, or audio, and not both")
        return self


class TranslationResult(TaskResult):
    """As many texts as were given, in their order; one for audio.

    ``cut`` names by index the texts that are longer than the model writes, and end where it stopped.
    """

    texts: list[str]
    cut: list[int] = Field(default=[])


class VoiceActivityRequest(TaskRequest):
    """Find speech. ``threshold`` is the speech probability above which a 32 ms window counts as speech."""

    audio: ArtifactRef
    threshold: float = Field(default=0.5, gt=0, lt=1)
    min_speech_s: float = Field(default=0.25, ge=0, le=10)
    min_silence_s: float = Field(default=0.3, ge=0, le=10)
    padding_s: float = Field(default=0.1, ge=0, le=2)


class VoiceActivityResult(TaskResult):
    """Speech spans in order, without overlap, and the length of the audio."""

    spans: list[Span]
    duration_s: Seconds


class AudioFeaturesRequest(TaskRequest):
    """Log-mel features of ``audio`` as Whisper defines them: 16 kHz, 25 ms window, 10 ms hop, 80 bands."""

    audio: ArtifactRef


class AudioFeaturesResult(TaskResult):
    """``features`` is an ``.npy`` file, float32 (frames, 80), natural range about -1 to 1; 100 frames a second."""

    features: ArtifactRef
    frames: int
    hop_s: float = 0.01

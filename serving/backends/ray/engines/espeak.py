"""EspeakEngine: text to speech without weights, through espeak-ng in processes of its own; loaded by Ray replicas.

The one invariant: a request's sound depends on the request and the voice alone, never on what was said before.
"""

import asyncio
from typing import Final

import numpy as np

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.audio_signal import wav_bytes
from serving.backends.ray.engines.espeak_pool import EspeakPool, Spoken, Utterance
from serving.backends.ray.engines.espeak_sound import RATE_HZ, Timeline
from serving.backends.ray.engines.espeak_text import Clause, clauses
from serving.backends.ray.engines.espeak_times import place_phonemes, place_words, sounding_phonemes
from serving.backends.ray.engines.espeak_voices import Speaker, choose, load_voices
from serving.errors import BadInput
from serving.protocol.tasks import Phoneme, SpeechRequest, SpeechResult, TaskRequest, TaskResult, Word
from serving.repository.model import Model

_LEAD_S: Final = 0.06
_TAIL_S: Final = 0.2
_PROCESSES: Final = 2
_SLOWEST_WPM: Final = 80
_FASTEST_WPM: Final = 440


class EspeakEngine:
    """Serves the ``speech`` task.

    Args:
        model: its card lists the voices (:class:`VoiceOptions`) and languages.
        context: what the replica gives.

    Raises:
        BadInput: a voice in the card is wrong.
        MissingDependency: espeakng-loader is not installed.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._model = model
        self._artifacts = context.artifacts
        self._voices = load_voices(model)
        self._pool = EspeakPool(max(_PROCESSES, context.threads))

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Speak; checks for cancellation at every clause (at most a second of work).

        Raises:
            BadInput: unknown voice, or nothing in the text can be spoken.
            Unsupported: unknown language.
        """
        if not isinstance(request, SpeechRequest):
            raise BadInput(f"the speech engine cannot answer {type(request).__name__}")
        speaker = choose(self._model, self._voices, request.voice, request.language)
        parts = clauses(request.text)
        timeline = Timeline(_LEAD_S, speaker.options.treble_db)
        words: list[Word] = []
        phonemes: list[Phoneme] = []
        for index, clause in enumerate(parts):
            call.checkpoint()
            spoken = await self._pool.speak(_utterance(speaker, clause, request, index))
            said_words, said_phonemes = await asyncio.to_thread(_append, timeline, clause, spoken, speaker)
            words += said_words
            phonemes += said_phonemes
        if not phonemes:
            raise BadInput(
                f"nothing in the text is speakable in {request.language!r}",
                field="text",
                fix="check that text and language belong together",
            )
        call.checkpoint()
        wav, duration_s = await asyncio.to_thread(_render, timeline)
        audio = await self._artifacts.put_bytes(wav, media_type="audio/wav", name=f"{request.voice}.wav")
        return SpeechResult(audio=audio, sample_rate_hz=RATE_HZ, duration_s=duration_s, words=words, phonemes=phonemes)

    async def close(self) -> None:
        """Stop the espeak-ng processes."""
        await self._pool.close()


def _utterance(speaker: Speaker, clause: Clause, request: SpeechRequest, index: int) -> Utterance:
    """A clause in espeak-ng's terms; each is a little different in pitch and pace, as people's sentences are."""
    options = speaker.options
    pitch_shift, pace = np.random.default_rng([request.seed, index]).uniform((-2.5, 0.975), (2.5, 1.025))
    rate = options.rate_wpm * request.speed * pace / options.size
    return Utterance(
        text=clause.said,
        voice=speaker.espeak_voice,
        rate=round(min(max(rate, _SLOWEST_WPM), _FASTEST_WPM)),
        pitch=round(min(max(options.pitch + pitch_shift, 0), 99)),
        pitch_range=options.pitch_range,
        gap=round(options.gap_ms / 10),
        seed=request.seed,
    )


def _append(timeline: Timeline, clause: Clause, spoken: Spoken, speaker: Speaker) -> tuple[list[Word], list[Phoneme]]:
    rate_hz = spoken.rate_hz * speaker.options.size
    offset_s, to_s = timeline.end_s, 1 / rate_hz
    sounding = sounding_phonemes(spoken)
    timeline.add(spoken.pcm, rate_hz, clause.pause_s)
    return (
        place_words(clause.words, spoken, sounding, to_s, offset_s),
        place_phonemes(sounding, to_s, offset_s),
    )


def _render(timeline: Timeline) -> tuple[bytes, float]:
    samples = timeline.finish(_TAIL_S)
    return wav_bytes(samples, RATE_HZ), len(samples) / RATE_HZ

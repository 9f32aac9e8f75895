"""PocketsphinxEngine: English word times without downloaded weights, for alignment and transcription; used by replicas.

The one invariant: an alignment answers with every word of its text as written, in order, each with a time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.espeak_pool import EspeakPool
from serving.backends.ray.engines.espeak_text import words_of
from serving.backends.ray.engines.pocketsphinx_align import RATE_HZ, Aligner, Recognizer
from serving.backends.ray.engines.pocketsphinx_spans import fill_gaps, join_parts, speech_bounds, utterances
from serving.backends.ray.engines.pocketsphinx_words import from_ipa, from_letters, parts_of
from serving.errors import BadInput, EngineFailed, MissingDependency, Unsupported
from serving.media.ffmpeg import decode_audio
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AlignmentRequest,
    AlignmentResult,
    TaskRequest,
    TaskResult,
    TranscriptionRequest,
    TranscriptionResult,
    Word,
)
from serving.repository.model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_UNKNOWN_CHARS: Final = 60


class PocketsphinxEngine:
    """Serves the ``alignment`` or the ``transcription`` task, as the card says.

    Args:
        model: its card's task decides which decoder is loaded (0.1 s, or 0.4 s with the language model).
        context: what the replica gives.

    Raises:
        BadInput: the card names another task.
        MissingDependency: pocketsphinx is not installed.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        if model.card.task not in {"alignment", "transcription"}:
            raise BadInput(
                f"the pocketsphinx engine does not do {model.card.task!r}",
                field=f"{model.name}/model.yaml:task",
                fix="use alignment or transcription",
            )
        self._artifacts = context.artifacts
        self._aligner = Aligner() if model.card.task == "alignment" else None
        self._recognizer = Recognizer() if model.card.task == "transcription" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=model.name)
        self._espeak: EspeakPool | None = None

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Align or transcribe; checks for cancellation twice per second of sound.

        Raises:
            BadInput: no audio, or nothing to align.
            Unsupported: a language other than English.
        """
        if isinstance(request, AlignmentRequest) and self._aligner is not None:
            return await self._align(self._aligner, request, call)
        if isinstance(request, TranscriptionRequest) and self._recognizer is not None:
            return await self._transcribe(self._recognizer, request, call)
        raise BadInput(f"this pocketsphinx model cannot answer {type(request).__name__}")

    async def close(self) -> None:
        """Drop waiting work and stop the pronunciation helper."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._espeak is not None:
            await self._espeak.close()

    async def _align(self, aligner: Aligner, request: AlignmentRequest, call: Call) -> AlignmentResult:
        _english_only(request.language)
        words = words_of(request.text)
        if not words:
            raise BadInput("the text holds no words", field="text", fix="give the words that are spoken")
        samples = await self._samples(request.audio, call)
        parts = [parts_of(said) for _, said in words]
        unknown = {part for some in parts for part in some if not aligner.knows(part)}
        sounds = await self._pronounce(sorted(unknown))
        spans = await asyncio.get_running_loop().run_in_executor(
            self._thread, _aligned, aligner, parts, sounds, samples, call
        )
        bounds = speech_bounds(samples, RATE_HZ)
        filled = fill_gaps(spans, [len(written) for written, _ in words], bounds)
        return AlignmentResult(
            words=[
                Word(text=written, start_s=start, end_s=end)
                for (written, _), (start, end) in zip(words, filled, strict=True)
            ]
        )

    async def _transcribe(
        self, recognizer: Recognizer, request: TranscriptionRequest, call: Call
    ) -> TranscriptionResult:
        _english_only(request.language or "en")
        samples = await self._samples(request.audio, call)
        wanted = None if request.spans is None else [(span.start_s, span.end_s) for span in request.spans]
        words: list[Word] = []
        for start, end in utterances(samples, RATE_HZ, wanted):
            heard = await asyncio.get_running_loop().run_in_executor(
                self._thread, recognizer.recognize, samples[start:end], call.checkpoint
            )
            offset_s = start / RATE_HZ
            words += [Word(text=word, start_s=offset_s + first, end_s=offset_s + last) for word, first, last in heard]
        return TranscriptionResult(language="en", words=words)

    async def _samples(self, audio: ArtifactRef, call: Call) -> "NDArray[np.float32]":
        path = await self._artifacts.local_path(audio)
        return await decode_audio(path, RATE_HZ, checkpoint=call.checkpoint)

    async def _pronounce(self, unknown: Sequence[str]) -> dict[str, str]:
        """ARPAbet of words outside the dictionary: as espeak-ng says them, or by letter rules where it is missing."""
        sounds = {}
        for word in unknown:
            try:
                self._espeak = self._espeak or EspeakPool(1)
                phonemes = await self._espeak.phonemes(word[:_MAX_UNKNOWN_CHARS], "en-us")
            except (MissingDependency, EngineFailed):
                phonemes = []
            sounds[word] = from_ipa(phonemes) or from_letters(word[:_MAX_UNKNOWN_CHARS])
        return sounds


def _english_only(language: str) -> None:
    if language.partition("-")[0].lower() != "en":
        raise Unsupported(
            f"the builtin PocketSphinx model hears English only, not {language!r}",
            field="language",
            fix="set language to en, or serve a multilingual model (Whisper) for this task",
        )


def _aligned(
    aligner: Aligner,
    parts: Sequence[Sequence[str]],
    sounds: Mapping[str, str],
    samples: "NDArray[np.float32]",
    call: Call,
) -> list[tuple[float, float] | None]:
    aligner.learn(sounds)
    flat = [part for some in parts for part in some]
    return join_parts([len(some) for some in parts], aligner.align(flat, samples, call.checkpoint))

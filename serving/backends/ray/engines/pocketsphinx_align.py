"""Aligner and Recognizer: PocketSphinx decoders behind two plain calls; used by the pocketsphinx engine.

The one invariant: a decoder is used by one thread at a time and starts every utterance from the same cepstral mean, so
equal input gives equal times. It holds Python's lock while it works, so sound goes in by half seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import EngineFailed, MissingDependency

RATE_HZ: Final = 16_000
FRAME_S: Final = 0.01
_PADDING_S: Final = 0.3
_CHUNK: Final = RATE_HZ // 2
_MAX_ADDED_WORDS: Final = 2000

_LEVEL_WINDOW: Final = RATE_HZ // 50
_SPEECH_RMS: Final = 0.025
"""Picked by a sweep over builtin voices; why the model likes it this low is not known. On text that was not in the
sweep (490 words) the word error rate was 0.46, against 0.59 at 0.12."""

_TRACTS: Final = (1.0, 0.84, 1.15)
"""Resampling factors tried in turn: a child's voice fits the adult model when it is played lower."""

_GOOD_FIT: Final = -0.30
"""Log score per second above which an alignment is taken at once: set by hand between five right (above -0.28) and two
wrong ones (below -0.3). Too low a bound takes a bad fit without trying the others; too high a one costs time only."""

_ALIGNMENT: Final[Mapping[str, Any]] = {
    "lm": None, "beam": 1e-150, "wbeam": 1e-120, "pbeam": 1e-150, "bestpath": False
}  # fmt: skip
"""Beams so wide that no word of the text is lost; 21 to 42 ms mean error by voice on builtin speech."""

_RECOGNITION: Final[Mapping[str, Any]] = {"fwdflat": False}
"""No second pass: it lowers the word error rate (0.46 to 0.41 on 490 words of builtin speech), but costs a third more
time and holds Python's lock for its whole length, 0.45 s after 8 s of speech, while the replica answers nobody."""

Checkpoint = Callable[[], None]
Heard = tuple[str, float, float]
"""A word with start and end in seconds."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    fit: float
    words: list[Heard]


def _decoder(options: Mapping[str, Any]) -> Any:  # noqa: ANN401 (pocketsphinx has no types)
    try:
        import pocketsphinx
    except ImportError as error:
        raise MissingDependency("the pocketsphinx package is not installed", fix="pip install pocketsphinx") from error
    return pocketsphinx.Decoder(samprate=RATE_HZ, loglevel="FATAL", **options)


def _pcm(samples: NDArray[np.float32]) -> bytes:
    """16-bit PCM at :data:`_SPEECH_RMS` with silence around it."""
    whole = len(samples) // _LEVEL_WINDOW * _LEVEL_WINDOW
    power = np.square(samples[:whole]).reshape(-1, _LEVEL_WINDOW).mean(axis=1)
    speech = power[power > power.max(initial=0.0) * 1e-3]
    gain = _SPEECH_RMS / np.sqrt(speech.mean()) if speech.size else 1.0
    padding = np.zeros(round(_PADDING_S * RATE_HZ), dtype=np.float32)
    levelled = np.clip(np.concatenate([padding, samples * gain, padding]), -1, 1)
    return bytes((levelled * 32767).astype("<i2").tobytes())


class _Decoding:
    """One decoder and its first cepstral mean."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._load()

    def _load(self) -> None:
        self._decoder = _decoder(self._options)
        self._mean = self._decoder.get_cmn()

    def _decode(self, samples: NDArray[np.float32], checkpoint: Checkpoint) -> None:
        pcm = _pcm(samples)
        self._decoder.set_cmn(self._mean)
        self._decoder.start_utt()
        try:
            for start in range(0, len(pcm), _CHUNK * 2):
                checkpoint()
                self._decoder.process_raw(pcm[start : start + _CHUNK * 2])
        finally:
            self._decoder.end_utt()

    def _words(self, limit_s: float) -> list[Heard]:
        """The words of the finished utterance, without fillers and marks of pronunciation variants."""
        words = []
        for segment in self._decoder.seg() or ():
            if segment.word[0] in "<[+":
                continue
            start = segment.start_frame * FRAME_S - _PADDING_S
            end = (segment.end_frame + 1) * FRAME_S - _PADDING_S
            word = segment.word.partition("(")[0]
            words.append((word, min(max(start, 0.0), limit_s), min(max(end, 0.0), limit_s)))
        return words


class Aligner(_Decoding):
    """Forced alignment of English words."""

    def __init__(self) -> None:
        super().__init__(_ALIGNMENT)
        self._added = 0

    def knows(self, word: str) -> bool:
        """Whether the dictionary has a pronunciation of the word."""
        return self._decoder.lookup_word(word) is not None

    def learn(self, pronunciations: Mapping[str, str]) -> None:
        """Add words with their ARPAbet phones; starts from a fresh dictionary once too many were added."""
        if self._added + len(pronunciations) > _MAX_ADDED_WORDS:
            self._load()
            self._added = 0
        new = [word for word in pronunciations if not self.knows(word)]
        for index, word in enumerate(new):
            self._decoder.add_word(word, pronunciations[word], index == len(new) - 1)
        self._added += len(new)

    def align(
        self, words: Sequence[str], samples: NDArray[np.float32], checkpoint: Checkpoint
    ) -> list[tuple[float, float] | None]:
        """Start and end in seconds of every word; None where the decoder lost it.

        Args:
            words: each in the dictionary or learnt.
            samples: float32 (samples,), 16 kHz.
            checkpoint: called twice per second of sound.
        """
        best = _Attempt(float("-inf"), [])
        for tract in _TRACTS:
            attempt = self._attempt(words, samples, tract, checkpoint)
            if len(attempt.words) > len(best.words) or (
                len(attempt.words) == len(best.words) and attempt.fit > best.fit
            ):
                best = attempt
            if best.fit > _GOOD_FIT and len(best.words) == len(words):
                break
        spans: list[tuple[float, float] | None] = [(start, end) for _, start, end in best.words]
        return spans[: len(words)] + [None] * (len(words) - len(spans))

    def _attempt(
        self, words: Sequence[str], samples: NDArray[np.float32], tract: float, checkpoint: Checkpoint
    ) -> _Attempt:
        import soxr

        heard = samples if tract == 1.0 else soxr.resample(samples, RATE_HZ * tract, RATE_HZ)
        try:
            self._decoder.set_align_text(" ".join(words))
            self._decode(heard, checkpoint)
        except RuntimeError as error:
            raise EngineFailed("the alignment decoder refused the words or the sound") from error
        hypothesis = self._decoder.hyp()
        found = [(word, start * tract, end * tract) for word, start, end in self._words(len(heard) / RATE_HZ)]
        if hypothesis is None or [word for word, _, _ in found] != list(words)[: len(found)]:
            return _Attempt(float("-inf"), [])
        fit = np.log(max(hypothesis.best_score, 1e-300)) / max(len(samples) / RATE_HZ, 1.0)
        return _Attempt(float(fit), found)


class Recognizer(_Decoding):
    """Free recognition of English."""

    def __init__(self) -> None:
        super().__init__(_RECOGNITION)

    def recognize(self, samples: NDArray[np.float32], checkpoint: Checkpoint) -> list[Heard]:
        """The words of one utterance, float32 (samples,) at 16 kHz, best kept under 20 s."""
        try:
            self._decode(samples, checkpoint)
        except RuntimeError as error:
            raise EngineFailed("the recognizer refused the sound") from error
        return self._words(len(samples) / RATE_HZ)

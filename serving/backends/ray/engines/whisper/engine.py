"""WhisperEngine: what Whisper does with a request, whichever library runs it; subclassed by the two that do.

The one invariant: equal sounds give equal words: decoding takes the best beam and never samples, not even to get out
of a loop; a window that runs in circles is decoded once more with repeats forbidden.
"""

import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Generic, NamedTuple, TypeVar

from serving.backends.ray.engines.network.engine import NetworkEngine, Written
from serving.backends.ray.engines.network.inputs import read_sound
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.whisper.languages import tag_of, whisper_code
from serving.backends.ray.engines.whisper.windows import RATE_HZ, Window, windows
from serving.errors import EngineFailed
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import MAX_SECONDS, TranscriptionRequest, Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHARED_WINDOWS: Final = 4
"""Requests of at most so many windows, two minutes, share passes; nobody waits for another one's whole film."""
_DETECTED_IN: Final = 3
"""Windows that the language is looked for in, until one is clear."""
_CLEAR: Final = 0.5
_NO_SPEECH: Final = 0.6
_UNSURE: Final = -1.0
"""No speech is what is likely none and heard with a mean log probability below this (openai/whisper, transcribe.py)."""
_CIRCLES: Final = 2.4
"""Text that compresses better than this runs in circles (the same source)."""
_UNDETERMINED: Final = "und"


Encoded = TypeVar("Encoded")
"""What a library's encoder makes of sounds, for its own decoder."""

Tick = Callable[[int], None]
"""Told how many tokens are decoded; raises when nobody waits any more."""


class Sound(NamedTuple):
    """A prepared request."""

    windows: tuple[Window, ...]
    language: str | None


class Heard(NamedTuple):
    """What one window says: words with times from its beginning, and how sure that is (natural logarithms)."""

    words: Sequence[tuple[str, float, float]]
    log_probability: float
    no_speech: float


class Transcript(NamedTuple):
    """A request's output."""

    language: str
    probability: float | None
    words: tuple[Word, ...]


class _Row(NamedTuple):
    request: int
    language: str
    window: Window


class WhisperEngine(NetworkEngine[TranscriptionRequest, Sound, Transcript], Generic[Encoded]):
    """Cuts the sound into windows, hears several at a time, of several requests where they are short.

    ``limits.audio`` bounds the sound in seconds. ``options``: ``batch``, windows in a pass; ``beams``, 5; ``tokens``,
    the longest text of a window, 224 as in openai/whisper.

    Attributes:
        languages: codes of the languages that the model knows, as Whisper writes them.
        beams: hypotheses kept while decoding.
        tokens: longest text of a window.
    """

    request_type = TranscriptionRequest
    lower: ClassVar[Sequence[str]] = ("options.batch",)
    heavy: ClassVar[bool] = True
    languages: Collection[str]

    @abstractmethod
    def encode(self, sounds: "Sequence[NDArray[np.float32]]", tick: Tick) -> Encoded:
        """Run the encoder over sounds of at most 30 s each."""

    @abstractmethod
    def detect(self, encoded: Encoded, tick: Tick) -> tuple[str, float]:
        """The likeliest language of the first sound, and its probability."""

    @abstractmethod
    def decode(
        self, encoded: Encoded, seconds: Sequence[float], language: str, tick: Tick, forbid_repeats: int = 0
    ) -> Sequence[Heard]:
        """The words of each sound.

        Args:
            encoded: of the sounds.
            seconds: their lengths.
            language: of all of them.
            tick: see :data:`Tick`.
            forbid_repeats: length of token sequences that may not come twice; 0 lets all.
        """

    @property
    def beams(self) -> int:
        """Of the card's options."""
        return int(str(self.model.card.options.get("beams", 5)))

    @property
    def tokens(self) -> int:
        """Of the card's options."""
        return int(str(self.model.card.options.get("tokens", 224)))

    def check(self, request: TranscriptionRequest) -> None:
        """Refuse languages that the model has no token for."""
        if request.language is not None:
            whisper_code(request.language, self.languages)

    def prepare(self, request: TranscriptionRequest, files: Mapping[str, Path]) -> Sound:
        """Decode and cut the sound; the warm-up brings none and gets a second of noise."""
        language = None if request.language is None else whisper_code(request.language, self.languages)
        most_s = min(MAX_SECONDS, float(self.model.card.limits.get("audio", MAX_SECONDS)))
        samples = read_sound(files["audio"], "audio", RATE_HZ, most_s=most_s) if files else _noise()
        spans = None if request.spans is None else [(span.start_s, span.end_s) for span in request.spans]
        return Sound(tuple(windows(samples, spans)), language)

    def batch_key(self, prepared: Sound) -> Hashable | None:
        """Short sounds share passes, whatever their languages."""
        return "short" if len(prepared.windows) <= SHARED_WINDOWS else None

    def generate(self, batch: Sequence[Sound], steps: Steps) -> Sequence[Transcript]:
        """Detect languages, then hear the windows, by language."""
        languages = [self._language(sound, steps) for sound in batch]
        rows = [
            _Row(index, languages[index][0], window) for index, sound in enumerate(batch) for window in sound.windows
        ]
        words: list[list[Word]] = [[] for _ in batch]
        passes = list(_passes(rows, self.most_in_batch()))
        for done, chosen in enumerate(passes):
            wanted = [row for row in chosen if not steps.gone(row.request)]
            for row, heard in zip(wanted, self._hear(wanted, done, len(passes), steps), strict=True):
                words[row.request] += _placed(heard, row.window, after=words[row.request])
            steps((done + 1) * self.tokens, len(passes) * self.tokens)
        steps.done = len(passes)
        return [Transcript(*languages[index], tuple(some)) for index, some in enumerate(words)]

    def write(self, request: TranscriptionRequest, output: Transcript, folder: Path) -> Written:
        """The words; nothing is a file."""
        language = request.language or tag_of(output.language)
        return Written({"language": language, "words": output.words, "language_probability": output.probability})

    def smallest(self) -> TranscriptionRequest:
        """A second of noise, without a language, so that all parts run."""
        return TranscriptionRequest(audio=ArtifactRef(sha256="0" * 64, size_bytes=0))

    def _language(self, sound: Sound, steps: Steps) -> tuple[str, float | None]:
        """The language asked for, or the likeliest in the first windows."""
        if sound.language is not None:
            return sound.language, None

        def tick(_: int) -> None:
            steps(0, 1)

        best = (_UNDETERMINED, 0.0)
        for window in sound.windows[:_DETECTED_IN]:
            tick(0)
            found = self.detect(self.encode([_floats(window)], tick), tick)
            if math.isnan(found[1]):
                raise EngineFailed(f"{self.model.name}: the network's output holds no numbers")
            best = max(best, found, key=lambda each: each[1])
            if best[1] >= _CLEAR:
                break
        return best

    def _hear(self, rows: Sequence[_Row], done: int, passes: int, steps: Steps) -> list[Heard]:
        reached = 0

        def tick(tokens: int) -> None:
            nonlocal reached  # a window that is decoded again does not turn progress back
            reached = max(reached, min(tokens, self.tokens - 1))
            steps(done * self.tokens + reached, passes * self.tokens)

        heard = self._decoded(rows, tick)
        circles = [index for index, each in enumerate(heard) if _in_circles(each)]
        if circles:
            again = self._decoded([rows[index] for index in circles], tick, forbid_repeats=4)
            for index, each in zip(circles, again, strict=True):
                heard[index] = each
        return [each if _is_speech(each) else each._replace(words=()) for each in heard]

    def _decoded(self, rows: Sequence[_Row], tick: Tick, forbid_repeats: int = 0) -> list[Heard]:
        if not rows:
            return []
        encoded = self.encode([_floats(row.window) for row in rows], tick)
        seconds = [row.window.seconds for row in rows]
        heard = list(self.decode(encoded, seconds, rows[0].language, tick, forbid_repeats))
        if any(math.isnan(each.log_probability) or math.isnan(each.no_speech) for each in heard):
            raise EngineFailed(f"{self.model.name}: the network's output holds no numbers")
        return heard


def _passes(rows: Sequence[_Row], most: int) -> "Sequence[Sequence[_Row]]":
    """Rows of one language each, as many as may; those of one request stay in order."""
    passes: list[list[_Row]] = []
    for _, same in groupby(sorted(rows, key=lambda row: row.language), key=lambda row: row.language):
        some = list(same)
        passes += [some[start : start + most] for start in range(0, len(some), max(1, most))]
    return passes


def _placed(heard: Heard, window: Window, *, after: Sequence[Word]) -> list[Word]:
    """Words at their times in the whole sound, one after another and within their window."""
    last = max(window.start_s, after[-1].end_s if after else 0.0)
    words = []
    for text, start_s, end_s in heard.words:
        start = min(max(last, window.start_s + start_s), window.start_s + window.seconds)
        last = min(max(start, window.start_s + end_s), window.start_s + window.seconds)
        words.append(Word(text=text, start_s=round(start, 3), end_s=round(max(start, last), 3)))
    return words


def _is_speech(heard: Heard) -> bool:
    return heard.no_speech <= _NO_SPEECH or heard.log_probability >= _UNSURE


def _in_circles(heard: Heard) -> bool:
    text = " ".join(word for word, _, _ in heard.words).encode()
    return len(text) / len(zlib.compress(text)) > _CIRCLES


def _floats(window: Window) -> "NDArray[np.float32]":
    import numpy as np

    return window.samples.astype(np.float32) / np.float32(32767)


def _noise() -> "NDArray[np.float32]":
    import numpy as np

    return np.random.default_rng(0).normal(0, 0.05, RATE_HZ).astype(np.float32)

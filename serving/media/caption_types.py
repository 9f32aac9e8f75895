"""SpokenWord, Cue and CaptionRules: the small values captions are made of; used by captions and formats.

The one invariant: times are seconds from the start of the programme, and ``start_s <= end_s``.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One word as it is shown.

    Attributes:
        text: without white space or control characters.
        start_s: when it starts.
        end_s: when it ends.
        speaker: who says it, empty when unknown.
        glued: no space stands before it (Chinese, Japanese, Thai, pieces of one long word).
    """

    text: str
    start_s: float
    end_s: float
    speaker: str = ""
    glued: bool = False


def join_words(words: Sequence[SpokenWord]) -> str:
    """The words as text, with a space before each that is not glued."""
    text = "".join(word.text if word.glued else f" {word.text}" for word in words)
    return text.removeprefix(" ")


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown at once: one or two lines of one speaker."""

    start_s: float
    end_s: float
    lines: tuple[tuple[SpokenWord, ...], ...]
    speaker: str = ""

    @property
    def words(self) -> tuple[SpokenWord, ...]:
        """All words, in order."""
        return tuple(word for line in self.lines for word in line)

    @property
    def line_texts(self) -> tuple[str, ...]:
        """Each line as text."""
        return tuple(join_words(line) for line in self.lines)

    @property
    def text(self) -> str:
        """All words on one line."""
        return join_words(self.words)


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """Limits of a cue.

    Attributes:
        line_columns: longest line; a wide character (Chinese, Korean) counts two, a combining mark none.
        preferred_cps: columns a second at which most people read with ease.
        most_cps: columns a second beyond which cutting differently is worth much.
        shortest_s: shown at least so long where the next cue allows it.
        least_s: shown at least so long, even if the next cue must wait.
        longest_s: shown at most so long.
        gap_s: empty time between cues: two frames at 25 fps, so that the eye sees the change.
        bridged_gap_s: a shorter gap than this is closed down to ``gap_s``, which flickers less.
        tail_s: shown so long after the last word.
        linger_s: time counted as free after the very last word.
        noticed_pause_s: a longer pause inside a cue costs.
        longest_pause_s: a longer pause always ends a cue.
    """

    line_columns: int = 42
    preferred_cps: float = 17.0
    most_cps: float = 20.0
    shortest_s: float = 1.0
    least_s: float = 0.2
    longest_s: float = 7.0
    gap_s: float = 0.08
    bridged_gap_s: float = 0.4
    tail_s: float = 0.25
    linger_s: float = 1.0
    noticed_pause_s: float = 0.35
    longest_pause_s: float = 1.2

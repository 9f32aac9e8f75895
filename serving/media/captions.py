"""Words with times become cues by the usual rules of subtitling; used by the graphs.

The one invariant: every word appears exactly once, in order, and cues never overlap.
The numbers follow the Netflix Timed Text Style Guide and EBU practice: two lines of 42 characters, 17 to 20
characters a second, one to seven seconds, two frames between cues.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from serving.media.caption_text import (
    break_cost,
    ends_sentence,
    split_long,
    text_columns,
    word_from_raw,
)
from serving.media.caption_types import CaptionRules, Cue, SpokenWord, join_words
from serving.protocol.tasks import Word

__all__ = ["CaptionRules", "Cue", "SpokenWord", "build_cues", "spoken_words"]

_CUE_COST = 3.0
"""What one more cue costs, against break costs of 0 (sentence end) to 9 (after an article)."""
_SHORT_COST = 8.0
_FAST_COST = 0.4
_INNER_SENTENCE_COST = 2.5
_PAUSE_COST = 6.0
_NO_CUE = float("inf")


def spoken_words(words: Iterable[Word], speaker: str = "", *, offset_s: float = 0.0) -> list[SpokenWord]:
    """Task words as caption words: cleaned, empty ones dropped, those with inner spaces taken apart.

    Args:
        words: as engines return them.
        speaker: who says them.
        offset_s: where their audio starts in the programme.
    """
    return [
        part
        for word in words
        for part in word_from_raw(word.text, word.start_s + offset_s, word.end_s + offset_s, speaker)
    ]


def build_cues(words: Sequence[SpokenWord], rules: CaptionRules | None = None, *, language: str = "en") -> list[Cue]:
    """Cut words into cues, lay each on at most two balanced lines, and time them.

    Args:
        words: in any order; sorted by start. Longer than a line, a word is cut into glued pieces.
        rules: limits; the defaults are the usual ones.
        language: decides before which words a line may break well.

    Returns:
        Cues in order without overlap; the words of a cue are all of one speaker.
    """
    rules = rules or CaptionRules()
    ordered = sorted((word for word in words if word.text), key=lambda word: word.start_s)
    pieces = [piece for word in ordered for piece in split_long(word, rules.line_columns)]
    cues: list[Cue] = []
    for first, last in _cut(pieces, rules, language):
        part = pieces[first:last]
        cues.append(Cue(part[0].start_s, part[-1].end_s, break_lines(part, rules, language), part[0].speaker))
    return _timed(cues, rules)


def _cut(words: Sequence[SpokenWord], rules: CaptionRules, language: str) -> list[tuple[int, int]]:
    """The cheapest way to cut ``words`` into cues, as half-open index pairs (dynamic programming)."""
    best: list[float] = [0.0] + [_NO_CUE] * len(words)
    came_from = [0] * (len(words) + 1)
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            if not _fits(words, first, last, rules):
                break
            cost = best[first] + _cue_cost(words, first, last, rules, language)
            if cost < best[last]:
                best[last], came_from[last] = cost, first
    spans: list[tuple[int, int]] = []
    end = len(words)
    while end:
        spans.append((came_from[end], end))
        end = came_from[end]
    return spans[::-1]


def _fits(words: Sequence[SpokenWord], first: int, last: int, rules: CaptionRules) -> bool:
    """Whether ``words[first:last]`` may be one cue; when it may not, no longer one may either."""
    if last - first == 1:
        return True
    added, before = words[last - 1], words[last - 2]
    if added.speaker != words[first].speaker or added.start_s - before.end_s > rules.longest_pause_s:
        return False
    if added.end_s - words[first].start_s > rules.longest_s:
        return False
    return _fits_two_lines(words[first:last], rules.line_columns)


def _fits_two_lines(words: Sequence[SpokenWord], columns: int) -> bool:
    """Whether some break gives two lines that fit: filling the first line as far as it goes finds out."""
    if text_columns(join_words(words)) <= columns:
        return True
    at = 1
    while text_columns(join_words(words[: at + 1])) <= columns:
        at += 1
    return text_columns(join_words(words[at:])) <= columns


def _cue_cost(words: Sequence[SpokenWord], first: int, last: int, rules: CaptionRules, language: str) -> float:
    part = words[first:last]
    following = words[last] if last < len(words) else None
    until = following.start_s - rules.gap_s if following else part[-1].end_s + rules.linger_s
    shown_s = max(0.05, min(until, part[0].start_s + rules.longest_s) - part[0].start_s)
    speed = text_columns(join_words(part)) / shown_s
    cost = _CUE_COST + break_cost(part[-1], following, language)
    cost += _SHORT_COST * max(0.0, rules.shortest_s - shown_s)
    cost += _FAST_COST * max(0.0, speed - rules.preferred_cps) + _FAST_COST * max(0.0, speed - rules.most_cps)
    cost += _INNER_SENTENCE_COST * sum(ends_sentence(word.text) for word in part[:-1])
    pauses = (after.start_s - before.end_s for before, after in pairwise(part))
    return cost + _PAUSE_COST * sum(pause for pause in pauses if pause > rules.noticed_pause_s)


def break_lines(words: Sequence[SpokenWord], rules: CaptionRules, language: str) -> tuple[tuple[SpokenWord, ...], ...]:
    """One line where the words fit, else two, balanced and broken where the language allows it best."""
    if text_columns(join_words(words)) <= rules.line_columns:
        return (tuple(words),)
    best, best_cost = 1, _NO_CUE
    for at in range(1, len(words)):
        upper, lower = text_columns(join_words(words[:at])), text_columns(join_words(words[at:]))
        if max(upper, lower) > rules.line_columns:
            continue
        cost = abs(upper - lower) / 4 + (1 if upper > lower else 0) + break_cost(words[at - 1], words[at], language)
        if cost < best_cost:
            best, best_cost = at, cost
    return tuple(words[:best]), tuple(words[best:])


def _timed(cues: Sequence[Cue], rules: CaptionRules) -> list[Cue]:
    """Give each cue time to be read, without running into the next one."""
    timed: list[Cue] = []
    earliest = 0.0
    for index, cue in enumerate(cues):
        start = max(cue.start_s, earliest)
        following = cues[index + 1].start_s if index + 1 < len(cues) else _NO_CUE
        wanted = max(
            cue.end_s + rules.tail_s,
            start + rules.shortest_s,
            start + text_columns(cue.text) / rules.preferred_cps,
        )
        if following - wanted < rules.bridged_gap_s:
            wanted = following - rules.gap_s
        end = min(wanted, following - rules.gap_s, start + rules.longest_s)
        end = max(end, start + rules.least_s)
        timed.append(replace(cue, start_s=start, end_s=end))
        earliest = end + rules.gap_s
    return timed

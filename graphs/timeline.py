"""Programme time: where turns, scenes and recorded speech lie, on whole frames; used by every graph that has speech.

The one invariant: segments cover the programme without gap or overlap and each is a whole number of frames.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from serving.protocol.tasks import Message, Phoneme, Span, Word

LEAD_IN_S = 0.9
"""Silence with music before the first word."""
LEAD_OUT_S = 1.6
"""Room for the music to end after the last word."""
TURN_GAP_S = 0.35
"""Pause between two speakers; natural conversation averages 0.2 s, broadcast speech a little more."""


class Pauses(NamedTuple):
    """Seconds without speech: before the first piece, between two, and after the last."""

    lead_in_s: float = LEAD_IN_S
    gap_s: float = TURN_GAP_S
    lead_out_s: float = LEAD_OUT_S


TALK: Final = Pauses()
"""Those of a conversation with music around it."""


class Segment(Message):
    """One stretch of the programme: its frames and when speech starts in it, both in programme time."""

    start_frame: int
    end_frame: int
    speech_start_s: float
    speech_end_s: float
    fps: int

    @property
    def start_s(self) -> float:
        """Start in seconds."""
        return self.start_frame / self.fps

    @property
    def duration_s(self) -> float:
        """Length in seconds: a whole number of frames."""
        return (self.end_frame - self.start_frame) / self.fps


def lay_out_turns(speech_s: Sequence[float], fps: int, pauses: Pauses = TALK) -> list[Segment]:
    """Place turns of the given lengths one after another; cuts fall in the middle of the pauses.

    Args:
        speech_s: length of each turn's speech in seconds, at least one.
        fps: frames per second.
        pauses: before, between and after the turns.
    """
    starts: list[float] = []
    at = pauses.lead_in_s
    for length in speech_s:
        starts.append(at)
        at += length + pauses.gap_s
    end_s = at - pauses.gap_s + pauses.lead_out_s
    cuts = [0, *(round((start - pauses.gap_s / 2) * fps) for start in starts[1:]), round(end_s * fps)]
    return [
        Segment(start_frame=a, end_frame=b, speech_start_s=start, speech_end_s=start + length, fps=fps)
        for (a, b), start, length in zip(pairwise(cuts), starts, speech_s, strict=True)
    ]


def programme_s(segments: Sequence[Segment]) -> float:
    """Length of the programme in seconds: a whole number of frames."""
    return segments[-1].end_frame / segments[-1].fps


def shift_words(words: Sequence[Word], by_s: float) -> list[Word]:
    """The same words, ``by_s`` seconds later."""
    return [word.model_copy(update={"start_s": word.start_s + by_s, "end_s": word.end_s + by_s}) for word in words]


def shift_phonemes(phonemes: Sequence[Phoneme], by_s: float) -> list[Phoneme]:
    """The same phonemes, ``by_s`` seconds later."""
    return [
        phoneme.model_copy(update={"start_s": phoneme.start_s + by_s, "end_s": phoneme.end_s + by_s})
        for phoneme in phonemes
    ]


PIECE_S: Final = 20.0
"""A recording is cut into pieces about this long: short enough to render side by side and to repeat alone."""


def lay_out_recording(spans: Sequence[Span], duration_s: float, fps: int) -> list[Segment]:
    """Cut a recording in the middle of its pauses; a piece is longer than :data:`PIECE_S` where nobody pauses.

    Args:
        spans: where speech was found, in order, at least one.
        duration_s: length of the recording; the last frame may reach past it.
        fps: frames per second.

    Returns:
        Pieces whose own sound is all between their first and last frame; each holds speech.
    """
    cuts = [0]
    for before, after in pairwise(spans):
        middle = round((before.end_s + after.start_s) / 2 * fps)
        if middle > cuts[-1] and after.end_s - cuts[-1] / fps > PIECE_S:
            cuts.append(middle)
    cuts.append(max(cuts[-1] + 1, math.ceil(round(duration_s * fps, 6))))
    return [
        Segment(start_frame=a, end_frame=b, speech_start_s=a / fps, speech_end_s=min(b / fps, duration_s), fps=fps)
        for a, b in pairwise(cuts)
    ]


SCENE_PAD_S = 0.6
"""Shortest quiet before and after a scene's narration."""


def speech_room_s(duration_s: float, scenes: int) -> float:
    """Seconds of a programme that narration may fill once every scene has its pauses."""
    return duration_s - 2 * SCENE_PAD_S * scenes


def lay_out_scenes(speech_s: Sequence[float], duration_s: float, fps: int) -> list[Segment]:
    """Spread scenes over the programme: each gets its narration, its pauses and a fair part of what is left.

    The programme is ``duration_s`` long, or longer where the narration needs it.

    Args:
        speech_s: length of each scene's narration in seconds, at least one, all positive.
        duration_s: wanted length of the programme.
        fps: frames per second.
    """
    spare = max(0.0, speech_room_s(duration_s, len(speech_s)) - sum(speech_s))
    segments: list[Segment] = []
    at, start_frame = 0.0, 0
    for speech in speech_s:
        pad = SCENE_PAD_S + spare * speech / sum(speech_s) / 2
        begin, at = at + pad, at + speech + 2 * pad
        end_frame = round(at * fps)
        segments.append(
            Segment(
                start_frame=start_frame,
                end_frame=end_frame,
                speech_start_s=begin,
                speech_end_s=begin + speech,
                fps=fps,
            )
        )
        start_frame = end_frame
    return segments

"""Programme time: where turns and scenes lie, on whole frames; used by the podcast and video graphs.

The one invariant: segments cover the programme without gap or overlap and each is a whole number of frames.
"""

from collections.abc import Sequence
from itertools import pairwise

from serving.protocol.tasks import Message, Phoneme, Word

LEAD_IN_S = 0.9
"""Silence with music before the first word."""
LEAD_OUT_S = 1.6
"""Room for the music to end after the last word."""
TURN_GAP_S = 0.35
"""Pause between two speakers; natural conversation averages 0.2 s, broadcast speech a little more."""


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


def lay_out_turns(speech_s: Sequence[float], fps: int) -> list[Segment]:
    """Place turns of the given lengths one after another; cuts fall in the middle of the pauses.

    Args:
        speech_s: length of each turn's speech in seconds, at least one.
        fps: frames per second.
    """
    starts: list[float] = []
    at = LEAD_IN_S
    for length in speech_s:
        starts.append(at)
        at += length + TURN_GAP_S
    end_s = at - TURN_GAP_S + LEAD_OUT_S
    cuts = [0, *(round((start - TURN_GAP_S / 2) * fps) for start in starts[1:]), round(end_s * fps)]
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

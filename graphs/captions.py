"""Captions of a programme from its words: cues that people may edit, then files; a stage of every graph.

The one invariant: the three files hold the same cues, and there is at least one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from pydantic import Field

from graphs.inputs import VideoFormat
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext
from serving.media.caption_text import split_long, text_columns
from serving.media.caption_types import CaptionRules, Cue, SpokenWord, join_words
from serving.media.captions import break_lines, build_cues, spoken_words
from serving.media.formats import AssStyle, to_ass, to_srt, to_vtt
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import Message, Seconds, Word

MAX_CUES: Final = 20_000
MAX_CUE_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Spoken:
    """Words one person says, in programme time."""

    words: Sequence[Word]
    speaker: str = ""


class CaptionWord(Message):
    """One word of a cue; ``glued`` words follow the one before them without a space."""

    text: str
    start_s: Seconds
    end_s: Seconds
    glued: bool = False


class CaptionCue(Message):
    """What is shown at once. Another ``text`` is spread over the time of the words it had."""

    start_s: Seconds
    end_s: Seconds
    text: str = Field(min_length=1, max_length=MAX_CUE_CHARS)
    speaker: str = ""
    words: tuple[CaptionWord, ...] = ()


class CaptionCues(Message):
    """Every cue by its number, from 1 as players count them; a merge patch edits one or takes it out with ``null``."""

    cues: dict[str, CaptionCue] = Field(min_length=1, max_length=MAX_CUES)


class CaptionFiles(Message):
    """The same cues in three formats; ASS is also what gets burnt in."""

    srt: ArtifactRef
    vtt: ArtifactRef
    ass: ArtifactRef
    cues: int


async def captioned(
    job: JobContext, name: str, spoken: Sequence[Spoken], language: str, video: VideoFormat
) -> CaptionFiles:
    """The stage ``captions``: its first result are the cues, its second the files made from them."""
    cues = await cut(job, spoken, language)
    work = partial(write_captions, job.artifacts, name, cues, language, video)
    return await job.step("captions", work, inputs=[name, cues, language, video])


async def cut(job: JobContext, spoken: Sequence[Spoken], language: str) -> CaptionCues:
    """The first result of the stage ``captions``."""
    return await job.step("captions", partial(cut_captions, spoken, language), inputs=[list(spoken), language])


async def cut_captions(spoken: Sequence[Spoken], language: str) -> CaptionCues:
    """Cut the words into cues; raises BadInput where there is not a single word."""
    words = [word for part in spoken for word in spoken_words(part.words, part.speaker)]
    cues = await asyncio.to_thread(build_cues, words, language=language)
    if not cues:
        raise BadInput("there are no words to caption", field="captions", fix="check the script or the recording")
    return CaptionCues(cues={str(number): _told(cue) for number, cue in enumerate(cues, start=1)})


def _told(cue: Cue) -> CaptionCue:
    words = tuple(
        CaptionWord(text=word.text, start_s=word.start_s, end_s=word.end_s, glued=word.glued) for word in cue.words
    )
    return CaptionCue(start_s=cue.start_s, end_s=cue.end_s, text=cue.text, speaker=cue.speaker, words=words)


def laid_out(number: str, cue: CaptionCue, language: str) -> Cue:
    """A cue on its lines; raises BadInput for an edited text that does not fit on two."""
    rules = CaptionRules()
    words = [SpokenWord(word.text, word.start_s, word.end_s, cue.speaker, glued=word.glued) for word in cue.words]
    if cue.text != join_words(words):
        words = _retimed(cue, words, rules)
    lines = break_lines(words, rules, language) if words else ()
    if not lines or any(text_columns(join_words(line)) > rules.line_columns for line in lines):
        raise BadInput(
            f"caption {number} does not fit on two lines of {rules.line_columns} characters",
            field=f"captions.cues.{number}.text",
            fix="shorten it",
        )
    return Cue(cue.start_s, cue.end_s, lines, cue.speaker)


def _retimed(cue: CaptionCue, before: Sequence[SpokenWord], rules: CaptionRules) -> list[SpokenWord]:
    start = max(cue.start_s, before[0].start_s) if before else cue.start_s
    end = min(cue.end_s, before[-1].end_s) if before else cue.end_s
    whole = Word(text=cue.text, start_s=start, end_s=max(start, end))
    return [piece for word in spoken_words([whole], cue.speaker) for piece in split_long(word, rules.line_columns)]


async def write_captions(
    artifacts: ArtifactStore, name: str, captions: CaptionCues, language: str, video: VideoFormat
) -> CaptionFiles:
    """Store the cues as ``<name>.srt``, ``.vtt`` and ``.ass``.

    Raises:
        BadInput: an edited cue does not fit on its lines.
    """
    cues = [laid_out(number, cue, language) for number, cue in captions.cues.items()]
    cues.sort(key=_start_of)
    texts = {
        "srt": ("application/x-subrip", to_srt(cues)),
        "vtt": ("text/vtt", to_vtt(cues)),
        "ass": ("text/x-ssa", to_ass(cues, style_for(video))),
    }
    files = {
        ending: await artifacts.put_bytes(text.encode(), media_type=media_type, name=f"{name}.{ending}")
        for ending, (media_type, text) in texts.items()
    }
    return CaptionFiles(**files, cues=len(cues))


def _start_of(cue: Cue) -> float:
    return cue.start_s


def style_for(video: VideoFormat) -> AssStyle:
    """The caption style, its sizes scaled so that a line of 42 columns fits upright pictures too."""
    usual = AssStyle()
    scale = min(video.width / usual.width, video.height / usual.height)
    return replace(
        usual,
        width=video.width,
        height=video.height,
        font_px=round(usual.font_px * scale),
        baseline_px=round(usual.baseline_px * scale),
    )

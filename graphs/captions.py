"""Caption files of a programme from its words; a stage of every graph.

The one invariant: the three files hold the same cues, and there is at least one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphs.inputs import VideoFormat
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.media.captions import build_cues, spoken_words
from serving.media.formats import AssStyle, to_ass, to_srt, to_vtt
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import Message, Word


@dataclass(frozen=True, slots=True)
class Spoken:
    """Words one person says, in programme time."""

    words: Sequence[Word]
    speaker: str = ""


class CaptionFiles(Message):
    """The same cues in three formats; ASS is also what gets burnt in."""

    srt: ArtifactRef
    vtt: ArtifactRef
    ass: ArtifactRef
    cues: int


async def write_captions(
    artifacts: ArtifactStore, name: str, spoken: Sequence[Spoken], language: str, video: VideoFormat
) -> CaptionFiles:
    """Cut the words into cues and store the files ``<name>.srt``, ``.vtt`` and ``.ass``.

    Raises:
        BadInput: there is not a single word.
    """
    words = [word for part in spoken for word in spoken_words(part.words, part.speaker)]
    cues = await asyncio.to_thread(build_cues, words, language=language)
    if not cues:
        raise BadInput("there are no words to caption", field="captions", fix="check the script or the recording")
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

"""What podcast and video do alike with voices: word times, music bed and mix; called by those two graphs.

The one invariant: lists keep the order of the pieces of speech they were made from.
"""

from collections.abc import Sequence

from graphs.inputs import MusicChoice
from graphs.timeline import Segment, programme_s
from serving.jobs.types import JobContext
from serving.protocol.tasks import (
    AlignmentRequest,
    AlignmentResult,
    AudioMixRequest,
    AudioMixResult,
    MusicRequest,
    MusicResult,
    PlacedAudio,
    SpeechResult,
    Word,
)


async def word_times(
    job: JobContext, stage: str, texts: Sequence[str], voices: Sequence[SpeechResult], language: str
) -> list[list[Word]]:
    """Word times of every piece: the engine's own where it tells them (they are exact), else by alignment."""
    unknown = [index for index, voice in enumerate(voices) if not voice.words]
    requests = [AlignmentRequest(audio=voices[index].audio, text=texts[index], language=language) for index in unknown]
    found = dict(zip(unknown, await job.map(stage, requests, AlignmentResult), strict=True))
    return [found[index].words if index in found else voice.words for index, voice in enumerate(voices)]


async def mixed(
    job: JobContext,
    voices: Sequence[SpeechResult],
    segments: Sequence[Segment],
    music: MusicChoice | None,
    seed: int,
) -> AudioMixResult:
    """The programme's sound (stages ``music`` and ``mix``): voices in their places over a ducked bed."""
    duration_s = programme_s(segments)
    placed = [
        PlacedAudio(audio=voice.audio, start_s=segment.speech_start_s)
        for voice, segment in zip(voices, segments, strict=True)
    ]
    request = AudioMixRequest(voices=placed, duration_s=duration_s)
    if music is not None:
        wanted = MusicRequest(duration_s=duration_s, mood=music.mood, seed=seed)
        bed = await job.run("music", wanted, MusicResult)
        request = request.model_copy(update={"music": bed.audio, "music_gain_db": music.gain_db})
    return await job.run("mix", request, AudioMixResult)

"""What graphs do alike with voices: word times, music bed and mix, and what was found in a recording; called by graphs.

The one invariant: lists keep the order of the pieces of speech they were made from.
"""

from collections.abc import Sequence

from graphs.inputs import MusicChoice, Studio
from graphs.timeline import Segment, programme_s
from serving.errors import BadInput
from serving.jobs.types import JobContext
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AlignmentRequest,
    AlignmentResult,
    AudioMixRequest,
    AudioMixResult,
    MusicRequest,
    MusicResult,
    PlacedAudio,
    SpeechRequest,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
    VoiceActivityRequest,
    VoiceActivityResult,
    Word,
)


async def word_times(
    job: JobContext, asked: Sequence[SpeechRequest], voices: Sequence[SpeechResult]
) -> list[list[Word]]:
    """Word times of every piece (stage ``words``): the engine's own where it tells them (they are exact), else by
    alignment.
    """
    unknown = [index for index, voice in enumerate(voices) if not voice.words]
    requests = [
        AlignmentRequest(audio=voices[index].audio, text=asked[index].text, language=asked[index].language)
        for index in unknown
    ]
    found = dict(zip(unknown, await job.map("words", requests, AlignmentResult), strict=True))
    return [found[index].words if index in found else voice.words for index, voice in enumerate(voices)]


def can_time(asked: Sequence[SpeechRequest], voices: Sequence[SpeechResult], studio: Studio) -> bool:
    """Whether :func:`word_times` can answer: each piece's engine told its words, or alignment takes its language."""
    return all(
        voice.words or studio.knows(request.language, "alignment") for request, voice in zip(asked, voices, strict=True)
    )


async def listened(job: JobContext, media: ArtifactRef, *, field: str) -> VoiceActivityResult:
    """Where somebody speaks in a recording (stage ``listen``); raises BadInput where nobody does."""
    heard = await job.run("listen", VoiceActivityRequest(audio=media), VoiceActivityResult)
    if not heard.spans:
        raise BadInput(
            f"no speech was found in {media.name!r}", field=field, fix="give a recording of somebody speaking"
        )
    return heard


async def heard_words(
    job: JobContext,
    media: ArtifactRef,
    heard: VoiceActivityResult,
    *,
    transcript: str | None,
    language: str | None,
    field: str,
) -> tuple[str, list[Word]]:
    """Language and words with times (stage ``words``): by alignment where the words are known, else by recognition."""
    if transcript is not None:
        language = language or "en"
        wanted = AlignmentRequest(audio=media, text=transcript, language=language)
        return language, (await job.run("words", wanted, AlignmentResult)).words
    listening = TranscriptionRequest(audio=media, language=language, spans=list(heard.spans))
    said = await job.run("words", listening, TranscriptionResult)
    if not said.words:
        raise BadInput("no words were understood", field=field, fix="give a clearer recording or what is said in it")
    return said.language, said.words


def mix_of(voices: Sequence[SpeechResult], segments: Sequence[Segment]) -> AudioMixRequest:
    """Voices in their places, without music."""
    placed = [
        PlacedAudio(audio=voice.audio, start_s=segment.speech_start_s)
        for voice, segment in zip(voices, segments, strict=True)
    ]
    return AudioMixRequest(voices=placed, duration_s=programme_s(segments))


async def mixed(
    job: JobContext,
    voices: Sequence[SpeechResult],
    segments: Sequence[Segment],
    *,
    music: MusicChoice | None = None,
    seed: int = 0,
) -> AudioMixResult:
    """The programme's sound (stages ``music`` and ``mix``): voices in their places over a ducked bed."""
    request = mix_of(voices, segments)
    if music is not None:
        wanted = MusicRequest(duration_s=request.duration_s, mood=music.mood, seed=seed)
        bed = await job.run("music", wanted, MusicResult)
        request = request.model_copy(update={"music": bed.audio, "music_gain_db": music.gain_db})
    return await job.run("mix", request, AudioMixResult)

"""subtitle_generation: any audio or video becomes captions as SRT, WebVTT and ASS, burnt in on request.

The one invariant: captions are never empty: a medium without speech is an error that says so.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final

from pydantic import Field

from graphs.captions import CaptionFiles, Spoken, cut, write_captions
from graphs.costs import ALIGNMENT, COMPOSE, RECOGNITION, VOICE_ACTIVITY, film_cost_s, recorded_s, spoken_s
from graphs.inputs import Studio, VideoFormat, check_language, check_media_ref, first_of, format_of
from graphs.programme import Made, finish
from graphs.speech import heard_words, listened
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.media.probe import probe
from serving.media.provenance import ModelUse
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    CompositionRequest,
    CompositionResult,
    Language,
    Message,
    SourceVideo,
)

STAGES = (
    Stage("listen", JobState.PROCESSING, weight=1),
    Stage("words", JobState.PROCESSING, weight=6),
    Stage("captions", JobState.PROCESSING, weight=1),
    Stage("burn_in", JobState.RENDERING, weight=6),
    Stage("check", JobState.UPLOADING, weight=1),
)

MAX_MEDIA_S: Final = 4 * 3600.0


class SubtitlesRequest(Message):
    """What to caption. A ``transcript`` is timed word by word instead of being guessed.

    Without ``video`` a film keeps its own size and rate.
    """

    media: ArtifactRef
    language: Language | None = None
    transcript: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    burn_in: bool = False
    video: VideoFormat | None = None


class Captioned(Message):
    """Caption files, and the picture they are meant for."""

    files: CaptionFiles
    video: VideoFormat
    duration_s: float


async def check(request: SubtitlesRequest, artifacts: ArtifactStore, *, studio: Studio) -> None:
    """Refuse before any work: files without sound, empty transcripts, languages nobody hears."""
    if request.language is not None:
        check_language(request.language, studio, "alignment" if request.transcript else "transcription")
    await check_media_ref(request.media, artifacts, field="media", longest_s=MAX_MEDIA_S)
    if request.transcript is not None and not any(letter.isalnum() for letter in request.transcript):
        raise BadInput("there are no words in it", field="transcript", fix="write what is said, or leave it out")


def predict(request: SubtitlesRequest) -> float:
    """Seconds of CPU; a transcript tells the length better than the bytes of a file."""
    if request.transcript is not None:
        length_s, words = spoken_s(request.transcript), ALIGNMENT
    else:
        length_s, words = min(recorded_s(request.media), MAX_MEDIA_S), RECOGNITION
    film = film_cost_s(length_s, request.video or VideoFormat(), COMPOSE) if request.burn_in else 0.0
    return length_s * (VOICE_ACTIVITY + words) + film


async def subtitles(job: JobContext, request: SubtitlesRequest, *, models: Mapping[str, ModelUse]) -> JobOutput:
    """Caption the medium, stage by stage."""
    heard = await listened(job, request.media, field="media")
    language, words = await heard_words(
        job, request.media, heard, transcript=request.transcript, language=request.language, field="media"
    )
    cues = await cut(job, [Spoken(words=words)], language)

    async def caption() -> Captioned:
        info = await probe(await job.artifacts.local_path(request.media))
        video = request.video or format_of(info)
        picture = info.first("video")
        files = await write_captions(job.artifacts, "captions", cues, language, video)
        # The picture may go on after the sound has ended.
        seen_s = min(picture.duration_s, MAX_MEDIA_S) if picture else 0.0
        return Captioned(files=files, video=video, duration_s=max(heard.duration_s, seen_s))

    captions = await job.step(
        "captions", caption, inputs=[cues, request.media, request.video, language, heard.duration_s]
    )
    film = None
    if request.burn_in:
        film = await job.run("burn_in", _burn_in(request, captions, language), CompositionResult)
    return await finish(job, "captions", request, made=Made(film, captions.files), models=models)


def _burn_in(request: SubtitlesRequest, captions: Captioned, language: str) -> CompositionRequest:
    return CompositionRequest(
        scene=SourceVideo(video=request.media),
        subtitles=captions.files.srt,
        burn_in=captions.files.ass,
        language=language,
        width=captions.video.width,
        height=captions.video.height,
        fps=captions.video.fps,
        duration_s=captions.duration_s,
    )


def models_of(request: SubtitlesRequest) -> dict[str, str | None]:
    """The models that a request is sure to ask."""
    words = "transcription" if request.transcript is None else "alignment"
    return first_of("voice_activity", words, *(["composition"] if request.burn_in else []))


def job_type(studio: Studio) -> JobType:
    """The job type, knowing what this repository offers."""
    return JobType(
        name="subtitle_generation",
        request=SubtitlesRequest,
        graph=partial(subtitles, models=studio.models),
        stages=STAGES,
        lane=Lane.LOW,
        timeout_s=180,
        tries=3,
        check=partial(check, studio=studio),
        description="Audio or video becomes captions (SRT, WebVTT, ASS), burnt in on request.",
        predict=predict,
        models=models_of,
    )

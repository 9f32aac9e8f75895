"""podcast_video: a script for two voices and two portraits become a split-screen podcast with captions.

The one invariant: every stage's input is the request and the results of the stages above it, so a resumed or forked job
makes the same programme.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Self

from pydantic import Field, model_validator

from graphs.captions import Spoken, captioned
from graphs.costs import (
    COMPOSE,
    FACE,
    FEATURES,
    LIP_SYNC,
    SPEECH,
    film_cost_s,
    programme_length_s,
    sound_cost_s,
    spoken_s,
)
from graphs.inputs import (
    Programme,
    Script,
    Studio,
    VoiceName,
    check_language,
    check_picture_ref,
    check_voice,
    first_of,
)
from graphs.programme import Made, composed, finish, screen_of
from graphs.script import Turn, parse_turns
from graphs.speech import mixed, word_times
from graphs.timeline import Segment, lay_out_turns, shift_phonemes, shift_words
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.media.layout import panel_size
from serving.media.provenance import ModelUse
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AudioFeaturesRequest,
    AudioFeaturesResult,
    FaceLandmarksRequest,
    FaceLandmarksResult,
    LipSyncRequest,
    Message,
    Panel,
    Span,
    SpeechRequest,
    SpeechResult,
    SplitScreen,
    VideoResult,
)

STAGES = (
    Stage("faces", JobState.PROCESSING, weight=1),
    Stage("voices", JobState.PROCESSING, weight=1),
    Stage("words", JobState.PROCESSING, weight=1),
    Stage("features", JobState.PROCESSING, weight=1),
    Stage("lip_sync", JobState.RENDERING, weight=10),
    Stage("music", JobState.RENDERING, weight=1),
    Stage("mix", JobState.RENDERING, weight=2),
    Stage("captions", JobState.POST_PROCESSING, weight=1),
    Stage("compose", JobState.POST_PROCESSING, weight=8),
    Stage("check", JobState.UPLOADING, weight=2),
)


class Speaker(Message):
    """One of the two people."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^[^:\n]+$")
    title: str = Field(default="", max_length=80)
    portrait: ArtifactRef
    voice: VoiceName


class PodcastRequest(Programme):
    """What a podcast is made of; the first speaker sits on the left."""

    script: Script
    speakers: Annotated[list[Speaker], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.speakers[0].name.casefold() == self.speakers[1].name.casefold():
            raise ValueError(f"both speakers are called {self.speakers[0].name!r}: give them different names")
        return self


def turns_of(request: PodcastRequest) -> list[Turn]:
    """The script's turns; raises BadInput for a script that cannot be spoken."""
    return parse_turns(request.script, [speaker.name for speaker in request.speakers])


async def check(request: PodcastRequest, artifacts: ArtifactStore, *, studio: Studio) -> None:
    """Refuse before any work: scripts without turns, unknown voices, broken pictures."""
    turns = turns_of(request)
    check_language(request.language, studio, "speech")
    for index, speaker in enumerate(request.speakers):
        check_voice(speaker.voice, studio.voices, field=f"speakers[{index}].voice")
        await check_picture_ref(speaker.portrait, artifacts, field=f"speakers[{index}].portrait")
        if all(turn.speaker != index for turn in turns):
            raise BadInput(
                f"{speaker.name} says nothing",
                field="script",
                fix=f"add a line that starts with '{speaker.name}:'",
            )


def predict(request: PodcastRequest) -> float:
    """Seconds of CPU."""
    said_s = spoken_s(request.script)
    length_s, video = programme_length_s(said_s), request.video
    width, height = panel_size(video.width, video.height, heading=True, captions=request.captions.burn_in)
    panel = film_cost_s(length_s, video, LIP_SYNC) * width * height / (video.width * video.height)
    return (
        2 * FACE
        + said_s * (SPEECH + FEATURES)
        + 2 * panel
        + sound_cost_s(length_s, request.music)
        + film_cost_s(length_s, video, COMPOSE)
    )


async def podcast(job: JobContext, request: PodcastRequest, *, models: Mapping[str, ModelUse]) -> JobOutput:
    """Make the programme, stage by stage."""
    turns = turns_of(request)

    faces = await job.map(
        "faces",
        [FaceLandmarksRequest(image=speaker.portrait) for speaker in request.speakers],
        FaceLandmarksResult,
    )
    asked = [_speech(request, turn) for turn in turns]
    voices = await job.map("voices", asked, SpeechResult)
    segments = lay_out_turns([voice.duration_s for voice in voices], request.video.fps)
    words = await word_times(job, asked, voices)
    features = await job.map(
        "features", [AudioFeaturesRequest(audio=voice.audio) for voice in voices], AudioFeaturesResult
    )
    clips = await job.map(
        "lip_sync", _lip_sync_requests(request, turns, segments, faces, voices, features), VideoResult
    )
    mix = await mixed(job, voices, segments, music=request.music, seed=request.seed)

    spoken = [
        Spoken(speaker=request.speakers[turn.speaker].name, words=shift_words(heard, segment.speech_start_s))
        for turn, heard, segment in zip(turns, words, segments, strict=True)
    ]
    captions = await captioned(job, "podcast", spoken, request.language, request.video)
    scene = _split_screen(request, turns, segments, clips)
    film = await composed(job, screen_of(request), scene, mix, captions)
    return await finish(job, "podcast", request, made=Made(film, captions, mix), models=models)


def _speech(request: PodcastRequest, turn: Turn) -> SpeechRequest:
    voice = request.speakers[turn.speaker].voice
    return SpeechRequest(text=turn.text, voice=voice, language=request.language, seed=request.seed)


def _lip_sync_requests(
    request: PodcastRequest,
    turns: Sequence[Turn],
    segments: Sequence[Segment],
    faces: Sequence[FaceLandmarksResult],
    voices: Sequence[SpeechResult],
    features: Sequence[AudioFeaturesResult],
) -> list[LipSyncRequest]:
    """Two clips per segment, left then right: one person speaks, the other listens."""
    video = request.video
    width, height = panel_size(video.width, video.height, heading=True, captions=request.captions.burn_in)
    requests: list[LipSyncRequest] = []
    for turn, segment, voice, feature in zip(turns, segments, voices, features, strict=True):
        for index, speaker in enumerate(request.speakers):
            speaks = index == turn.speaker
            offset_s = segment.speech_start_s - segment.start_s
            requests.append(
                LipSyncRequest(
                    portrait=speaker.portrait,
                    points=faces[index].points,
                    phonemes=shift_phonemes(voice.phonemes, offset_s) if speaks else [],
                    features=feature.features if speaks else None,
                    features_offset_s=offset_s if speaks else 0.0,
                    start_s=segment.start_s,
                    duration_s=segment.duration_s,
                    width=width,
                    height=height,
                    fps=request.video.fps,
                    seed=(request.seed + index) % 2**32,
                )
            )
    return requests


def _split_screen(
    request: PodcastRequest, turns: Sequence[Turn], segments: Sequence[Segment], clips: Sequence[VideoResult]
) -> SplitScreen:
    panels = [
        Panel(
            clips=[clip.video for clip in clips[side::2]],
            name=speaker.name,
            title=speaker.title,
            speaking=[
                Span(start_s=segment.speech_start_s, end_s=segment.speech_end_s)
                for turn, segment in zip(turns, segments, strict=True)
                if turn.speaker == side
            ],
        )
        for side, speaker in enumerate(request.speakers)
    ]
    return SplitScreen(left=panels[0], right=panels[1], heading=request.title)


def models_of(request: PodcastRequest) -> dict[str, str | None]:
    """The models that a request is sure to ask."""
    music = ["music"] if request.music is not None else []
    return first_of("face_landmarks", "speech", "audio_features", "lip_sync", *music, "audio_mix", "composition")


def job_type(studio: Studio) -> JobType:
    """The job type, knowing what this repository offers."""
    return JobType(
        name="podcast_video",
        request=PodcastRequest,
        graph=partial(podcast, models=studio.models),
        stages=STAGES,
        lane=Lane.MEDIUM,
        timeout_s=900,
        tries=2,
        check=partial(check, studio=studio),
        description="A script for two speakers and two portraits become a split-screen podcast with captions.",
        predict=predict,
        models=models_of,
    )

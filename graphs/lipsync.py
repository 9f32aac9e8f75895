"""lipsync_animation: a portrait and speech, recorded or made from a text, become a talking video.

The one invariant: a recording keeps its own time: what is heard at a second of it is seen and heard at that of the
film.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from pydantic import Field

from graphs.captions import Spoken, captioned
from graphs.costs import (
    ALIGNMENT,
    COMPOSE,
    FACE,
    FEATURES,
    LIP_SYNC,
    RECOGNITION,
    SPEECH,
    VOICE_ACTIVITY,
    film_cost_s,
    recorded_s,
    sound_cost_s,
    spoken_s,
)
from graphs.inputs import (
    CaptionChoice,
    Studio,
    VideoFormat,
    VoiceName,
    check_language,
    check_media_ref,
    check_picture_ref,
    check_voice,
    first_of,
    scaled,
)
from graphs.programme import Made, Screen, composed, finish
from graphs.script import paragraphs
from graphs.sound import cut_recording
from graphs.speech import can_time, heard_words, listened, mix_of, word_times
from graphs.timeline import (
    Pauses,
    Segment,
    lay_out_recording,
    lay_out_turns,
    programme_s,
    shift_phonemes,
    shift_words,
)
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AudioFeaturesRequest,
    AudioFeaturesResult,
    AudioMixRequest,
    AudioMixResult,
    FaceLandmarksRequest,
    FaceLandmarksResult,
    Language,
    LipSyncRequest,
    Message,
    Phoneme,
    PlacedAudio,
    Seed,
    SpeechRequest,
    SpeechResult,
    VideoResult,
)
from serving.protocol.tasks import Sequence as SceneSequence

STAGES = (
    Stage("face", JobState.PROCESSING, weight=1),
    Stage("voices", JobState.PROCESSING, weight=1),
    Stage("listen", JobState.PROCESSING, weight=1),
    Stage("cut", JobState.PROCESSING, weight=0.5),
    Stage("words", JobState.PROCESSING, weight=2),
    Stage("features", JobState.PROCESSING, weight=1),
    Stage("lip_sync", JobState.RENDERING, weight=10),
    Stage("mix", JobState.RENDERING, weight=1),
    Stage("captions", JobState.POST_PROCESSING, weight=1),
    Stage("compose", JobState.POST_PROCESSING, weight=8),
    Stage("check", JobState.UPLOADING, weight=2),
)

MAX_TEXT_CHARS: Final = 9_000
MAX_AUDIO_S: Final = 600.0
"""Ten minutes either way."""

PAUSES: Final = Pauses(lead_in_s=0.4, gap_s=0.35, lead_out_s=0.6)
"""A face that is silent for a moment before it speaks and after."""

LONGEST_SIDE_PX: Final = 1280
"""Of a film that takes its portrait's shape."""


USUAL_SHAPE: Final = VideoFormat(width=1024, height=LONGEST_SIDE_PX)
"""What a portrait is taken for until it is opened."""


class AnimationRequest(Message):
    """Who speaks and what: a recording, or a text that a voice says; beside a recording, what it says."""

    portrait: ArtifactRef = Field(description="A picture with one face.")
    audio: ArtifactRef | None = Field(default=None, description="Somebody speaking, at most ten minutes.")
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)] | None = Field(
        default=None, description="What the voice says, or what is said in audio; empty lines part paragraphs."
    )
    voice: VoiceName = Field(default="narrator", description="Who says the text; a recording has its own.")
    language: Language = Field(default="en", description="Of what is said.")
    captions: CaptionChoice | None = Field(default=None, description="Captions are only made where this is given.")
    video: VideoFormat | None = Field(
        default=None, description="Size and rate; without it the portrait's own shape, at 25 frames a second."
    )
    seed: Seed = Field(default=0, description="The same request with the same seed moves the same.")


@dataclass(frozen=True, slots=True)
class Piece:
    """What is said at a stretch: its sound, where it lies, what the mouth must do and which words are heard."""

    audio: ArtifactRef
    segment: Segment
    phonemes: Sequence[Phoneme] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """A whole speech: its pieces, how it is mixed, and its words in film time, none without captions."""

    pieces: Sequence[Piece]
    mix: AudioMixRequest
    spoken: Sequence[Spoken]


async def check(request: AnimationRequest, artifacts: ArtifactStore, *, studio: Studio) -> None:
    """Refuse before any work: broken pictures, recordings without sound, texts, voices and languages nobody has."""
    await check_picture_ref(request.portrait, artifacts, field="portrait")
    asked = speech_of(request)
    if request.audio is None:
        if not asked:
            raise BadInput("there is nothing to say", field="text", fix="give a text or audio")
        check_voice(request.voice, studio.voices, field="voice")
        check_language(request.language, studio, "speech")
        return
    await check_media_ref(request.audio, artifacts, field="audio", longest_s=MAX_AUDIO_S)
    if request.captions is not None:
        check_language(request.language, studio, "alignment" if request.text is not None else "transcription")


def speech_of(request: AnimationRequest) -> list[SpeechRequest]:
    """The text's paragraphs as the speech task takes them; raises BadInput for what cannot be spoken."""
    parts = paragraphs(request.text, field="text") if request.text is not None else []
    return [
        SpeechRequest(text=part, voice=request.voice, language=request.language, seed=request.seed) for part in parts
    ]


def predict(request: AnimationRequest) -> float:
    """Seconds of CPU."""
    if request.audio is None or request.text is not None:
        length_s = spoken_s(request.text or "")
    else:
        length_s = min(recorded_s(request.audio), MAX_AUDIO_S)
    heard = SPEECH
    if request.audio is not None:
        words = ALIGNMENT if request.text is not None else RECOGNITION
        heard = VOICE_ACTIVITY + (words if request.captions is not None else 0.0)
    picture = request.video or USUAL_SHAPE
    return (
        FACE
        + length_s * (heard + FEATURES)
        + sound_cost_s(length_s, None)
        + film_cost_s(length_s, picture, LIP_SYNC + COMPOSE)
    )


async def lipsync(job: JobContext, request: AnimationRequest, *, studio: Studio) -> JobOutput:
    """Find the face, say or hear the words, move the mouth, put picture and sound together."""
    face = await job.run("face", FaceLandmarksRequest(image=request.portrait), FaceLandmarksResult)
    video = request.video or scaled(face.width, face.height, LONGEST_SIDE_PX)
    if request.audio is None:
        told = await _said(job, request, video, studio)
    else:
        told = await _heard(job, request, request.audio, video)
    features = await job.map(
        "features", [AudioFeaturesRequest(audio=piece.audio) for piece in told.pieces], AudioFeaturesResult
    )
    moves = [_motion(request, video, face, piece, heard) for piece, heard in zip(told.pieces, features, strict=True)]
    clips = await job.map("lip_sync", moves, VideoResult)
    mix = await job.run("mix", told.mix, AudioMixResult)
    captions = await captioned(job, "animation", told.spoken, request.language, video) if told.spoken else None
    burn_in = request.captions is not None and request.captions.burn_in
    scene = SceneSequence(clips=[clip.video for clip in clips], transition_s=0.0)
    film = await composed(job, Screen(video, request.language, burn_in), scene, mix, captions)
    made = Made(film=film, captions=captions, mix=mix, facts={"seed": request.seed})
    return await finish(job, "animation", request, made=made, models=studio.models)


async def _said(job: JobContext, request: AnimationRequest, video: VideoFormat, studio: Studio) -> Told:
    """The text, spoken paragraph by paragraph."""
    asked = speech_of(request)
    voices = await job.map("voices", asked, SpeechResult)
    segments = lay_out_turns([voice.duration_s for voice in voices], video.fps, PAUSES)
    spoken = []
    if request.captions is not None and can_time(asked, voices, studio):
        words = await word_times(job, asked, voices)
        spoken = [
            Spoken(words=shift_words(heard, segment.speech_start_s))
            for heard, segment in zip(words, segments, strict=True)
        ]
    pieces = [
        Piece(voice.audio, segment, shift_phonemes(voice.phonemes, segment.speech_start_s - segment.start_s))
        for voice, segment in zip(voices, segments, strict=True)
    ]
    return Told(pieces, mix_of(voices, segments), spoken)


async def _heard(job: JobContext, request: AnimationRequest, recording: ArtifactRef, video: VideoFormat) -> Told:
    """The recording, cut in its pauses for the mouth's sake and whole for the ear's."""
    heard = await listened(job, recording, field="audio")
    segments = lay_out_recording(heard.spans, heard.duration_s, video.fps)
    spans = [(segment.start_s, segment.start_s + segment.duration_s) for segment in segments]

    async def cut() -> list[ArtifactRef]:
        return await cut_recording(job.artifacts, recording, spans)

    parts = await job.step("cut", cut, inputs=[recording, spans])
    spoken = []
    if request.captions is not None:
        _, words = await heard_words(
            job, recording, heard, transcript=request.text, language=request.language, field="audio"
        )
        spoken = [Spoken(words=words)]
    mix = AudioMixRequest(voices=[PlacedAudio(audio=recording)], duration_s=programme_s(segments))
    return Told([Piece(part, segment) for part, segment in zip(parts, segments, strict=True)], mix, spoken)


def _motion(
    request: AnimationRequest, video: VideoFormat, face: FaceLandmarksResult, piece: Piece, heard: AudioFeaturesResult
) -> LipSyncRequest:
    return LipSyncRequest(
        portrait=request.portrait,
        points=face.points,
        phonemes=list(piece.phonemes),
        features=heard.features,
        features_offset_s=piece.segment.speech_start_s - piece.segment.start_s,
        start_s=piece.segment.start_s,
        duration_s=piece.segment.duration_s,
        width=video.width,
        height=video.height,
        fps=video.fps,
        seed=request.seed,
    )


def models_of(request: AnimationRequest) -> dict[str, str | None]:
    """The models that a request is sure to ask."""
    told = "speech" if request.audio is None else "voice_activity"
    return first_of(told, "face_landmarks", "audio_features", "lip_sync", "audio_mix", "composition")


def job_type(studio: Studio) -> JobType:
    """The job type, knowing what this repository offers."""
    return JobType(
        name="lipsync_animation",
        request=AnimationRequest,
        graph=partial(lipsync, studio=studio),
        stages=STAGES,
        lane=Lane.MEDIUM,
        timeout_s=300,
        tries=2,
        check=partial(check, studio=studio),
        description="A portrait and speech, recorded or made from a text, become a talking video.",
        predict=predict,
        models=models_of,
    )

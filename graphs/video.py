"""video_generation: a script with scenes and pictures become a narrated film with music and captions.

The one invariant: every stage's input is the request and the results of the stages above it, so a resumed or forked job
makes the same film.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, get_args

from pydantic import Field

from graphs.captions import Spoken, captioned
from graphs.costs import COMPOSE, MOTION, PICTURE, SPEECH, film_cost_s, sound_cost_s, spoken_s
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
from graphs.script import Scene, parse_scenes
from graphs.speech import mixed, word_times
from graphs.timeline import (
    SCENE_PAD_S,
    Segment,
    lay_out_scenes,
    shift_words,
    speech_room_s,
)
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.media.provenance import ModelUse
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    ImageRequest,
    ImageResult,
    ImageToVideoRequest,
    SpeechRequest,
    SpeechResult,
    VideoResult,
)
from serving.protocol.tasks import (
    Sequence as SceneSequence,
)

STAGES = (
    Stage("scenes", JobState.PROCESSING, weight=0.5),
    Stage("narration", JobState.PROCESSING, weight=1),
    Stage("words", JobState.PROCESSING, weight=1),
    Stage("images", JobState.PROCESSING, weight=2),
    Stage("motion", JobState.RENDERING, weight=10),
    Stage("music", JobState.RENDERING, weight=1),
    Stage("mix", JobState.RENDERING, weight=2),
    Stage("captions", JobState.POST_PROCESSING, weight=1),
    Stage("compose", JobState.POST_PROCESSING, weight=8),
    Stage("check", JobState.UPLOADING, weight=2),
)

TRANSITION_S: Final = 0.5
FASTEST_SPEECH: Final = 1.35
"""Above this factor on the normal pace narration stops being pleasant to hear."""
WORDS_PER_S: Final = 2.6
"""The speech engine's normal pace, measured over the example scripts; only used to refuse hopeless durations early."""
MOTIONS: Final = get_args(ImageToVideoRequest.model_fields["motion"].annotation)


class VideoRequest(Programme):
    """What a film is made of; ``[image: name]`` lines of the script choose among ``images``, which else go in order."""

    script: Script
    images: dict[str, ArtifactRef] = Field(default={}, max_length=100)
    duration_s: float = Field(gt=0, le=3600)
    voice: VoiceName = "narrator"


def shortest_s(scenes: Sequence[Scene]) -> float:
    """The shortest film, in seconds, that can hold the narration of these scenes."""
    words = sum(len(scene.narration.split()) for scene in scenes)
    return words / (WORDS_PER_S * FASTEST_SPEECH) + 2 * SCENE_PAD_S * len(scenes)


async def check(request: VideoRequest, artifacts: ArtifactStore, *, studio: Studio) -> None:
    """Refuse before any work: hopeless durations, unknown voices, images or motions, broken pictures."""
    scenes = parse_scenes(request.script)
    check_language(request.language, studio, "speech")
    check_voice(request.voice, studio.voices, field="voice")
    _check_directions(scenes, request)
    needed = shortest_s(scenes)
    if request.duration_s < needed:
        raise BadInput(
            f"{request.duration_s:g} s cannot hold the narration",
            field="duration_s",
            fix=f"give at least {math.ceil(needed)} s or shorten the script",
        )
    for name, ref in request.images.items():
        await check_picture_ref(ref, artifacts, field=f"images.{name}")


def _check_directions(scenes: Sequence[Scene], request: VideoRequest) -> None:
    for scene in scenes:
        if scene.image is not None and scene.image not in request.images:
            near = difflib.get_close_matches(scene.image, request.images, n=1)
            raise BadInput(
                f"line {scene.line}: there is no image {scene.image!r}",
                field="script",
                fix=f"did you mean {near[0]!r}?" if near else f"add `{scene.image}: <file>` under images",
            )
        if scene.motion is not None and scene.motion not in MOTIONS:
            raise BadInput(
                f"line {scene.line}: there is no motion {scene.motion!r}",
                field="script",
                fix=f"use one of: {', '.join(MOTIONS)}",
            )


def predict(request: VideoRequest) -> float:
    """Seconds of CPU."""
    drawn = chosen_images(request, parse_scenes(request.script)).count(None)
    return (
        drawn * PICTURE * request.video.width * request.video.height / 1e6
        + spoken_s(request.script) * SPEECH
        + sound_cost_s(request.duration_s, request.music)
        + film_cost_s(request.duration_s, request.video, MOTION + COMPOSE)
    )


async def video(job: JobContext, request: VideoRequest, *, models: Mapping[str, ModelUse]) -> JobOutput:
    """Make the film, stage by stage."""

    async def parse() -> list[Scene]:
        return parse_scenes(request.script)

    scenes = await job.step("scenes", parse, inputs=request.script)
    narration = await _narration(job, request, scenes)
    segments = lay_out_scenes([voice.duration_s for voice in narration], request.duration_s, request.video.fps)
    words = await word_times(job, [_speech(request, scene, 1.0) for scene in scenes], narration)
    images = await _images(job, request, scenes)
    clips = await job.map("motion", _motion(request, scenes, segments, images), VideoResult)
    mix = await mixed(job, narration, segments, music=request.music, seed=request.seed)

    spoken = [
        Spoken(speaker="", words=shift_words(heard, segment.speech_start_s))
        for heard, segment in zip(words, segments, strict=True)
    ]
    captions = await captioned(job, "video", spoken, request.language, request.video)
    scene = SceneSequence(clips=[clip.video for clip in clips], transition_s=transition_s(request))
    film = await composed(job, screen_of(request), scene, mix, captions)
    return await finish(job, "video", request, made=Made(film, captions, mix), models=models)


async def _narration(job: JobContext, request: VideoRequest, scenes: Sequence[Scene]) -> list[SpeechResult]:
    """Speak every scene; once more, a little faster, where the normal pace does not fit the wanted duration."""
    spoken = await job.map("narration", [_speech(request, scene, 1.0) for scene in scenes], SpeechResult)
    room = speech_room_s(request.duration_s, len(scenes))
    if sum(voice.duration_s for voice in spoken) <= room:
        return spoken
    speed = fitting_speed(spoken, room)
    return await job.map("narration", [_speech(request, scene, speed) for scene in scenes], SpeechResult)


def fitting_speed(spoken: Sequence[SpeechResult], room_s: float) -> float:
    """The pace at which the narration fits; pauses keep their length, so the words must make up for them.

    Args:
        spoken: the narration at normal pace.
        room_s: seconds it may fill.

    Returns:
        A factor from 1 to :data:`FASTEST_SPEECH`, with 1 % to spare since engines round their pace.
    """
    total = sum(voice.duration_s for voice in spoken)
    said = sum(word.end_s - word.start_s for voice in spoken for word in voice.words) or total
    return max(1.0, min(FASTEST_SPEECH, 1.01 * said / max(room_s - (total - said), 1e-3)))


def _speech(request: VideoRequest, scene: Scene, speed: float) -> SpeechRequest:
    return SpeechRequest(
        text=scene.narration, voice=request.voice, language=request.language, speed=speed, seed=request.seed
    )


def chosen_images(request: VideoRequest, scenes: Sequence[Scene]) -> list[ArtifactRef | None]:
    """The given picture of each scene: the one it names, else the next one nobody names, else None."""
    named = {scene.image for scene in scenes if scene.image}
    unnamed = iter([ref for name, ref in request.images.items() if name not in named])
    return [request.images[scene.image] if scene.image else next(unnamed, None) for scene in scenes]


async def _images(job: JobContext, request: VideoRequest, scenes: Sequence[Scene]) -> list[ArtifactRef]:
    given = chosen_images(request, scenes)
    missing = [index for index, ref in enumerate(given) if ref is None]
    made = await job.map(
        "images",
        [
            ImageRequest(
                prompt=scenes[index].narration[:2000],
                title=scenes[index].title[:120] or request.title,
                width=request.video.width,
                height=request.video.height,
                seed=(request.seed + index) % 2**32,
            )
            for index in missing
        ],
        ImageResult,
    )
    drawn = dict(zip(missing, made, strict=True))
    return [ref if ref is not None else drawn[index].image for index, ref in enumerate(given)]


def _motion(
    request: VideoRequest, scenes: Sequence[Scene], segments: Sequence[Segment], images: Sequence[ArtifactRef]
) -> list[ImageToVideoRequest]:
    """One clip per scene; all but the last are longer by the transition that eats into the next."""
    requests: list[ImageToVideoRequest] = []
    for index, (scene, segment, image) in enumerate(zip(scenes, segments, images, strict=True)):
        last = index == len(scenes) - 1
        requests.append(
            ImageToVideoRequest.model_validate(
                {
                    "image": image,
                    "duration_s": segment.duration_s + (0.0 if last else transition_s(request)),
                    "motion": scene.motion or MOTIONS[index % len(MOTIONS)],
                    "width": request.video.width,
                    "height": request.video.height,
                    "fps": request.video.fps,
                    "seed": request.seed,
                }
            )
        )
    return requests


def transition_s(request: VideoRequest) -> float:
    """The crossfade, on a whole number of frames so that clips stay aligned."""
    return float(round(TRANSITION_S * request.video.fps) / request.video.fps)


def models_of(request: VideoRequest) -> dict[str, str | None]:
    """The models that a request is sure to ask."""
    needs_images = None in chosen_images(request, parse_scenes(request.script))
    tasks = [*(["image"] if needs_images else []), *(["music"] if request.music is not None else [])]
    return first_of("speech", "image_to_video", *tasks, "audio_mix", "composition")


def job_type(studio: Studio) -> JobType:
    """The job type, knowing what this repository offers."""
    return JobType(
        name="video_generation",
        request=VideoRequest,
        graph=partial(video, models=studio.models),
        stages=STAGES,
        lane=Lane.HIGH,
        timeout_s=600,
        tries=3,
        check=partial(check, studio=studio),
        description="A script with scenes and pictures become a narrated film with music and captions.",
        predict=predict,
        models=models_of,
    )

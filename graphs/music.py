"""music_generation: a mood or a prompt becomes mastered instrumental music of a given length.

The one invariant: length, mood, prompt and seed decide the music, and nothing of it is changed after but its level.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from pydantic import Field

from graphs.costs import music_cost_s, sound_cost_s
from graphs.inputs import Lufs, Studio, first_of
from graphs.programme import MASTER_LUFS, Made, finish
from graphs.sound import TRUE_PEAK_DBTP, encoded
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.media.provenance import ModelUse
from serving.protocol.tasks import (
    AudioMixRequest,
    AudioMixResult,
    Message,
    Mood,
    MusicRequest,
    MusicResult,
    Seed,
)

STAGES = (
    Stage("music", JobState.PROCESSING, weight=6),
    Stage("master", JobState.RENDERING, weight=4),
    Stage("encode", JobState.POST_PROCESSING, weight=1),
    Stage("check", JobState.UPLOADING, weight=2),
)

WORDS: Final[Mapping[Mood, str]] = {
    "calm": "ambient calm gentle meditation peaceful quiet relaxing sleep slow soft tender",
    "bright": "bright celebration cheerful comedy dance energetic festive fun happy hopeful joyful lively party "
    "playful summer sunny triumph upbeat uplifting victory wedding",
    "dramatic": "battle chase danger dangerous dark dramatic epic fight heavy horror mystery mysterious ominous sad "
    "scary serious storm stormy suspense tense thriller tragedy tragic war",
}
"""Words of a prompt that tell a mood, for engines that compose by mood."""


class MusicPieceRequest(Message):
    """What to compose; without a mood the prompt's words choose it."""

    prompt: str = Field(default="", max_length=2000, description="What it shall sound like, in words.")
    mood: Mood | None = Field(default=None, description="Overrides what the prompt's words say; calm without any.")
    duration_s: float = Field(ge=4, le=1200, description="Length in seconds; the music ends by itself.")
    loudness_lufs: Lufs = Field(default=MASTER_LUFS, description="Loudness of the master; streaming services play -14.")
    seed: Seed = Field(default=0, description="Another seed is another piece; the same one is the same.")


def mood_of(request: MusicPieceRequest) -> Mood:
    """The mood asked for, or the one that most of the prompt's words speak of; calm where none does."""
    if request.mood is not None:
        return request.mood
    said = re.findall(r"\w+", request.prompt.lower())
    return max(WORDS, key=lambda mood: sum(word in WORDS[mood].split() for word in said))


async def check(request: MusicPieceRequest, _artifacts: ArtifactStore) -> None:
    """Refuse before any work: a prompt that says nothing."""
    if request.prompt and not any(character.isalnum() for character in request.prompt):
        raise BadInput("there are no words in it", field="prompt", fix="say what it shall sound like, or leave it out")


def predict(request: MusicPieceRequest) -> float:
    """Seconds of CPU."""
    return music_cost_s(request.duration_s) + sound_cost_s(request.duration_s, None)


async def music(job: JobContext, request: MusicPieceRequest, *, models: Mapping[str, ModelUse]) -> JobOutput:
    """Compose, master, encode."""
    mood = mood_of(request)
    wanted = MusicRequest(duration_s=request.duration_s, mood=mood, seed=request.seed, prompt=request.prompt)
    played = await job.run("music", wanted, MusicResult)
    alone = AudioMixRequest(
        voices=[],
        music=played.audio,
        duration_s=played.duration_s,
        loudness_lufs=request.loudness_lufs,
        true_peak_dbtp=TRUE_PEAK_DBTP,
    )
    mix = await job.run("master", alone, AudioMixResult)
    made = Made(
        mix=mix,
        sound=await encoded(job, mix),
        facts={"mood": mood, "seed": request.seed},
        loudness_lufs=request.loudness_lufs,
    )
    return await finish(job, "music", request, made=made, models=models)


def models_of(_request: MusicPieceRequest) -> dict[str, str | None]:
    """The models that a request is sure to ask."""
    return first_of("music", "audio_mix")


def job_type(studio: Studio) -> JobType:
    """The job type, knowing what this repository offers."""
    return JobType(
        name="music_generation",
        request=MusicPieceRequest,
        graph=partial(music, models=studio.models),
        stages=STAGES,
        lane=Lane.MEDIUM,
        timeout_s=240,
        tries=2,
        check=check,
        description="A mood or a prompt becomes mastered instrumental music of a given length.",
        predict=predict,
        models=models_of,
    )

"""Parts of requests and checks that several graphs share.

The one invariant: whatever a check refuses, it refuses before any stage runs, naming the field and the fix.
"""

import asyncio
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.media.layout import even
from serving.media.pictures import check_picture
from serving.media.probe import MediaInfo, probe
from serving.media.provenance import ModelUse
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import Language, Message, Mood, Seed

MAX_SCRIPT_CHARS = 60_000
"""About an hour of speech."""

Script = Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT_CHARS)]


VoiceName = Annotated[str, Field(min_length=1, max_length=64)]
Lufs = Annotated[float, Field(ge=-31, le=-12)]
"""Louder, speech would be all limiter: asked for -11, its master came out at -11.8."""


class MusicChoice(Message):
    """The bed under the voices."""

    mood: Mood = "calm"
    gain_db: float = Field(default=-14.0, ge=-60, le=0, description="Level of the music before ducking.")


class CaptionChoice(Message):
    """Captions are always written as files and as a soft track; ``burn_in`` also draws them into the picture."""

    burn_in: bool = True


MIN_SIDE_PX = 128
"""Under this a panel of the split screen is too small for a face."""
MAX_SIDE_PX = 4096
MIN_FPS = 10
"""At fewer frames a short turn rounds to none at all."""
MAX_FPS = 60

Side = Annotated[int, Field(ge=MIN_SIDE_PX, le=MAX_SIDE_PX, multiple_of=2)]


class VideoFormat(Message):
    """Size and rate of the picture."""

    width: Side = 1280
    height: Side = 720
    fps: int = Field(default=25, ge=MIN_FPS, le=MAX_FPS)


def format_of(info: MediaInfo) -> VideoFormat:
    """The format nearest to a medium's own picture; the usual one where it has none."""
    picture = info.first("video")
    if picture is None or not picture.width or not picture.height:
        return VideoFormat()
    fps = min(MAX_FPS, max(MIN_FPS, round(picture.fps))) if picture.fps else VideoFormat().fps
    return scaled(picture.width, picture.height, MAX_SIDE_PX).model_copy(update={"fps": fps})


def scaled(width: int, height: int, longest_px: int) -> VideoFormat:
    """The format nearest to a picture's shape, its longer side at most ``longest_px``."""
    scale = min(1.0, longest_px / max(width, height))
    wide, high = (max(MIN_SIDE_PX, even(side * scale)) for side in (width, height))
    return VideoFormat(width=wide, height=high)


class Programme(Message):
    """What every film is made with, whatever its scenes are."""

    title: str = Field(min_length=1, max_length=120)
    language: Language = "en"
    music: MusicChoice | None = MusicChoice()
    captions: CaptionChoice = CaptionChoice()
    video: VideoFormat = VideoFormat()
    seed: Seed = 0


@dataclass(frozen=True, slots=True)
class Studio:
    """What the model repository offers, as far as pipelines must know it before they accept a job.

    Args:
        voices: name to description of every voice of the model that speaks.
        languages: by task, the languages of the model that requests without a model go to.
        models: every model by name, for the provenance.
    """

    voices: Mapping[str, str]
    languages: Mapping[str, Collection[str]]
    models: Mapping[str, ModelUse]

    def knows(self, language: str, task: str) -> bool:
        """Whether a model of the task takes the language: it lists it, another region of it, or none at all."""
        listed = self.languages.get(task)
        return listed is not None and (
            not listed or language.partition("-")[0] in {name.partition("-")[0] for name in listed}
        )


def first_of(*tasks: str) -> dict[str, str | None]:
    """The first model of each task: what a pipeline asks that lets nobody name another one."""
    return dict.fromkeys(tasks)


def check_language(language: str, studio: Studio, task: str, *, field: str = "language") -> None:
    """Refuse a language that no model of the task takes."""
    if not studio.knows(language, task):
        known = sorted(studio.languages.get(task, ()))
        fix = f"one of: {', '.join(known)}" if known else f"add a model of the task {task} to the model repository"
        raise BadInput(f"no model does {task} in {language!r}", field=field, fix=fix)


def check_voice(voice: str, voices: Mapping[str, str], *, field: str) -> None:
    """Refuse a voice that no speech model has.

    Args:
        voice: the wanted voice.
        voices: name to description of every voice of the model that speaks.
        field: the request's field, for the message.
    """
    if voice in voices:
        return
    near = difflib.get_close_matches(voice, voices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BadInput(f"there is no voice {voice!r}", field=field, fix=f"{hint}Voices: {', '.join(sorted(voices))}")


async def check_picture_ref(ref: ArtifactRef, artifacts: ArtifactStore, *, field: str) -> None:
    """Refuse an uploaded file that is no usable picture."""
    path = await artifacts.local_path(ref)
    await asyncio.to_thread(check_picture, path, field=field, name=ref.name)


async def check_media_ref(ref: ArtifactRef, artifacts: ArtifactStore, *, field: str, longest_s: float) -> None:
    """Refuse an uploaded file that is no medium, has no sound or is too long."""
    try:
        info = await probe(await artifacts.local_path(ref))
    except BadInput as error:
        raise BadInput(
            f"{ref.name!r} is not audio or video", field=field, fix="give a file that ffmpeg can play"
        ) from error
    if info.first("audio") is None:
        raise BadInput(f"{ref.name!r} has no sound", field=field, fix="give a recording of somebody speaking")
    if info.duration_s > longest_s:
        raise BadInput(
            f"{ref.name!r} lasts {info.duration_s:.0f} s", field=field, fix=f"cut it; at most {longest_s:.0f} s"
        )

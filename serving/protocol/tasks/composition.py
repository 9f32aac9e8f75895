"""The task that makes the final video of clips, sound and captions.

The one invariant: as in serving.protocol.tasks, media travel as :class:`ArtifactRef` and times are seconds.
"""

from typing import Annotated, Literal

from pydantic import Field

from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks.base import (
    Fps,
    Language,
    Message,
    Pixels,
    PositiveSeconds,
    Seconds,
    Span,
    TaskRequest,
    TaskResult,
)


class Panel(Message):
    """One side of a split screen: clips that together last the whole programme, and a lower third."""

    clips: list[ArtifactRef] = Field(min_length=1, max_length=4000)
    name: str = Field(max_length=60)
    title: str = Field(default="", max_length=80)
    speaking: list[Span] = Field(default=[])


class SplitScreen(Message):
    """Two panels side by side over a background, with lower thirds that light up while their person speaks."""

    kind: Literal["split_screen"] = "split_screen"
    left: Panel
    right: Panel
    heading: str = Field(default="", max_length=120)


class Sequence(Message):
    """Clips one after another, joined by a crossfade of ``transition_s`` seconds."""

    kind: Literal["sequence"] = "sequence"
    clips: list[ArtifactRef] = Field(min_length=1, max_length=500)
    transition_s: float = Field(default=0.5, ge=0, le=3)


class SourceVideo(Message):
    """An existing video (or audio, shown on a plain background), for burning captions in; keeps its own sound."""

    kind: Literal["source"] = "source"
    video: ArtifactRef


class CompositionRequest(TaskRequest):
    """Make the final MP4: H.264 yuv420p, AAC 48 kHz, faststart; ``subtitles`` (SRT) becomes a soft track,
    ``burn_in`` (ASS) is drawn into the picture. ``audio`` is required unless the scene is a source video.
    """

    scene: Annotated[SplitScreen | Sequence | SourceVideo, Field(discriminator="kind")]
    audio: ArtifactRef | None = None
    subtitles: ArtifactRef | None = None
    burn_in: ArtifactRef | None = None
    language: Language = "en"
    width: Pixels = 1280
    height: Pixels = 720
    fps: Fps = 25
    duration_s: PositiveSeconds


class CompositionResult(TaskResult):
    """The MP4 and a JPEG thumbnail, not from a black frame."""

    video: ArtifactRef
    thumbnail: ArtifactRef
    duration_s: Seconds

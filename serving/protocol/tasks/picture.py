"""Tasks that make pictures and clips from words and pictures.

The one invariant: as in serving.protocol.tasks, media travel as :class:`ArtifactRef` and times are seconds.
"""

from typing import Literal

from pydantic import Field

from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks.base import Fps, Guidance, Pixels, PositiveSeconds, Seed, Steps, TaskRequest, TaskResult


class ImageRequest(TaskRequest):
    """A picture from words; builtin engines draw a title card from ``prompt`` and ``title``.

    ``control`` is a picture that guides the composition (edges, depth, pose), for models with a ControlNet, with a
    weight of ``control_scale``. ``adapter`` is one of the model's fine-tunes.
    """

    prompt: str = Field(min_length=1, max_length=2000)
    title: str | None = Field(default=None, max_length=120)
    width: Pixels = 1280
    height: Pixels = 720
    seed: Seed = 0
    negative_prompt: str = Field(default="", max_length=2000)
    steps: Steps | None = None
    guidance: Guidance | None = None
    control: ArtifactRef | None = None
    control_scale: float = Field(default=1.0, ge=0, le=2)
    adapter: str | None = Field(default=None, max_length=64)


class ImageResult(TaskResult):
    """A PNG of the size asked for."""

    image: ArtifactRef
    width: int
    height: int


class TextToVideoRequest(TaskRequest):
    """A clip from words. The model's own number of frames, rate and length bound ``duration_s``."""

    prompt: str = Field(min_length=1, max_length=2000)
    negative_prompt: str = Field(default="", max_length=2000)
    duration_s: PositiveSeconds = 2.0
    width: Pixels = 720
    height: Pixels = 480
    fps: Fps = 8
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed = 0
    adapter: str | None = Field(default=None, max_length=64)


class ImageToVideoRequest(TaskRequest):
    """Bring a still picture to motion; ``motion`` is for builtin cameras, ``prompt`` for models that read one."""

    image: ArtifactRef
    duration_s: PositiveSeconds
    motion: Literal["zoom_in", "zoom_out", "pan_left", "pan_right", "pan_up", "pan_down"] = "zoom_in"
    width: Pixels = 1280
    height: Pixels = 720
    fps: Fps = 25
    seed: Seed = 0
    prompt: str = Field(default="", max_length=2000)
    negative_prompt: str = Field(default="", max_length=2000)
    steps: Steps | None = None
    guidance: Guidance | None = None
    adapter: str | None = Field(default=None, max_length=64)


class VideoResult(TaskResult):
    """A silent H.264 clip with exactly ``frames`` frames at ``fps``; clips of one size and rate join by copy.

    ``audio`` is the sound that some video models make with the picture: WAV, as long as the clip.
    """

    video: ArtifactRef
    frames: int
    fps: int
    audio: ArtifactRef | None = None

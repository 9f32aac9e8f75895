"""Tasks of faces: where they are, how they speak and move, and whether somebody made them up.

The one invariant: as in serving.protocol.tasks, media travel as :class:`ArtifactRef` and times are seconds.
"""

from pydantic import Field

from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks.base import (
    Fps,
    Message,
    Phoneme,
    Pixels,
    PositiveSeconds,
    Seconds,
    Seed,
    TaskRequest,
    TaskResult,
)


class FaceLandmarksRequest(TaskRequest):
    """Find the one most prominent face in a picture."""

    image: ArtifactRef


class FaceLandmarksResult(TaskResult):
    """468 face-mesh points in pixels of the picture, in MediaPipe's order, and the detector's score (0 to 1)."""

    points: list[tuple[float, float]] = Field(min_length=468, max_length=468)
    score: float
    width: int
    height: int


class LipSyncRequest(TaskRequest):
    """Animate a portrait. Without ``phonemes`` the mouth follows ``features``; without both it is a listener's: closed
    mouth, blinks, nods.

    ``start_s`` is the clip's place in the programme: head pose and blinks are functions of programme time and ``seed``,
    so that clips rendered apart join without a jump. ``audio`` is the voice itself, for engines that listen; it begins
    with the clip. ``features`` (an AudioFeaturesResult's, whose first frame lies
    ``features_offset_s`` after the clip's start, as the phonemes do) scales how far the jaw opens.
    """

    portrait: ArtifactRef
    points: list[tuple[float, float]] = Field(min_length=468, max_length=468)
    phonemes: list[Phoneme] = Field(default=[])
    features: ArtifactRef | None = None
    features_offset_s: Seconds = 0.0
    start_s: Seconds = 0.0
    duration_s: PositiveSeconds
    width: Pixels = 640
    height: Pixels = 720
    fps: Fps = 25
    seed: Seed = 0
    audio: ArtifactRef | None = None


class FaceAnimationRequest(TaskRequest):
    """Move a face as another moves: the person of ``source`` (a picture) with the motion of ``driving`` (a clip).

    With ``relative`` the motion is taken from the driving clip's first frame on, so that the source keeps its own pose.
    """

    source: ArtifactRef
    driving: ArtifactRef
    relative: bool = True
    width: Pixels = 256
    height: Pixels = 256
    fps: Fps = 25


class FaceMotionRequest(TaskRequest):
    """The motion of a speaking face from ``audio``, in coefficients of a 3D morphable face model."""

    audio: ArtifactRef
    pose_style: int = Field(default=0, ge=0, le=45)
    seed: Seed = 0


class FaceMotionResult(TaskResult):
    """``coefficients`` is an ``.npy`` file, float32 (frames, 70): 64 of expression, then 3 of rotation and 3 of
    translation; 25 frames a second.
    """

    coefficients: ArtifactRef
    frames: int
    fps: int = 25


class ManipulationRequest(TaskRequest):
    """Look whether faces in a picture or a clip were manipulated; ``threshold`` is the score that fails the gate."""

    media: ArtifactRef
    threshold: float = Field(default=0.5, gt=0, lt=1)
    frames: int = Field(default=16, ge=1, le=256)


class FrameScore(Message):
    """One face that was looked at: when, where (pixels: left, top, width, height) and its score, 1 is manipulated."""

    time_s: Seconds
    box: tuple[int, int, int, int]
    score: float = Field(ge=0, le=1)


class ManipulationResult(TaskResult):
    """``score`` is the mean over the faces; ``passed`` says that it is below the threshold."""

    score: float = Field(ge=0, le=1)
    passed: bool
    frames: list[FrameScore]

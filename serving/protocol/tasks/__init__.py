"""The typed tasks: one frozen request and one result per task; used by engines, backends, router and graphs.

The one invariant: requests and results are small (media travel as :class:`ArtifactRef`), so they can be stored as a
stage's record, hashed and replayed. Times are seconds from the start of the medium, as floats.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from serving.protocol.tasks.base import (
    MAX_SECONDS,
    MAX_TEXT_CHARS,
    Fps,
    Guidance,
    Language,
    Made,
    Message,
    Phoneme,
    Pixels,
    PositiveSeconds,
    Seconds,
    Seed,
    Span,
    Steps,
    TaskRequest,
    TaskResult,
    Word,
)
from serving.protocol.tasks.composition import (
    CompositionRequest,
    CompositionResult,
    Panel,
    Sequence,
    SourceVideo,
    SplitScreen,
)
from serving.protocol.tasks.face import (
    FaceAnimationRequest,
    FaceLandmarksRequest,
    FaceLandmarksResult,
    FaceMotionRequest,
    FaceMotionResult,
    FrameScore,
    LipSyncRequest,
    ManipulationRequest,
    ManipulationResult,
)
from serving.protocol.tasks.picture import (
    ImageRequest,
    ImageResult,
    ImageToVideoRequest,
    TextToVideoRequest,
    VideoResult,
)
from serving.protocol.tasks.sound import (
    AudioMixRequest,
    AudioMixResult,
    Mood,
    MusicRequest,
    MusicResult,
    PlacedAudio,
)
from serving.protocol.tasks.speech import (
    AlignmentRequest,
    AlignmentResult,
    AudioFeaturesRequest,
    AudioFeaturesResult,
    SpeechRequest,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
    TranslationRequest,
    TranslationResult,
    VoiceActivityRequest,
    VoiceActivityResult,
)

__all__ = [
    "MAX_SECONDS",
    "MAX_TEXT_CHARS",
    "TASKS",
    "AlignmentRequest",
    "AlignmentResult",
    "AudioFeaturesRequest",
    "AudioFeaturesResult",
    "AudioMixRequest",
    "AudioMixResult",
    "CompositionRequest",
    "CompositionResult",
    "FaceAnimationRequest",
    "FaceLandmarksRequest",
    "FaceLandmarksResult",
    "FaceMotionRequest",
    "FaceMotionResult",
    "Fps",
    "FrameScore",
    "Guidance",
    "ImageRequest",
    "ImageResult",
    "ImageToVideoRequest",
    "Language",
    "LipSyncRequest",
    "Made",
    "ManipulationRequest",
    "ManipulationResult",
    "Message",
    "Mood",
    "MusicRequest",
    "MusicResult",
    "Panel",
    "Phoneme",
    "Pixels",
    "PlacedAudio",
    "PositiveSeconds",
    "Seconds",
    "Seed",
    "Sequence",
    "SourceVideo",
    "Span",
    "SpeechRequest",
    "SpeechResult",
    "SplitScreen",
    "Steps",
    "TaskRequest",
    "TaskResult",
    "TaskSpec",
    "TextToVideoRequest",
    "TranscriptionRequest",
    "TranscriptionResult",
    "TranslationRequest",
    "TranslationResult",
    "VideoResult",
    "VoiceActivityRequest",
    "VoiceActivityResult",
    "Word",
    "adapter_of",
]


class TaskSpec(NamedTuple):
    """A task's request and result types."""

    request: type[TaskRequest]
    result: type[TaskResult]


TASKS: Final[Mapping[str, TaskSpec]] = {
    "speech": TaskSpec(SpeechRequest, SpeechResult),
    "alignment": TaskSpec(AlignmentRequest, AlignmentResult),
    "transcription": TaskSpec(TranscriptionRequest, TranscriptionResult),
    "translation": TaskSpec(TranslationRequest, TranslationResult),
    "voice_activity": TaskSpec(VoiceActivityRequest, VoiceActivityResult),
    "audio_features": TaskSpec(AudioFeaturesRequest, AudioFeaturesResult),
    "face_landmarks": TaskSpec(FaceLandmarksRequest, FaceLandmarksResult),
    "lip_sync": TaskSpec(LipSyncRequest, VideoResult),
    "music": TaskSpec(MusicRequest, MusicResult),
    "image": TaskSpec(ImageRequest, ImageResult),
    "text_to_video": TaskSpec(TextToVideoRequest, VideoResult),
    "image_to_video": TaskSpec(ImageToVideoRequest, VideoResult),
    "face_animation": TaskSpec(FaceAnimationRequest, VideoResult),
    "face_motion": TaskSpec(FaceMotionRequest, FaceMotionResult),
    "manipulation_detection": TaskSpec(ManipulationRequest, ManipulationResult),
    "audio_mix": TaskSpec(AudioMixRequest, AudioMixResult),
    "composition": TaskSpec(CompositionRequest, CompositionResult),
}
"""Every task by name; a model of task ``tensor`` has no typed form and is reached by OIP alone."""


def adapter_of(request: TaskRequest) -> str | None:
    """The fine-tune that a request names, where its task knows any."""
    name = getattr(request, "adapter", None)
    return name if isinstance(name, str) else None

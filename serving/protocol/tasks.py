"""The typed tasks: one frozen request and one result per task; used by engines, backends, router and graphs.

The one invariant: requests and results are small (media travel as :class:`ArtifactRef`), so they can be stored as a
stage's record, hashed and replayed. Times are seconds from the start of the medium, as floats.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.protocol.artifact import ArtifactRef

MAX_TEXT_CHARS: Final = 20_000
MAX_SECONDS: Final = 4 * 3600.0

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Pixels = Annotated[int, Field(ge=16, le=4096, multiple_of=2)]
Fps = Annotated[int, Field(ge=1, le=60)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,4})?$")]


class Message(BaseModel):
    """Base of every request, result and part: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskRequest(Message):
    """Base of every task's request."""


class TaskResult(Message):
    """Base of every task's result."""


class Span(Message):
    """A stretch of time, ``start_s <= end_s``."""

    start_s: Seconds
    end_s: Seconds


class Word(Span):
    """One spoken word with its times."""

    text: str


class Phoneme(Span):
    """One phoneme, written in the International Phonetic Alphabet, with its times."""

    symbol: str


class SpeechRequest(TaskRequest):
    """Text to speech. ``voice`` is one of the model's voices; ``speed`` is a factor on the normal pace."""

    text: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    voice: str = Field(min_length=1, max_length=64)
    language: Language = "en"
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    seed: Seed = 0


class SpeechResult(TaskResult):
    """``audio`` is mono 16-bit WAV; ``words`` and ``phonemes`` are empty where an engine cannot tell them."""

    audio: ArtifactRef
    sample_rate_hz: int
    duration_s: Seconds
    words: list[Word] = []
    phonemes: list[Phoneme] = []


class AlignmentRequest(TaskRequest):
    """Find when each word of ``text`` is spoken in ``audio`` (any format ffmpeg reads)."""

    audio: ArtifactRef
    text: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    language: Language = "en"


class AlignmentResult(TaskResult):
    """The words of the text, in order, with times."""

    words: list[Word]


class TranscriptionRequest(TaskRequest):
    """Speech to words. ``spans`` restricts the work to where voice activity was found; None hears all of it."""

    audio: ArtifactRef
    language: Language | None = None
    spans: list[Span] | None = None


class TranscriptionResult(TaskResult):
    """What was said, with word times, and the language heard or asked for."""

    language: str
    words: list[Word]


class VoiceActivityRequest(TaskRequest):
    """Find speech. ``threshold`` is the speech probability above which a 32 ms window counts as speech."""

    audio: ArtifactRef
    threshold: float = Field(default=0.5, gt=0, lt=1)
    min_speech_s: float = Field(default=0.25, ge=0, le=10)
    min_silence_s: float = Field(default=0.3, ge=0, le=10)
    padding_s: float = Field(default=0.1, ge=0, le=2)


class VoiceActivityResult(TaskResult):
    """Speech spans in order, without overlap, and the length of the audio."""

    spans: list[Span]
    duration_s: Seconds


class AudioFeaturesRequest(TaskRequest):
    """Log-mel features of ``audio`` as Whisper defines them: 16 kHz, 25 ms window, 10 ms hop, 80 bands."""

    audio: ArtifactRef


class AudioFeaturesResult(TaskResult):
    """``features`` is an ``.npy`` file, float32 (frames, 80), natural range about -1 to 1; 100 frames a second."""

    features: ArtifactRef
    frames: int
    hop_s: float = 0.01


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
    so that clips rendered apart join without a jump. ``features`` (an AudioFeaturesResult's, whose first frame lies
    ``features_offset_s`` after the clip's start, as the phonemes do) scales how far the jaw opens.
    """

    portrait: ArtifactRef
    points: list[tuple[float, float]] = Field(min_length=468, max_length=468)
    phonemes: list[Phoneme] = []
    features: ArtifactRef | None = None
    features_offset_s: Seconds = 0.0
    start_s: Seconds = 0.0
    duration_s: PositiveSeconds
    width: Pixels = 640
    height: Pixels = 720
    fps: Fps = 25
    seed: Seed = 0


class VideoResult(TaskResult):
    """A silent H.264 clip with exactly ``frames`` frames at ``fps``; clips of one size and rate join by copy."""

    video: ArtifactRef
    frames: int
    fps: int


Mood = Literal["calm", "bright", "dramatic"]


class MusicRequest(TaskRequest):
    """An instrumental bed of ``duration_s`` seconds; it ends by itself, without a cut.

    ``prompt`` says in words what it shall sound like; engines that compose by rule go by ``mood`` alone.
    """

    duration_s: PositiveSeconds
    mood: Mood = "calm"
    seed: Seed = 0
    prompt: str = Field(default="", max_length=2000)


class MusicResult(TaskResult):
    """Stereo 48 kHz 16-bit WAV."""

    audio: ArtifactRef
    duration_s: Seconds


class ImageRequest(TaskRequest):
    """A picture from words; builtin engines draw a title card from ``prompt`` and ``title``."""

    prompt: str = Field(min_length=1, max_length=2000)
    title: str | None = Field(default=None, max_length=120)
    width: Pixels = 1280
    height: Pixels = 720
    seed: Seed = 0


class ImageResult(TaskResult):
    """A PNG of the size asked for."""

    image: ArtifactRef
    width: int
    height: int


class ImageToVideoRequest(TaskRequest):
    """Bring a still picture to motion."""

    image: ArtifactRef
    duration_s: PositiveSeconds
    motion: Literal["zoom_in", "zoom_out", "pan_left", "pan_right", "pan_up", "pan_down"] = "zoom_in"
    width: Pixels = 1280
    height: Pixels = 720
    fps: Fps = 25
    seed: Seed = 0


class PlacedAudio(Message):
    """A piece of audio and when it starts in the programme."""

    audio: ArtifactRef
    start_s: Seconds = 0.0


class AudioMixRequest(TaskRequest):
    """Lay voices on a timeline, duck the music under them and bring the sum to broadcast loudness.

    Without voices the music is mastered alone: in stereo, from its first sample, at its own balance.
    """

    voices: list[PlacedAudio] = Field(max_length=2000)
    music: ArtifactRef | None = None
    music_gain_db: float = Field(default=-14.0, ge=-60, le=0)
    duration_s: PositiveSeconds
    loudness_lufs: float = Field(default=-16.0, ge=-31, le=-9)
    true_peak_dbtp: float = Field(default=-1.5, ge=-9, le=0)

    @model_validator(mode="after")
    def _holds_sound(self) -> Self:
        if not self.voices and self.music is None:
            raise ValueError("there is nothing to mix: give voices or music")
        return self


class AudioMixResult(TaskResult):
    """Stereo 48 kHz WAV, with its loudness as measured after the mix (ITU-R BS.1770)."""

    audio: ArtifactRef
    duration_s: Seconds
    loudness_lufs: float
    true_peak_dbtp: float


class Panel(Message):
    """One side of a split screen: clips that together last the whole programme, and a lower third."""

    clips: list[ArtifactRef] = Field(min_length=1, max_length=4000)
    name: str = Field(max_length=60)
    title: str = Field(default="", max_length=80)
    speaking: list[Span] = []


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


class TaskSpec(NamedTuple):
    """A task's request and result types."""

    request: type[TaskRequest]
    result: type[TaskResult]


TASKS: Final[Mapping[str, TaskSpec]] = {
    "speech": TaskSpec(SpeechRequest, SpeechResult),
    "alignment": TaskSpec(AlignmentRequest, AlignmentResult),
    "transcription": TaskSpec(TranscriptionRequest, TranscriptionResult),
    "voice_activity": TaskSpec(VoiceActivityRequest, VoiceActivityResult),
    "audio_features": TaskSpec(AudioFeaturesRequest, AudioFeaturesResult),
    "face_landmarks": TaskSpec(FaceLandmarksRequest, FaceLandmarksResult),
    "lip_sync": TaskSpec(LipSyncRequest, VideoResult),
    "music": TaskSpec(MusicRequest, MusicResult),
    "image": TaskSpec(ImageRequest, ImageResult),
    "image_to_video": TaskSpec(ImageToVideoRequest, VideoResult),
    "audio_mix": TaskSpec(AudioMixRequest, AudioMixResult),
    "composition": TaskSpec(CompositionRequest, CompositionResult),
}
"""Every task by name; a model of task ``tensor`` has no typed form and is reached by OIP alone."""

"""Compare two results of one task request, by torch and with an exported part; called by the task-level gate.

The one invariant: every kind of result that a network makes is measured on what its user gets, the decoded media, and
a result that differs in kind (length, size, number of texts) fails instead of being cut to fit.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from optimize.quality.bounds import BOUNDS, Bounds
from optimize.quality.files import read_array, read_clip, read_picture, read_sound
from optimize.quality.rows import (
    array_rows,
    frame_rows,
    landmark_rows,
    same,
    score_rows,
    sound_rows,
    text_rows,
    time_rows,
)
from optimize.report import QualityRow
from serving.errors import BadInput
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AudioFeaturesResult,
    FaceLandmarksResult,
    FaceMotionResult,
    ImageResult,
    ManipulationResult,
    MusicResult,
    Span,
    SpeechResult,
    TaskResult,
    TranscriptionResult,
    TranslationResult,
    VideoResult,
    VoiceActivityResult,
)

LocalPath = Callable[[ArtifactRef], Path]
"""Where an artifact's bytes lie on this machine."""

Rows = list[QualityRow]


def compare(
    task: str, expected: TaskResult, found: TaskResult, local_path: LocalPath, bounds: Bounds = BOUNDS["fp32"]
) -> Rows:
    """How near ``found`` is to ``expected``.

    Args:
        task: the request's task, for the message.
        expected: the result by torch.
        found: the result of the same request, seed included, with the exported part swapped in.
        local_path: gives the files of both.
        bounds: of the part's precision, or the part's own.

    Returns:
        A row per measure, in a fixed order, never none; the gate is passed when all of them are.

    Raises:
        BadInput: no network does this task, the results are of two tasks, or a file of a result cannot be read.
    """
    match expected, found:
        case ImageResult() as one, ImageResult() as other:
            return frame_rows(read_picture(local_path(one.image)), read_picture(local_path(other.image)), bounds)
        case VideoResult() as one, VideoResult() as other:
            return _clips(one, other, local_path, bounds)
        case ((SpeechResult() | MusicResult() as one), (SpeechResult() | MusicResult() as other)):
            return _sounds(local_path(one.audio), local_path(other.audio), bounds)
        case AudioFeaturesResult() as one, AudioFeaturesResult() as other:
            return _arrays(local_path(one.features), local_path(other.features), bounds)
        case FaceMotionResult() as one, FaceMotionResult() as other:
            return _arrays(local_path(one.coefficients), local_path(other.coefficients), bounds)
    return _facts(task, expected, found, bounds)


def _facts(task: str, expected: TaskResult, found: TaskResult, bounds: Bounds) -> Rows:
    """The same for results without files."""
    match expected, found:
        case TranscriptionResult() as one, TranscriptionResult() as other:
            return _transcripts(one, other, bounds)
        case TranslationResult() as one, TranslationResult() as other:
            return text_rows(one.texts, other.texts, bounds)
        case VoiceActivityResult() as one, VoiceActivityResult() as other:
            return _spans(one, other, bounds)
        case FaceLandmarksResult() as one, FaceLandmarksResult() as other:
            scores = score_rows([one.score], [other.score], bounds)
            return landmark_rows(one.points, other.points, bounds) + scores
        case ManipulationResult() as one, ManipulationResult() as other:
            return _verdicts(one, other, bounds)
    raise BadInput(
        f"results of the task {task!r} cannot be compared: {type(expected).__name__}, {type(found).__name__}",
        field="task",
        fix="compare two results of one task that a network does",
    )


def _clips(one: VideoResult, other: VideoResult, local_path: LocalPath, bounds: Bounds) -> Rows:
    if different := same("clip", "frames, frames a second", (one.frames, one.fps), (other.frames, other.fps)):
        return different
    if different := same("sound", "", one.audio is not None, other.audio is not None):
        return different
    first, second = (read_clip(local_path(each.video), each.frames, each.fps) for each in (one, other))
    rows = frame_rows(first, second, bounds, encoded=True)
    if one.audio is not None and other.audio is not None:
        rows += _sounds(local_path(one.audio), local_path(other.audio), bounds)
    return rows


def _sounds(one: Path, other: Path, bounds: Bounds) -> Rows:
    (expected, expected_hz), (found, found_hz) = read_sound(one), read_sound(other)
    return sound_rows(expected, found, (expected_hz, found_hz), bounds)


def _arrays(one: Path, other: Path, bounds: Bounds) -> Rows:
    return array_rows(read_array(one), read_array(other), bounds)


def _transcripts(one: TranscriptionResult, other: TranscriptionResult, bounds: Bounds) -> Rows:
    """Times are compared where all words are the same, since only then each has its counterpart."""
    if different := same("language", "", one.language, other.language):
        return different
    expected, found = (" ".join(word.text.strip() for word in each.words) for each in (one, other))
    rows = text_rows([expected], [found], bounds)
    return rows + time_rows(_times(one.words), _times(other.words), bounds) if expected == found else rows


def _spans(one: VoiceActivityResult, other: VoiceActivityResult, bounds: Bounds) -> Rows:
    wanted = len(one.spans) or "any speech, without which nothing is proven"
    different = same("speech", "spans", wanted, len(other.spans))
    return different or time_rows(_times(one.spans), _times(other.spans), bounds)


def _verdicts(one: ManipulationResult, other: ManipulationResult, bounds: Bounds) -> Rows:
    if different := same("verdict", "", one.passed, other.passed):
        return different
    rows = score_rows([one.score], [other.score], bounds)
    faces = [[face.score for face in each.frames] for each in (one, other)]
    return rows + score_rows(faces[0], faces[1], bounds, measure="worst face's score")


def _times(spans: Sequence[Span]) -> list[tuple[float, float]]:
    return [(span.start_s, span.end_s) for span in spans]

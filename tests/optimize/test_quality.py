import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import astuple, replace
from itertools import pairwise
from math import inf
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from optimize.quality import BOUNDS, compare, frame_rows, text_rows
from optimize.quality.measures import psnr_db, ssim, word_errors, words_of
from optimize.report import QualityRow
from serving.backends.ray.engines.audio_signal import wav_bytes
from serving.backends.ray.engines.networks.clips import encode
from serving.errors import BadInput
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    CompositionResult,
    FaceLandmarksResult,
    FaceMotionResult,
    FrameScore,
    ImageResult,
    ManipulationResult,
    Span,
    SpeechResult,
    TaskResult,
    TranscriptionResult,
    TranslationResult,
    VideoResult,
    VoiceActivityResult,
    Word,
)

FP32, INT8 = BOUNDS["fp32"], BOUNDS["int8"]


class Files:
    """A folder of artifacts, by content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, content: bytes) -> ArtifactRef:
        name = hashlib.sha256(content).hexdigest()
        (self.folder / name).write_bytes(content)
        return ArtifactRef(sha256=name, size_bytes=len(content))

    def local(self, ref: ArtifactRef) -> Path:
        return self.folder / ref.sha256

    def image(self, pixels: np.ndarray) -> ImageResult:
        file = self.folder / "drawn.png"
        Image.fromarray(pixels).save(file)
        return ImageResult(image=self.keep(file.read_bytes()), width=pixels.shape[1], height=pixels.shape[0])

    def video(self, frames: np.ndarray, audio: ArtifactRef | None = None) -> VideoResult:
        clip = encode(iter(frames), frames.shape[2], frames.shape[1], 8, self.folder)
        return VideoResult(video=self.keep(clip.path.read_bytes()), frames=len(frames), fps=8, audio=audio)

    def sound(self, samples: np.ndarray, rate_hz: int = 16_000) -> ArtifactRef:
        return self.keep(wav_bytes(samples, rate_hz))

    def speech(self, samples: np.ndarray, rate_hz: int = 16_000) -> SpeechResult:
        return SpeechResult(
            audio=self.sound(samples, rate_hz), sample_rate_hz=rate_hz, duration_s=len(samples) / rate_hz
        )

    def motion(self, values: np.ndarray) -> FaceMotionResult:
        file = self.folder / "motion.npy"
        np.save(file, values)
        return FaceMotionResult(coefficients=self.keep(file.read_bytes()), frames=len(values))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def moving(frames: int = 6, height: int = 64, width: int = 96) -> np.ndarray:
    """A smooth scene that a camera pans over, float, 0 to 255."""
    noise = np.random.default_rng(1).standard_normal((height + 2 * frames, width + 2 * frames, 3))
    scene = np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 300 + 128, 0, 255)
    return np.stack([scene[at : at + height, at : at + width] for at in range(frames)])


def levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def off_by(values: np.ndarray, share: float) -> np.ndarray:
    return values + np.random.default_rng(2).uniform(-share, share, values.shape) * 255


def voice(seconds: float = 0.5) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 180 * time) * (1 + np.sin(2 * np.pi * 4 * time)) / 2).astype(np.float32)


def by_measure(rows: list[QualityRow]) -> dict[str, QualityRow]:
    return {row.measure: row for row in rows}


def passed(rows: list[QualityRow]) -> bool:
    assert rows
    return all(row.passed for row in rows)


def test_structural_similarity_is_that_of_the_field() -> None:
    """The value is skimage 0.26's: gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255."""
    y, x = np.mgrid[0:48, 0:64]
    one = ((np.sin(x / 5) + np.cos(y / 7) + 2) * 60).astype(np.uint8)
    other = np.clip(one.astype(int) + ((x * 7 + y * 13) % 31 - 15), 0, 255).astype(np.uint8)
    pictures = [np.repeat(grey[..., None], 3, axis=2) for grey in (one, other)]
    assert ssim(*pictures) == pytest.approx(0.8444530342593134, abs=1e-12)
    assert ssim(pictures[0], pictures[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(("squared_error", "decibels"), [(65025.0, 0.0), (1.0, 48.1308), (0.0, inf)])
def test_psnr_is_of_the_largest_level(squared_error: float, decibels: float) -> None:
    assert psnr_db(squared_error) == pytest.approx(decibels, abs=1e-4)


@pytest.mark.parametrize(
    ("expected", "found", "errors"),
    [
        pytest.param("the cat sat", "the cat sat", 0, id="equal"),
        pytest.param("the cat sat", "the bat sat", 1, id="replaced"),
        pytest.param("the cat sat", "the sat", 1, id="left out"),
        pytest.param("the cat sat", "so the cat sat", 1, id="put in"),
        pytest.param("a b c d", "b c d e", 2, id="moved"),
        pytest.param("", "one two", 2, id="out of nothing"),
        pytest.param("今日は晴れ", "今日は雨", 2, id="a script without spaces"),
    ],
)
def test_word_errors_are_counted(expected: str, found: str, errors: int) -> None:
    assert word_errors(words_of(expected), words_of(found)) == errors
    assert word_errors(words_of(found), words_of(expected)) == errors


def test_a_picture_off_by_a_thousandth_is_good_for_fp32_and_one_off_by_a_fiftieth_for_int8_alone(files: Files) -> None:
    picture = moving(1)[0]
    expected = files.image(levels(picture))
    near, far = files.image(levels(off_by(picture, 1e-3))), files.image(levels(off_by(picture, 2e-2)))
    rows = by_measure(compare("image", expected, near, files.local))
    assert list(rows) == ["PSNR", "SSIM"]
    assert 55 < rows["PSNR"].value < 60
    assert passed(list(rows.values()))
    assert not passed(compare("image", expected, far, files.local))
    assert passed(compare("image", expected, far, files.local, INT8))


def test_a_picture_of_another_size_is_not_cut_to_fit(files: Files) -> None:
    pixels = levels(moving(1)[0])
    (row,) = compare("image", files.image(pixels), files.image(pixels[:-2]), files.local)
    assert not row.passed
    assert row.reason == "(1, 62, 96) instead of (1, 64, 96)"


@pytest.mark.parametrize("contrast", [pytest.param(0, id="one colour"), pytest.param(0.5, id="hardly any contrast")])
def test_flat_pictures_prove_nothing(files: Files, contrast: float) -> None:
    flat = files.image(levels(128 + contrast * np.sign(moving(1)[0] - 128)))
    rows = compare("image", flat, flat, files.local)
    assert not any(row.passed for row in rows)
    assert "flat" in rows[0].reason


def test_clips_are_compared_as_they_are_seen(files: Files) -> None:
    frames = moving()
    expected = files.video(levels(frames))
    rows = by_measure(compare("lip_sync", expected, files.video(levels(off_by(frames, 1e-3))), files.local))
    assert list(rows) == ["PSNR", "SSIM", "PSNR, worst frame", "SSIM, worst frame"]
    assert passed(list(rows.values()))
    assert rows["PSNR, worst frame"].value <= rows["PSNR"].value < 50
    equal = compare("lip_sync", expected, expected, files.local)
    assert passed(equal)
    assert equal[0].value == inf


def test_one_bad_frame_of_many_fails_a_clip(files: Files) -> None:
    frames = moving(24)
    broken = frames.copy()
    broken[9] = off_by(frames[9], 0.1)
    rows = by_measure(compare("text_to_video", files.video(levels(frames)), files.video(levels(broken)), files.local))
    assert not rows["PSNR, worst frame"].passed
    assert not rows["SSIM, worst frame"].passed


def test_a_clip_of_another_length_or_without_its_sound_fails(files: Files) -> None:
    frames = levels(moving())
    silent, sounding = files.video(frames), files.video(frames, files.sound(voice()))
    (length,) = compare("text_to_video", silent, files.video(frames[:-1]), files.local)
    assert length.reason == "(5, 8) instead of (6, 8)"
    assert not passed(compare("text_to_video", sounding, silent, files.local))
    assert by_measure(compare("text_to_video", sounding, sounding, files.local))["SNR"].value == inf


def test_clips_can_be_compared_inside_a_running_loop(files: Files) -> None:
    clip = files.video(levels(moving()))

    async def within() -> list[QualityRow]:
        return compare("text_to_video", clip, clip, files.local)

    assert passed(asyncio.run(within()))


def test_frames_before_the_encoder_are_held_to_the_bounds_of_pictures() -> None:
    frames = moving()
    assert passed(frame_rows(levels(frames), levels(off_by(frames, 1e-3)), FP32))
    assert not passed(frame_rows(levels(frames), levels(off_by(frames, 1e-2)), FP32))


def test_a_voice_off_by_a_ten_thousandth_passes_and_one_off_by_a_hundredth_does_not(files: Files) -> None:
    expected = files.speech(voice())
    near = compare("speech", expected, files.speech(voice() * np.float32(1.0001)), files.local)
    assert [row.measure for row in near] == ["length", "SNR"]
    assert passed(near)
    rows = by_measure(compare("speech", expected, files.speech(voice() * np.float32(1.01)), files.local))
    assert rows["SNR"].value == pytest.approx(40, abs=0.2)
    assert not rows["SNR"].passed


@pytest.mark.parametrize(
    ("expected", "found", "rate_hz", "reason"),
    [
        pytest.param(voice(), voice()[:-1], 16_000, "7999, 1, 16000", id="shorter"),
        pytest.param(voice(), voice(), 22_050, "22050", id="another rate"),
        pytest.param(voice(), np.stack([voice(), voice()], axis=1), 16_000, "8000, 2", id="more channels"),
        pytest.param(voice() * 0, voice() * 0, 16_000, "silent", id="silence"),
        pytest.param(voice() / 1000, voice() / 1000, 16_000, "silent", id="rounding noise"),
    ],
)
def test_sound_that_cannot_be_compared_fails(
    files: Files, expected: np.ndarray, found: np.ndarray, rate_hz: int, reason: str
) -> None:
    rows = compare("speech", files.speech(expected), files.speech(found, rate_hz), files.local)
    assert not rows[-1].passed
    assert reason in rows[-1].reason


def transcript(text: str, later_s: float = 0.0, language: str = "en") -> TranscriptionResult:
    words = [Word(start_s=at + later_s, end_s=at + later_s + 0.4, text=word) for at, word in enumerate(text.split())]
    return TranscriptionResult(language=language, words=words)


def test_transcripts_are_the_same_words_at_the_same_times(files: Files) -> None:
    said = transcript("one small step")
    rows = by_measure(compare("transcription", said, transcript("one small step", 0.01), files.local))
    assert rows["word error rate"].value == 0
    assert rows["times"].value == pytest.approx(0.01)
    assert passed(list(rows.values()))
    assert not passed(compare("transcription", said, transcript("one small step", 0.1), files.local))
    (wrong,) = compare("transcription", said, transcript("one tall step"), files.local)
    assert wrong.value == pytest.approx(1 / 3)
    assert not wrong.passed
    assert not passed(compare("transcription", said, transcript("one small step", language="de"), files.local))


def test_int8_may_change_one_word_of_twenty() -> None:
    words = [f"w{index}" for index in range(20)]
    assert passed(text_rows([" ".join(words)], [" ".join([*words[:-1], "x"])], INT8))
    assert not passed(text_rows([" ".join(words)], [" ".join([*words[:-2], "x", "y"])], INT8))


@pytest.mark.parametrize(
    ("expected", "found", "reason"),
    [
        pytest.param(transcript(""), transcript(""), "no words", id="an empty transcript"),
        pytest.param(TranslationResult(texts=[""]), TranslationResult(texts=[""]), "no words", id="nothing translated"),
        pytest.param(TranslationResult(texts=["a", "b"]), TranslationResult(texts=["a"]), "1 instead of 2", id="fewer"),
        pytest.param(
            VoiceActivityResult(spans=[], duration_s=1),
            VoiceActivityResult(spans=[], duration_s=1),
            "any speech",
            id="no speech",
        ),
        pytest.param(
            ManipulationResult(score=1, passed=False, frames=[FrameScore(time_s=0, box=(0, 0, 9, 9), score=1)]),
            ManipulationResult(score=1, passed=False, frames=[FrameScore(time_s=0, box=(0, 0, 9, 9), score=1)]),
            "saturated",
            id="saturated scores",
        ),
        pytest.param(
            ManipulationResult(score=0.51, passed=False, frames=[]),
            ManipulationResult(score=0.49, passed=True, frames=[]),
            "True instead of False",
            id="another verdict",
        ),
    ],
)
def test_what_proves_nothing_or_differs_in_kind_fails(
    files: Files, expected: TaskResult, found: TaskResult, reason: str
) -> None:
    rows = compare("task", expected, found, files.local)
    assert not passed(rows)
    assert any(reason in row.reason for row in rows)


def face(shift: Callable[[int], float] = lambda index: 0.0, score: float = 0.9) -> FaceLandmarksResult:
    points = [(float(index % 30) * 4 + shift(index), float(index // 30) * 6) for index in range(468)]
    return FaceLandmarksResult(points=points, score=score, width=128, height=128)


def test_landmarks_are_measured_by_the_distance_of_the_eyes(files: Files) -> None:
    eyes_px = float(np.hypot(*np.subtract(face().points[263], face().points[33])))
    rows = by_measure(compare("face_landmarks", face(), face(lambda index: 1.0 if index else 5.0), files.local, INT8))
    assert rows["landmark distance"].value == pytest.approx(100 * (467 + 5) / 468 / eyes_px)
    assert rows["landmark distance, worst"].value == pytest.approx(100 * 5 / eyes_px)
    assert passed(list(rows.values()))
    assert not passed(compare("face_landmarks", face(), face(lambda index: 1.0), files.local))
    assert not passed(compare("face_landmarks", face(), face(score=0.8), files.local, INT8))


def test_coefficients_are_compared_as_a_signal_is(files: Files) -> None:
    values = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    assert passed(compare("face_motion", files.motion(values), files.motion(values * np.float32(1.0005)), files.local))
    assert not passed(compare("face_motion", files.motion(values), files.motion(values * 1.01), files.local))
    assert not passed(compare("face_motion", files.motion(values), files.motion(values[:4]), files.local))
    constant = files.motion(values * 0 + 1)
    assert not passed(compare("face_motion", constant, constant, files.local))


def test_results_of_two_kinds_or_of_no_network_are_refused(files: Files) -> None:
    ref = files.keep(b"film")
    film = CompositionResult(video=ref, thumbnail=ref, duration_s=1)
    with pytest.raises(BadInput, match="composition"):
        compare("composition", film, film, files.local)
    with pytest.raises(BadInput, match="TranslationResult, CompositionResult"):
        compare("translation", TranslationResult(texts=["a"]), film, files.local)


def test_a_file_that_is_no_picture_or_sound_is_named(files: Files) -> None:
    ref = files.keep(b"neither")
    image = ImageResult(image=ref, width=64, height=64)
    with pytest.raises(BadInput, match=r"image: .*a PNG"):
        compare("image", image, image, files.local)
    speech = SpeechResult(audio=ref, sample_rate_hz=16_000, duration_s=1)
    with pytest.raises(BadInput, match=r"audio: .*a WAV"):
        compare("speech", speech, speech, files.local)


def test_a_part_may_set_its_own_bound(files: Files) -> None:
    expected, found = files.speech(voice()), files.speech(voice() * np.float32(1.05))
    assert passed(compare("speech", expected, found, files.local, replace(INT8, snr_db=25.0)))
    assert not passed(compare("speech", expected, found, files.local, replace(INT8, snr_db=30.0)))


def test_a_lower_precision_never_has_a_stricter_bound() -> None:
    ordered = [astuple(BOUNDS[precision]) for precision in ("fp32", "fp16", "bf16", "int8")]
    for higher, lower in pairwise(ordered):
        assert all(a >= b for a, b in zip(higher[:5], lower[:5], strict=True))
        assert all(a <= b for a, b in zip(higher[5:], lower[5:], strict=True))


def span(start_s: float) -> VoiceActivityResult:
    return VoiceActivityResult(spans=[Span(start_s=start_s, end_s=start_s + 1)], duration_s=3)


def test_speech_is_found_where_it_was(files: Files) -> None:
    assert passed(compare("voice_activity", span(0.5), span(0.51), files.local))
    assert not passed(compare("voice_activity", span(0.5), span(0.6), files.local))

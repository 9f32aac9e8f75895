from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from optimize.recipes.log_mel import mel_filters, speech_like
from serving.repository.read import read_model

FOLDER = Path(__file__).parents[3] / "model_repository" / "log_mel"
TIME = np.arange(80_000) / 16_000
RANDOM = np.random.default_rng(1)

Samples = npt.NDArray[np.float32]


def whisper_features(audio: Samples) -> npt.NDArray[np.float64]:
    """Whisper's definition, written again in numpy and double precision."""
    padded = np.pad(audio.astype(np.float64), 200, mode="reflect")
    window = np.hanning(401)[:-1]
    frames = np.stack([padded[start : start + 400] * window for start in range(0, len(audio) // 160 * 160, 160)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    logs = np.log10(np.maximum(power @ mel_filters().T.astype(np.float64), 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(FOLDER / "1" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(speech_like((80_000,), RANDOM), id="speech"),
        pytest.param(np.float32(0.5 * np.sin(2 * np.pi * 1000 * TIME)), id="a pure tone beside silence"),
        pytest.param(np.zeros(16_000, np.float32), id="digital silence"),
        pytest.param(np.eye(1, 16_000, 8_000, dtype=np.float32)[0], id="a click"),
        pytest.param(np.float32(0.1 * RANDOM.standard_normal(40_007)), id="noise of an odd length"),
        pytest.param(np.float32(0.1 * RANDOM.standard_normal(201)), id="the shortest clip"),
    ],
)
def test_the_served_file_computes_whispers_features(session: ort.InferenceSession, audio: Samples) -> None:
    (features,) = session.run(None, {"AUDIO": audio})
    assert features.shape == (len(audio) // 160, 80)
    np.testing.assert_allclose(features, whisper_features(audio), atol=5e-5)


def test_mel_filters_are_slaneys() -> None:
    filters = mel_filters()
    assert filters.shape == (80, 201)
    peaks = filters.argmax(axis=1) * 40.0
    assert (np.diff(peaks) >= 0).all()
    # librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)[0, 1], as in whisper's mel_filters.npz
    assert filters[0, 1] == pytest.approx(0.02486259, rel=1e-6)
    assert filters.sum(axis=1).mean() * 40 == pytest.approx(1, rel=0.01)


def test_faster_whisper_agrees(session: ort.InferenceSession) -> None:
    extractor = FeatureExtractor()
    audio = speech_like((48_000,), np.random.default_rng(2))
    (features,) = session.run(None, {"AUDIO": audio})
    np.testing.assert_allclose(features, extractor(audio, padding=0).T, atol=5e-5)


def test_the_model_folder_has_nothing_wrong() -> None:
    assert read_model(FOLDER).findings == []

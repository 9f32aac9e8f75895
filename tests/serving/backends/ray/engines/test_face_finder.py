"""Faces of frames are found by the repository's own detector, and boxes stay in the frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.backends.ray.engines.face_finder import Box, FaceFinder, detector_path, square
from serving.errors import MissingDependency
from serving.repository.load import load_repository

ROOT = Path(__file__).parents[5]
MODELS = ROOT / "model_repository"
PORTRAIT = ROOT / "examples/podcast/portraits/asha.png"


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(MODELS / "face_detection/1/model.onnx", 1)


def test_a_portraits_face_is_found_and_a_flat_frame_has_none(finder: FaceFinder) -> None:
    with Image.open(PORTRAIT) as picture:
        frame = np.asarray(picture.convert("RGB").resize((320, 320)))
    box = finder.find(frame)
    assert box is not None
    assert box.width == box.height > 60
    assert 0 <= box.left <= 320 - box.width
    assert 0 <= box.top <= 320 - box.height
    assert finder.find(np.full((240, 320, 3), 120, np.uint8)) is None


@pytest.mark.parametrize(
    ("face", "box"),
    [
        ((100, 100, 40, 50), Box(68, 68, 65, 65)),
        ((5, 195, 40, 50), Box(0, 135, 65, 65)),
        ((100, 100, 400, 300), Box(0, 0, 200, 200)),
        ((100, 100, 4, 3), None),
    ],
    ids=["inside", "in a corner", "larger than the frame", "too small"],
)
def test_the_square_is_1_3_times_the_face_and_inside_the_frame(face: tuple, box: Box | None) -> None:
    assert square(np.array(face + (0,) * 12, np.float32), 200, 200) == box


def test_the_detector_is_the_weights_own_or_the_model_beside_it(tmp_path: Path) -> None:
    model = load_repository([MODELS]).get("manipulation_detection")
    assert detector_path(model, tmp_path) == MODELS / "face_detection/1/model.onnx"
    own = tmp_path / "face_detection.onnx"
    own.write_bytes(b"")
    assert detector_path(model, tmp_path) == own


def test_a_detector_that_is_nowhere_is_a_missing_dependency(tmp_path: Path) -> None:
    model = load_repository([MODELS]).get("manipulation_detection")
    card = model.card.model_copy(update={"options": {"detector": "other"}})
    with pytest.raises(MissingDependency, match="no face detector 'other'"):
        detector_path(type(model)(model.name, model.folder, card, model.config, model.versions), tmp_path)

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from optimize.recipe import BATCH, Tensor
from optimize.recipes import mediapipe
from optimize.triton_config import check
from serving.errors import EngineFailed
from serving.repository.read import read_model

REPOSITORY = Path(__file__).parents[3] / "model_repository"
RECIPES = {"face_detection": mediapipe.FACE_DETECTION, "face_landmarks": mediapipe.FACE_LANDMARKS}


def session(model: str) -> ort.InferenceSession:
    return ort.InferenceSession(REPOSITORY / model / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def faces(side: int, count: int) -> np.ndarray:
    tensor = Tensor("IMAGE", "uint8", (BATCH, side, side, 3))
    return np.asarray(mediapipe.drawn_faces(tensor, (count, side, side, 3), np.random.default_rng(0)))


def test_anchors_lie_in_two_grids_of_16_and_8_cells() -> None:
    centres = mediapipe.anchor_centres()
    assert centres.shape == (896, 2)
    np.testing.assert_allclose(centres[[0, 1, 2]], [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]])
    np.testing.assert_allclose(centres[[512, 517, 518, -1]], [[1 / 16, 1 / 16]] * 2 + [[3 / 16, 1 / 16], [15 / 16] * 2])


def test_width_and_height_have_no_offset() -> None:
    offsets = mediapipe.anchor_offsets()
    assert not offsets[:, 2:4].any()
    np.testing.assert_array_equal(offsets[:, 4:6], offsets[:, :2])


def test_the_detector_finds_a_drawn_face_with_its_eyes_and_mouth() -> None:
    detections, scores = session("face_detection").run(None, {"IMAGE": faces(128, 1)})
    best = detections[0, scores[0].argmax()]
    assert scores.max() > 0.8
    np.testing.assert_allclose(best[:2], [0.5, 0.56], atol=0.05)
    np.testing.assert_allclose(best[4:8], [0.39, 0.46, 0.61, 0.46], atol=0.03)
    np.testing.assert_allclose(best[10:12], [0.5, 0.7], atol=0.03)


def test_the_mesh_lies_on_a_drawn_face() -> None:
    points, score = session("face_landmarks").run(None, {"IMAGE": faces(192, 1)})
    assert score[0, 0] > 0.9
    right_eye, left_eye = points[0, [33, 133], :2].mean(0), points[0, [362, 263], :2].mean(0)
    np.testing.assert_allclose(right_eye, [0.39, 0.46], atol=0.04)
    np.testing.assert_allclose(left_eye, [0.61, 0.46], atol=0.04)
    np.testing.assert_allclose(points[0, [13, 14], :2].mean(0), [0.5, 0.7], atol=0.04)


def test_no_face_scores_low() -> None:
    blank = np.full((1, 192, 192, 3), 128, np.uint8)
    _, score = session("face_landmarks").run(None, {"IMAGE": blank})
    _, scores = session("face_detection").run(None, {"IMAGE": blank[:, :128, :128]})
    assert score.max() < 0.5
    assert scores.max() < 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_gives_what_single_pictures_give(name: str) -> None:
    served = session(name)
    side = served.get_inputs()[0].shape[1]
    pictures = np.random.default_rng(3).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    together = served.run(None, {"IMAGE": pictures})
    alone = [served.run(None, {"IMAGE": picture[None]}) for picture in pictures]
    for index, output in enumerate(together):
        np.testing.assert_allclose(output, np.concatenate([one[index] for one in alone]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "recipe"), RECIPES.items(), ids=list(RECIPES))
def test_the_committed_folder_is_what_the_recipe_declares(name: str, recipe: mediapipe.TfliteRecipe) -> None:
    model = read_model(REPOSITORY / name)
    assert model.findings == []
    assert model.config is not None
    check(model.config_file, model.config, recipe)


def test_a_dead_converter_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("Traceback\nImportError: no tensorflow here")
    with (
        subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE, text=True) as child,
        pytest.raises(EngineFailed, match="no tensorflow here"),
    ):
        mediapipe.answer(child, tmp_path)

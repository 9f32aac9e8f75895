"""FaceFinder: where the most prominent face of a frame is, by the repository's own detector; used by engine xception.

The model is MediaPipe's short-range detector as ``model_repository/face_detection`` has it (Apache-2.0, real weights).
The one invariant: boxes are whole pixels of the frame, square, and inside it.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.backends.triton.adapters.face_geometry import (
    BOX,
    Floats,
    Tile,
    close_ups,
    in_picture,
    prominent_face,
    whole,
)
from serving.backends.triton.adapters.face_landmarks import THRESHOLD, cut_tiles
from serving.errors import MissingDependency
from serving.repository.model import Model

AROUND: Final = 1.3
"""Side of the square in units of the face's longer side, as FaceForensics++ cuts faces."""

DETECTOR: Final = "face_detection"
"""Name of the model, unless ``options.detector`` says otherwise; a checkpoint may bring its own as a file of it."""

_LEAST_PX: Final = 16


class Box(NamedTuple):
    """A square of a frame."""

    left: int
    top: int
    width: int
    height: int


class FaceFinder:
    """Runs the detector on the CPU, by ONNX Runtime.

    Args:
        path: of its ONNX file.
        threads: it may use.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def find(self, frame: NDArray[np.uint8]) -> Box | None:
        """The square round the largest face of a frame, uint8 (height, width, 3), red-green-blue; None without one."""
        height, width = frame.shape[:2]
        picture = Image.fromarray(frame)
        for tiles in ([whole(width, height)], close_ups(width, height)):
            face = self._detect(picture, tiles)
            if face is not None:
                return square(face, width, height)
        return None

    def _detect(self, picture: Image.Image, tiles: list[Tile]) -> Floats | None:
        detections, scores = self._session.run(["DETECTIONS", "SCORES"], {"IMAGE": cut_tiles(picture, tiles)})
        found = [in_picture(seen, tile) for seen, tile in zip(detections, tiles, strict=True)]
        face = prominent_face(np.concatenate(found), np.concatenate(list(scores)), THRESHOLD)
        return face[0] if face else None


def square(face: Floats, width: int, height: int) -> Box | None:
    """The square round a detection, moved and cut so that it lies in the frame; None where too little is left."""
    x, y, face_width, face_height = (float(value) for value in face[BOX])
    side = min(round(AROUND * max(face_width, face_height)), width, height)
    left = min(max(round(x - side / 2), 0), width - side)
    top = min(max(round(y - side / 2), 0), height - side)
    return Box(left, top, side, side) if side >= _LEAST_PX else None


def detector_path(model: Model, weights: Path) -> Path:
    """The detector's ONNX file: among the model's own weights, or that of the model folder beside it.

    Raises:
        MissingDependency: it is in neither place.
    """
    name = str(model.card.options.get("detector", DETECTOR))
    beside = sorted((model.folder.parent / name).glob("*/model.onnx"), key=lambda path: path.parent.name)
    for path in (weights / f"{name}.onnx", *reversed(beside)):
        if path.is_file():
            return path
    raise MissingDependency(
        f"there is no face detector {name!r}",
        field=f"{model.name}/model.yaml:options.detector",
        fix=f"put the model {name} into the same repository, or {name}.onnx among the weights",
    )

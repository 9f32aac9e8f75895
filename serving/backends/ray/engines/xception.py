"""XceptionEngine: whether faces in a picture or a clip were manipulated; task manipulation_detection. For Ray replicas.

The one invariant: a medium in which no face was seen is an error, never a pass; the score is the mean over the faces
that were looked at.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.face_finder import Box, FaceFinder, detector_path
from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.inputs import FORMATS, read_picture
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import BadInput
from serving.media.frames import FIX, frame_at, spread
from serving.media.probe import probe_file
from serving.protocol.tasks import FrameScore, ManipulationRequest

if TYPE_CHECKING:
    from serving.backends.ray.engines.networks.xception import Xception

FACE_PX: Final = 299
LOOKED_AT_PX: Final = 1920
"""Longer side at which frames are looked at."""

FACES_AT_ONCE: Final = 8
Picture = NDArray[np.uint8]


class Prepared(NamedTuple):
    """A request, ready for the network.

    Args:
        path: of the medium; None to warm up with a grey face.
        times_s: of the frames to look at; a picture has one.
        long_px: longer side of its frames; 0 where it is a picture.
        still: the picture, decoded; None where it is a clip.
    """

    path: Path | None
    times_s: Sequence[float]
    long_px: int
    still: Picture | None = None


class Face(NamedTuple):
    """One face: when, where in the medium's own pixels, and 299 by 299 pixels of it."""

    time_s: float
    box: Box
    pixels: Picture


class Seen(NamedTuple):
    """Faces and their scores, 1 is manipulated."""

    faces: Sequence[Face]
    scores: Sequence[float]


class XceptionEngine(NetworkEngine[ManipulationRequest, Prepared, Seen]):
    """Finds faces with MediaPipe's detector and scores them with a FaceForensics++ kind of Xception."""

    request_type = ManipulationRequest
    lower = ("frames",)

    def load(self) -> None:
        """Read the user's weights; see :func:`serving.backends.ray.engines.networks.xception.load_xception`."""
        self.network = needs(self._read, "torch")
        self._finder = FaceFinder(detector_path(self.model, self.weights.folder), self.threads)

    def _read(self) -> "Xception":
        from serving.backends.ray.engines.networks.checkpoint import read_held
        from serving.backends.ray.engines.networks.xception import load_xception

        return load_xception(read_held(self.model, self.weights)).to(self.placement.device, self.placement.dtype)

    def prepare(self, request: ManipulationRequest, files: Mapping[str, Path]) -> Prepared:
        """Tell pictures from clips, and choose the frames to look at."""
        path = files["media"]
        if is_picture(path):
            return Prepared(path, (0.0,), 0, np.asarray(read_picture(path, "media")))
        try:
            info = probe_file(path)
        except BadInput as error:
            raise BadInput("this is neither a picture nor a clip that can be read", field="media", fix=FIX) from error
        video = info.first("video")
        if video is None:
            raise BadInput("there is no picture in the file", field="media", fix=FIX)
        count = min(request.frames, max(1, int(info.duration_s * video.fps)))
        return Prepared(path, spread(info.duration_s, count), max(video.width, video.height))

    def generate(self, batch: Sequence[Prepared], steps: Steps) -> Sequence[Seen]:
        """Look at the frames, then score their faces; a step is a frame, or a pass of some faces."""
        return [self._seen(prepared, steps) for prepared in batch]

    def write(self, request: ManipulationRequest, output: Seen, folder: Path) -> Written:
        """The score, and whether it is below the threshold."""
        score = float(np.mean(output.scores))
        frames = [
            FrameScore(time_s=face.time_s, box=face.box, score=one)
            for face, one in zip(output.faces, output.scores, strict=True)
        ]
        return Written({"score": score, "passed": score < request.threshold, "frames": frames})

    def rehearsal(self) -> Prepared:
        """One look, and one face."""
        return Prepared(None, (), 0)

    def _seen(self, prepared: Prepared, steps: Steps) -> Seen:
        if prepared.path is None:
            grey = np.full((FACE_PX, FACE_PX, 3), 128, np.uint8)
            self._finder.find(grey)
            return Seen([], self._scores([Face(0.0, Box(0, 0, FACE_PX, FACE_PX), grey)]))
        looks = len(prepared.times_s)
        total = looks + -(-looks // FACES_AT_ONCE)
        faces: list[Face] = []
        for done, frame in enumerate(_frames(prepared.path, prepared)):
            faces += self._face(prepared, prepared.times_s[done], frame)
            steps(done + 1, total)
        if not faces:
            where = "the picture" if not prepared.long_px else f"any of the {looks} frames looked at"
            raise BadInput(f"no face was found in {where}", field="media", fix="look at more frames, or at closer ones")
        scores: list[float] = []
        for start in range(0, len(faces), FACES_AT_ONCE):
            scores += self._scores(faces[start : start + FACES_AT_ONCE])
            steps(looks + start // FACES_AT_ONCE + 1, total)
        return Seen(faces, scores)

    def _face(self, prepared: Prepared, time_s: float, frame: Picture) -> list[Face]:
        box = self._finder.find(frame)
        if box is None:
            return []
        pixels = frame[box.top : box.top + box.height, box.left : box.left + box.width]
        interpolation = cv2.INTER_AREA if box.width > FACE_PX else cv2.INTER_LINEAR
        face = np.asarray(cv2.resize(pixels, (FACE_PX, FACE_PX), interpolation=interpolation), np.uint8)
        scale = max(1.0, prepared.long_px / max(frame.shape[:2]))
        return [Face(time_s, Box(*(round(scale * value) for value in box)), face)]

    def _scores(self, faces: Sequence[Face]) -> list[float]:
        import torch

        from serving.backends.ray.engines.networks.finite import check_finite

        pixels = np.stack([face.pixels for face in faces]).transpose(0, 3, 1, 2)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.placement.device).float() / 127.5 - 1
        scores = check_finite(self.network(tensor.to(self.placement.dtype)), self.model.name)
        return [float(score) for score in scores.float().cpu()]


def is_picture(path: Path) -> bool:
    """Whether a file begins like a still picture that networks take."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS):
            return True
    except UnidentifiedImageError:
        return False
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True


def _frames(path: Path, prepared: Prepared) -> Iterator[Picture]:
    if prepared.still is not None:
        yield prepared.still
        return
    for time_s in prepared.times_s:
        yield asyncio.run(frame_at(path, time_s, most_px=LOOKED_AT_PX, field="media"))

"""The 468 points of the most prominent face of a picture; loaded by adapters.load_adapter.

Four looks: the detector finds the face in the picture (or in parts of it, where it is small) and once more close to
it; then the mesh is laid on the crop that this gives, and once more on the crop round that mesh.
The one invariant: points are pixels of the picture as it is shown, that is after its EXIF orientation.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.triton.adapters.face_geometry import (
    Crop,
    Floats,
    Tile,
    around,
    close_ups,
    crop_of_detection,
    crop_of_points,
    in_picture,
    prominent_face,
    whole,
)
from serving.backends.triton.client import Tensors
from serving.errors import BadInput, EngineFailed
from serving.media.pictures import check_picture
from serving.protocol.tasks import FaceLandmarksRequest, FaceLandmarksResult, TaskRequest
from serving.repository.model import Model

if TYPE_CHECKING:
    from PIL.Image import Image

DETECTOR_PX: Final = 128
MESH_PX: Final = 192
THRESHOLD: Final = 0.5
"""Of both models, as in MediaPipe's graphs."""
TILES_PER_CALL: Final = 8
"""The detector's max_batch_size."""
FIX: Final = "use a picture that shows one face from the front, not smaller than a tenth of the picture"


class FaceLandmarksAdapter:
    """Runs ``face_landmarks`` requests; ``options.detector`` names the model that finds the face."""

    def __init__(self, model: Model, tensors: Tensors, artifacts: ArtifactStore) -> None:
        self._model = model.name
        self._detector = str(model.card.options.get("detector", "face_detection"))
        self._tensors = tensors
        self._artifacts = artifacts

    async def run(self, request: TaskRequest, call: Call) -> FaceLandmarksResult:
        """Find the points; raises :class:`BadInput` where the file is no picture or shows no face."""
        if not isinstance(request, FaceLandmarksRequest):
            raise EngineFailed(f"{self._model} was sent a {type(request).__name__}")
        path = await self._artifacts.local_path(request.image)
        picture = await asyncio.to_thread(open_picture, path, request.image.name)
        for tiles in ([whole(*picture.size)], close_ups(*picture.size)):
            face = await self._detect(picture, tiles, call)
            mesh = await self._mesh_of(picture, face[0], call) if face else None
            if face and mesh is not None:
                return FaceLandmarksResult(
                    points=[(float(x), float(y)) for x, y in mesh],
                    score=face[1],
                    width=picture.width,
                    height=picture.height,
                )
        raise BadInput(f"no face was found in {request.image.name!r}", field="image", fix=FIX)

    async def _mesh_of(self, picture: "Image", face: Floats, call: Call) -> Floats | None:
        """The mesh of a detected face, or None where a closer look shows that there is none."""
        closer = await self._detect(picture, [around(face)], call)
        points, present = await self._mesh(picture, crop_of_detection(closer[0] if closer else face), call)
        again, still_present = await self._mesh(picture, crop_of_points(points), call)
        if still_present >= THRESHOLD:
            return again
        return points if present >= THRESHOLD else None

    async def _detect(self, picture: "Image", tiles: list[Tile], call: Call) -> tuple[Floats, float] | None:
        """The most prominent face in any of the tiles, in pixels of the picture, with its score."""
        found, scores = [], []
        for start in range(0, len(tiles), TILES_PER_CALL):
            some = tiles[start : start + TILES_PER_CALL]
            batch = await asyncio.to_thread(cut_tiles, picture, some)
            outputs = await self._tensors.infer(self._detector, {"IMAGE": batch}, ["DETECTIONS", "SCORES"], call)
            found += [in_picture(seen, tile) for seen, tile in zip(outputs["DETECTIONS"], some, strict=True)]
            scores += list(outputs["SCORES"])
        return prominent_face(np.concatenate(found), np.concatenate(scores), THRESHOLD)

    async def _mesh(self, picture: "Image", crop: Crop, call: Call) -> tuple[Floats, float]:
        """The mesh in a crop, float32 ``(468, 2)`` in pixels of the picture, and the probability of a face."""
        image = await asyncio.to_thread(cut, picture, crop, MESH_PX)
        outputs = await self._tensors.infer(self._model, {"IMAGE": image[np.newaxis]}, ["POINTS", "SCORE"], call)
        return crop.to_picture(outputs["POINTS"][0, :, :2]), float(outputs["SCORE"].reshape(-1)[0])


def open_picture(path: Path, name: str) -> "Image":
    """A checked picture as RGB, turned as its EXIF says, transparency over white.

    Raises:
        BadInput: see :func:`serving.media.pictures.check_picture`.
    """
    from PIL import Image, ImageOps

    check_picture(path, field="image", name=name)
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.has_transparency_data:
            shown = picture.convert("RGBA")
            picture = Image.new("RGBA", shown.size, "white")
            picture.alpha_composite(shown)
        return picture.convert("RGB")


def cut_tiles(picture: "Image", tiles: list[Tile]) -> NDArray[np.uint8]:
    """The detector's input: uint8 ``(tiles, 128, 128, 3)``, black where a tile reaches beyond the picture."""
    crops = [Crop(tile.left + tile.side / 2, tile.top + tile.side / 2, tile.side, 0.0) for tile in tiles]
    return np.stack([cut(picture, crop, DETECTOR_PX) for crop in crops])


def cut(picture: "Image", crop: Crop, size: int) -> NDArray[np.uint8]:
    """A crop as uint8 ``(size, size, 3)``, RGB; the picture is first reduced by a whole factor, against aliasing."""
    from PIL import Image

    factor = max(1, int(crop.side / size))
    if factor > 1:
        picture = picture.reduce(factor)
        crop = Crop(crop.x / factor, crop.y / factor, crop.side / factor, crop.angle)
    turned = picture.transform(
        (size, size), Image.Transform.AFFINE, crop.affine(size), resample=Image.Resampling.BILINEAR
    )
    return np.asarray(turned, dtype=np.uint8)

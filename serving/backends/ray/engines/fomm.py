"""FommEngine: a face in a picture moves as a face in a clip does; task face_animation. Loaded by Ray replicas.

The one invariant: a clip has as many frames as the driving one has at its rate, and each depends on the source, the
first driving frame and its own driving frame alone.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.inputs import check_sides, read_picture
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.networks.clips import MEDIA_TYPE, Clip, encode
from serving.backends.ray.engines.networks.options import whole_number
from serving.media.frames import read_frames
from serving.protocol.tasks import FaceAnimationRequest

if TYPE_CHECKING:
    import torch

    from serving.backends.ray.engines.networks.fomm_generator import Networks
    from serving.backends.ray.engines.networks.fomm_keypoints import Keypoints

FRAMES_AT_ONCE: Final = 8
"""Frames in one pass, unless ``options.frames_at_once`` says otherwise; a cancel takes effect after one."""

DRIVING_FRAMES: Final = 750
"""Frames of a driving clip, unless ``options.driving_frames`` says otherwise: half a minute at 25 a second."""

DRIVING_BYTES: Final = 512 << 20
"""Decoded frames that one request may hold in memory."""

_MULTIPLE_PX: Final = 128
_MOST_AT_ONCE: Final = 256
_MOST_FRAMES: Final = 20_000

Picture = NDArray[np.uint8]


class Prepared(NamedTuple):
    """A request, ready for the network; pictures are red-green-blue.

    Args:
        source: uint8 (height, width, 3).
        driving: uint8 (frames, height, width, 3).
        relative: whether motion counts from the first driving frame on.
        fps: of the clip.
    """

    source: Picture
    driving: Picture
    relative: bool
    fps: int


class FommEngine(NetworkEngine[FaceAnimationRequest, Prepared, Clip]):
    """Runs the networks of the First Order Motion Model, in fp32: keypoints are finer than half precision tells."""

    request_type = FaceAnimationRequest
    precisions = ("fp32",)
    lower = ("width", "height")
    heavy = True

    def load(self) -> None:
        """Read the networks; see :func:`serving.backends.ray.engines.networks.fomm_generator.load_fomm`."""
        self.encoder, self.generator, self.detector = needs(self._read, "torch")
        self._at_once = whole_number(self.model, "frames_at_once", FRAMES_AT_ONCE, _MOST_AT_ONCE)
        self._most_frames = whole_number(self.model, "driving_frames", DRIVING_FRAMES, _MOST_FRAMES)

    def _read(self) -> "Networks":
        from serving.backends.ray.engines.networks.checkpoint import read_held
        from serving.backends.ray.engines.networks.fomm_generator import Networks, load_fomm

        device = self.placement.device
        encoder, generator, detector = load_fomm(read_held(self.model, self.weights))
        return Networks(encoder.to(device), generator.to(device), detector.to(device))

    def check(self, request: FaceAnimationRequest) -> None:
        """Five halvings of a quarter of the size must come out even."""
        check_sides(request.width, request.height, _MULTIPLE_PX, _MULTIPLE_PX)

    def prepare(self, request: FaceAnimationRequest, files: Mapping[str, Path]) -> Prepared:
        """Read the picture and the clip; both fill the size asked for and are cut to it in the middle."""
        from PIL import ImageOps

        size = request.width, request.height
        source = np.asarray(ImageOps.fit(read_picture(files["source"], "source"), size))
        most = min(self._most_frames, DRIVING_BYTES // source.nbytes)
        driving = asyncio.run(read_frames(files["driving"], request.fps, *size, most=most, field="driving"))
        return Prepared(source, driving, request.relative, request.fps)

    def generate(self, batch: Sequence[Prepared], steps: Steps) -> Sequence[Clip]:
        """Draw and encode the clips, one after the other; a step is a pass of some frames."""
        clips = []
        for prepared in batch:
            height, width = prepared.source.shape[:2]
            clips.append(encode(self._frames(prepared, steps), width, height, prepared.fps, self._scratch))
        return clips

    def write(self, request: FaceAnimationRequest, output: Clip, folder: Path) -> Written:
        """Hand the clip over."""
        path = output.move_to(folder)
        return Written({"frames": output.frames, "fps": output.fps}, {"video": (path, MEDIA_TYPE)})

    def rehearsal(self) -> Prepared:
        """One pass over grey frames of the smallest size."""
        grey = np.full((self._at_once, _MULTIPLE_PX, _MULTIPLE_PX, 3), 128, np.uint8)
        return Prepared(grey[0], grey, True, 25)

    def _frames(self, prepared: Prepared, steps: Steps) -> Iterator[Picture]:
        from serving.backends.ray.engines.networks.finite import check_finite

        picture = self._tensor(prepared.source[None])
        features, source = self.encoder(picture), self.detector(picture)
        first = self.detector(self._tensor(prepared.driving[:1]))
        passes = -(-len(prepared.driving) // self._at_once)
        for done in range(passes):
            seen = self.detector(self._tensor(prepared.driving[done * self._at_once : (done + 1) * self._at_once]))
            moved = _moved(source, seen, first) if prepared.relative else seen
            drawn = check_finite(self.generator(picture, features, source, moved), self.model.name)
            yield from (drawn.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
            steps(done + 1, passes)

    def _tensor(self, pictures: Picture) -> "torch.Tensor":
        import torch

        whole = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        return whole.to(self.placement.device).float() / 255


def _moved(source: "Keypoints", driving: "Keypoints", first: "Keypoints") -> "Keypoints":
    from serving.backends.ray.engines.networks.fomm_keypoints import movement_scale, relative

    return relative(source, driving, first, movement_scale(source, first))
